"""What lies where in a cohort's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.store.manifest import MANIFEST


@dataclass(frozen=True, slots=True)
class CohortFolder:
    """`records` and `summaries` hold one small file a slide, named by its id; `results` its store; `jobs` one
    file of each job that is at work; `queue` the scripts for a cluster and their logs."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def plan_table(self) -> Path:
        return self.root / "plan.csv"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def table(self) -> Path:
        return self.root / "cohort.parquet"

    @property
    def anndata(self) -> Path:
        return self.root / "cohort.h5ad"

    @property
    def csv(self) -> Path:
        return self.root / "cohort.csv"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def records(self) -> Path:
        return self.root / "records"

    @property
    def summaries(self) -> Path:
        return self.root / "summaries"

    @property
    def looks(self) -> Path:
        return self.root / "looks"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def queue(self) -> Path:
        return self.root / "queue"

    @property
    def queue_logs(self) -> Path:
        return self.queue / "logs"

    def record(self, slide_id: str) -> Path:
        return self.records / f"{slide_id}.json"

    def summary(self, slide_id: str) -> Path:
        return self.summaries / f"{slide_id}.json"

    def store(self, slide_id: str) -> Path:
        return self.results / f"{slide_id}.zarr"

    def manifest(self, slide_id: str) -> Path:
        return self.store(slide_id) / MANIFEST
