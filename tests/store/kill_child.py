"""A program that the tests run: it publishes stores in forked children, each killed at another durable call."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.store.build import origin, publish_store
from tests.store.faults import killing, recording
from wsi_nuc.store import durable
from wsi_nuc.store.commit import clean_up
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import read
from wsi_nuc.store.verify import verify

NAME, PACKED = "x.svs.zarr", "x.svs.zarr.zip"
# The name of the store before, and of the store that replaces it.
FORMS = {"pack": (NAME, PACKED), "unpack": (PACKED, NAME)}


def killed_at(out_dir: Path, number: int, overwrite: bool, name: str) -> int:
    """Publish in a child that dies before its `number`-th durable call; returns the child's wait status."""
    child = os.fork()
    if child == 0:
        with killing(number):
            publish_store(out_dir, 20, name, origin(b=1), overwrite)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def state(out_dir: Path) -> str:
    stores = [out_dir / name for name in (NAME, PACKED) if (out_dir / name).exists()]
    if len(stores) != 1:
        return "both" if stores else "nothing"
    (store,) = stores
    problems = verify(store)
    return "broken " + "; ".join(problems) if problems else str(read(store)["made_from"]["config"].get("b", "old"))


def count_calls(out_dir: Path, overwrite: bool, before: str, after: str) -> int:
    if overwrite:
        publish_store(out_dir, 10, before)
    with recording() as calls:
        publish_store(out_dir, 20, after, origin(b=1), overwrite)
    shutil.rmtree(out_dir)
    return len(calls)


def main(folder: str, mode: str, step: int) -> None:
    overwrite = mode != "fresh"
    if mode == "two-steps":
        durable.exchange = lambda source, target: False
    before, name = FORMS.get(mode, (NAME, NAME))
    calls = count_calls(Path(folder, "count"), overwrite, before, name)
    # The last calls make the result visible; what lies before them only fills the private folder.
    for number in sorted({*range(0, calls - 12, step), *range(calls - 12, calls, 1 if step < 40 else 4)}):
        out_dir = Path(folder, str(number))
        if overwrite:
            publish_store(out_dir, 10, before)
        status = killed_at(out_dir, number, overwrite, name)
        at_once = state(out_dir)
        clean_up(made_folder(out_dir))
        left = len(list((out_dir / ".wsi-nuc").glob("staging/*")))
        after = state(out_dir)
        publish_store(out_dir, 20, name, origin(b=1), overwrite=True)
        print(number, status, at_once, after, left, state(out_dir), sep="|")
        shutil.rmtree(out_dir)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
