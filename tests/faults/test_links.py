"""Row 35: links below the output, or swapped in during a run, are refused, and nothing outside is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.one_run import NAME, assert_told, digest_of, run_one, run_or_error
from tests.store.faults import before_call
from tests.store.outside import everything, link, tempting
from wsi_nuc.errors import OK, STORAGE
from wsi_nuc.store.private import FOLDER

STORE = f"{NAME}.zarr"
# Durable calls: what the call does, and how the name of its file ends.
PART = ("rename", ".arrow")
WRITING = ("create", "shapes.parquet")
SEALED = ("rename", "manifest.json")


def before(moment: tuple[str, str], swap: Callable[[], None]) -> Callable[[str, Path], None]:
    """Calls `swap` once, right before the first call that `moment` names."""
    done: list[str] = []

    def hook(operation: str, path: Path) -> None:
        if operation == moment[0] and path.name.endswith(moment[1]) and not done:
            done.append(operation)
            swap()

    return hook


SWAPS = [
    (PART, FOLDER),
    (PART, f"{FOLDER}/parts"),
    (PART, f"{FOLDER}/staging"),
    (PART, f"{FOLDER}/commit"),
    (PART, f"{FOLDER}/runs"),
    (PART, STORE),
    (WRITING, f"{FOLDER}/staging"),
    (SEALED, f"{FOLDER}/staging"),
    (SEALED, FOLDER),
    (SEALED, ""),
    (WRITING, ""),
    (PART, ""),
]


@pytest.mark.parametrize(("moment", "where"), SWAPS)
def test_row_35_link_swapped_in_during_the_run(
    slide: Path, undisturbed: str, in_memory: Path, moment: tuple[str, str], where: str
) -> None:
    """A link takes the place of what is at `where` in the output folder; "" is the output folder itself."""
    real, out, outside = in_memory / "real", in_memory / "out", tempting(in_memory / "outside")
    real.mkdir()
    out.symlink_to(real)
    untouched = everything(outside)
    swap = (lambda: link(real / where, outside)) if where else (lambda: _lead(out, outside))
    with before_call(before(moment, swap)):
        result = run_or_error(slide, out)
    assert_told(result, STORAGE, "is a symbolic link" if where else "was replaced by another folder")
    assert everything(outside) == untouched
    # Once that is mended, the same command goes on, through the link that `--out` may be.
    _lead(out, real)
    if where:
        (real / where).unlink()
    assert run_one(slide, out).exit_code == OK
    assert digest_of(real) == undisturbed
    assert everything(outside) == untouched


def _lead(out: Path, target: Path) -> None:
    out.unlink()
    out.symlink_to(target)
