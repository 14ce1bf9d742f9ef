"""One slide through the plain loop, in this process: the cheapest whole run.

Tests that need a command in a process of its own use `tests.e2e.command`. `tests.store.faults` makes durable calls
fail, or kills the process at them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import OK, StorageError
from wsi_nuc.events import Emit, ignore
from wsi_nuc.run.session import run_session
from wsi_nuc.run.success_or_failure import SlideResult, failure
from wsi_nuc.store.manifest import read
from wsi_nuc.store.verify import verify
from wsi_nuc.synth import SynthSpec, write_slide

NAME = "tissue.svs"


def run_one(slide: Path, out: Path, emit: Emit = ignore, **settings: Any) -> SlideResult:
    """A run with the classical model and the serial scheduler, unless `settings` say otherwise."""
    defaults = {"scheduler": "serial", "model": "classical", "region_size": 256, "tissue": "none"}
    (result,) = run_session(RunConfig(out=out, **{**defaults, **settings}), [str(slide)], emit)
    return result


def run_or_error(slide: Path, out: Path, **settings: Any) -> SlideResult:
    """The same, but an output folder that cannot be used is returned as the failure of the slide."""
    try:
        return run_one(slide, out, **settings)
    except StorageError as error:
        return failure(str(slide), error, 0.0)


def published(out: Path) -> list[str]:
    """What a user sees in the output folder, complete or not."""
    return sorted(path.name for path in out.glob("*") if path.name != ".wsi-nuc")


def digest_of(out: Path, name: str = NAME) -> str:
    """The digest of an intact store; "" if nothing is there. A damaged store fails the test."""
    store = out / f"{name}.zarr"
    if not store.exists():
        return ""
    assert verify(store) == []
    return str(read(store)["digest"])


def draw(folder: Path, **spec: Any) -> Path:
    """A slide at 0.5 um with tissue from edge to edge."""
    write_slide(folder / NAME, SynthSpec(mpp=0.5, tissue=1.0, **spec))
    return folder / NAME


def digest_after(slide: Path, out: Path, emit: Emit = ignore, **settings: Any) -> str:
    """The digest of what a run publishes, which has to succeed."""
    assert run_one(slide, out, emit, **settings).exit_code == OK
    return digest_of(out)


def assert_told(result: SlideResult, exit_code: int, *words: object) -> None:
    """The slide failed with the documented exit code, and its error holds every one of `words`."""
    assert result.exit_code == exit_code, result
    assert all(str(word) in result.error for word in words), result.error
