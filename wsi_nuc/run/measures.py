"""What a run may have measured of a result before it is published. Who measures is handed in from above."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import UsageError
from wsi_nuc.executors.base import Execute
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.job import SlideJob
from wsi_nuc.store.commit import Published
from wsi_nuc.store.place import Place
from wsi_nuc.store.zarrfile import ZarrFolder


class Measures(Protocol):
    def settings(self, config: RunConfig, spec: ModelSpec) -> dict[str, Any]:
        """What is asked for, as it shows in the identity of a result; empty where nothing is."""
        ...

    def reconciled(self, job: SlideJob, final: Path) -> SlideJob:
        """The job in the light of what lies at its place."""
        ...

    def lacking(self, job: SlideJob, final: Path) -> bool:
        """The nuclei that the job asks for are there, intact, and only their measures are not."""
        ...

    def add(self, job: SlideJob, final: Place, execute: Execute, device: str) -> Published:
        """Measure the nuclei of the published result at `final`."""
        ...

    def wanted(self, job: SlideJob) -> bool: ...

    def measure(self, folder: ZarrFolder, job: SlideJob, execute: Execute, device: str) -> None:
        """Measure nuclei that are written but not sealed yet."""
        ...


class NoMeasures:
    """Nuclei alone."""

    def settings(self, config: RunConfig, spec: ModelSpec) -> dict[str, Any]:
        if config.features or config.embedding:
            raise UsageError("features", "this call cannot measure them", "call `wsi_nuc.run_slides`")
        return {}

    def reconciled(self, job: SlideJob, final: Path) -> SlideJob:
        return job

    def lacking(self, job: SlideJob, final: Path) -> bool:
        return False

    def add(self, job: SlideJob, final: Place, execute: Execute, device: str) -> Published:
        raise NotImplementedError

    def wanted(self, job: SlideJob) -> bool:
        return False

    def measure(self, folder: ZarrFolder, job: SlideJob, execute: Execute, device: str) -> None:
        raise NotImplementedError
