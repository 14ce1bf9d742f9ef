"""One slide through the plain loop, in this process: the cheapest whole run.

Faults that need a command of its own take `tests.e2e.command`; `tests.store.faults` fails and kills durable calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_nuc.config import RunConfig
from wsi_nuc.run import SlideResult, run_slides
from wsi_nuc.store.manifest import read
from wsi_nuc.store.verify import verify

NAME = "tissue"


def run_one(slide: Path, out: Path, **settings: Any) -> SlideResult:
    """The classical model, serial, unless `settings` say otherwise."""
    defaults = {"scheduler": "serial", "model": "classical", "region_size": 256, "tissue": "none"}
    (result,) = run_slides(RunConfig(out=out, **{**defaults, **settings}), [str(slide)])
    return result


def published(out: Path) -> list[Path]:
    """What a user sees in the output folder, complete or not."""
    return sorted(path for path in out.glob("*") if path.name != ".wsi-nuc") if out.is_dir() else []


def digest_of(out: Path, name: str = f"{NAME}.svs") -> str:
    """The digest of an intact store; "" if nothing is there. A damaged store fails the test."""
    store = out / f"{name}.zarr"
    if not store.exists():
        return ""
    assert verify(store) == []
    return str(read(store)["digest"])


def assert_told(result: SlideResult, exit_code: int, *words: object) -> None:
    """The slide failed with the documented exit code, and its error holds every one of `words`."""
    assert result.exit_code == exit_code, result
    assert all(str(word) in result.error for word in words), result.error
