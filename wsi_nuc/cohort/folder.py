"""The files and folders of a cohort."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wsi_nuc.safezip import is_packed, other_form
from wsi_nuc.store import durable
from wsi_nuc.store.folders import checked, made_folder, refuse_links
from wsi_nuc.store.manifest import MANIFEST
from wsi_nuc.store.place import Place


@dataclass(frozen=True)
class CohortFolder:
    """The folder of a cohort: the paths of everything in it, and how they are written."""

    root: Path
    """May be a link to a folder. Nothing that belongs to the cohort below it may be a link."""

    @cached_property
    def top(self) -> Place:
        """The folder, held open from the first use on. It is created if it is missing."""
        top = made_folder(self.root)
        tables = (self.table, self.anndata, self.patients, self.csv)
        for file in (self.plan, self.plan_table, *tables, self.report, self.results):
            (top / file.name).exists()
        for folder in (self.records, self.summaries, self.inspections, self.jobs, self.queue):
            if (top / folder.name).exists():
                (top / folder.name).folders()
        refuse_links(top)
        refuse_links(top / self.results.name)
        return top

    def place(self, path: Path) -> Place:
        """The place of one of its paths, for writing there."""
        return self.top / path.relative_to(self.root).as_posix()

    def write(self, path: Path, data: bytes) -> None:
        """Create or replace one of its files as a whole."""
        durable.atomic_write(self.place(path), data)

    def open_results(self) -> Place:
        """The folder of the stores. It is created if it is missing, and checked for being writable."""
        durable.make_dir(self.place(self.results))
        return checked(self.place(self.results).opened())

    @property
    def plan(self) -> Path:
        """What will run, with which settings, and where each result goes."""
        return self.root / "plan.json"

    @property
    def plan_table(self) -> Path:
        """The same as a table, with the doubts about each slide."""
        return self.root / "plan.csv"

    @property
    def results(self) -> Path:
        """Folder with the store of each slide."""
        return self.root / "results"

    @property
    def table(self) -> Path:
        """One row per slide and one per patient."""
        return self.root / "cohort.parquet"

    @property
    def anndata(self) -> Path:
        """Slides x figures."""
        return self.root / "cohort.h5ad"

    @property
    def patients(self) -> Path:
        """Patients x figures."""
        return self.root / "patients.h5ad"

    @property
    def csv(self) -> Path:
        """The same rows for a spreadsheet."""
        return self.root / "cohort.csv"

    @property
    def report(self) -> Path:
        """One page: status, distributions, outliers, thumbnails."""
        return self.root / "report.html"

    @property
    def records(self) -> Path:
        """Folder with one small file per slide, named by its id: what became of it."""
        return self.root / "records"

    @property
    def summaries(self) -> Path:
        """Folder with one small file per slide, named by its id: its figures."""
        return self.root / "summaries"

    @property
    def inspections(self) -> Path:
        """Folder with what the inspections of a plan saw of the slides."""
        return self.root / "looks"

    @property
    def jobs(self) -> Path:
        """Folder with one file per job that is at work."""
        return self.root / "jobs"

    @property
    def queue(self) -> Path:
        """Folder with the scripts for a cluster and their logs."""
        return self.root / "queue"

    @property
    def queue_logs(self) -> Path:
        """Folder with what each job on a cluster said."""
        return self.queue / "logs"

    def record(self, slide_id: str) -> Path:
        return self.records / f"{slide_id}.json"

    def summary(self, slide_id: str) -> Path:
        return self.summaries / f"{slide_id}.json"

    def store(self, slide_id: str, pack: bool = False) -> Path:
        """The slide's store in the form that exists; if there is none yet, in the form that `pack` says."""
        folder = self.results / f"{slide_id}.zarr"
        packed = folder.with_name(other_form(folder.name))
        return folder if folder.exists() or not (pack or packed.exists()) else packed

    def manifest(self, slide_id: str) -> Path:
        """The file that exists once the slide is done. For a packed store that is the store itself."""
        store = self.store(slide_id)
        return store if is_packed(store) else store / MANIFEST
