"""The folders that a call works in, held open as long as it lasts."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import UsageError
from wsi_nuc.run.staging import remove_abandoned
from wsi_nuc.store.commit import clean_up
from wsi_nuc.store.paths import output_folder
from wsi_nuc.store.place import Place


@dataclass(frozen=True, slots=True)
class Folders:
    """Where results lie, where the parts of regions do, and where slides are copied to, if they are."""

    out: Place
    parts: Place
    stage: Place | None = None

    def clean_up(self) -> list[Place]:
        """What dead runs left goes. Returns what lies there and is none of ours: it stays."""
        return clean_up(self.out) + (remove_abandoned(self.stage) if self.stage is not None else [])


def open_folders(config: RunConfig, out: Place | None = None) -> Folders:
    """Those of the configuration; `out` where the caller has that one open."""
    out = out or output_folder(config.out)
    parts = output_folder(config.scratch) if config.scratch is not None else out
    if config.stage is None:
        return Folders(out, parts)
    if config.scheduler not in ("serial", "local"):
        cause = f"the workers of --scheduler {config.scheduler} do not see this machine's own disk"
        raise UsageError(f"--stage {config.stage}", cause, "leave one of the two out")
    return Folders(out, parts, output_folder(config.stage))
