"""Run by the tests: adds features to a store in forked children, and kills each at another durable call."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.features.tissue import Tissue, slide_and_store
from tests.store.faults import killing, recording
from wsi_nuc.executors.base import SerialExecutor
from wsi_nuc.features.job import has_features
from wsi_nuc.features.running import add_features
from wsi_nuc.store.commit import clean_up
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import read
from wsi_nuc.store.verify import verify
from wsi_nuc.types import SlideRef


def add(store: Path, slide: SlideRef) -> None:
    add_features(made_folder(store.parent) / store.name, slide, SerialExecutor(lambda: None).run)


def state(store: Path) -> str:
    problems = verify(store)
    return "broken " + "; ".join(problems) if problems else str(has_features(read(store)["made_from"]))


def main(folder: str, step: int) -> None:
    slide, original = slide_and_store(Path(folder, "one"), Tissue.of(16, edge_um=64), 0.5)
    with recording() as calls:
        add(shutil.copytree(original, Path(folder, "count", original.name)), slide)
    digest = read(Path(folder, "count", original.name))["digest"]
    for number in sorted({*range(0, len(calls), step), *range(len(calls) - 6, len(calls))}):
        out = Path(folder, str(number))
        store = shutil.copytree(original, out / original.name)
        child = os.fork()
        if child == 0:
            with killing(number):
                add(store, slide)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        at_once = state(store)
        clean_up(made_folder(out))
        left = len(list((out / ".wsi-nuc").glob("staging/*")))
        add(store, slide)
        print(number, status, at_once, left, state(store), read(store)["digest"] == digest, sep="|")
        shutil.rmtree(out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
