"""Two users and one cohort, in a process of its own: python -m tests.cohort.two_users FOLDER SLIDE...

Prints what each of them was told, one JSON object per step. The users are forks of this process that gave up root:
what they need is imported before, since the interpreter may lie where only root can read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cohort.lists import settings
from wsi_nuc.cohort.collect import collect
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import save
from wsi_nuc.cohort.planning import make_plan
from wsi_nuc.cohort.report import write_report
from wsi_nuc.cohort.shards import Shard
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.errors import WsiNucError
from wsi_nuc.events import Event, RegionFinished

ANN, BEN, GROUP = 20_001, 20_002, 20_000
HOW = {"scheduler": "serial"}


class User:
    def __init__(self, uid: int, umask: int) -> None:
        self._uid, self._umask = uid, umask

    def does(self, step: str, call: Callable[[], object]) -> None:
        child = os.fork()
        if child == 0:
            self._become_and(step, call)
        os.waitpid(child, 0)

    def _become_and(self, step: str, call: Callable[[], object]) -> None:
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(self._uid)
            os.umask(self._umask)
            said = call()
        except WsiNucError as error:
            said = {"error": str(error), "exit_code": error.exit_code}
        except BaseException as error:  # noqa: BLE001 - all that is raised here is a finding
            said = {"error": f"{type(error).__name__}: {error}", "exit_code": 1}
        print(json.dumps({"step": step, "said": said}), flush=True)
        os._exit(0)


def plan(folder: CohortFolder, slides: list[str]) -> object:
    source = folder.root.parent / f"{folder.root.name}.csv"
    source.write_text("slide\n" + "\n".join(slides) + "\n")
    save(folder, make_plan(folder, str(source), settings(folder)), overwrite=True)
    return "planned"


def run(folder: CohortFolder, shard: str = "1/1") -> object:
    slides = run_cohort(folder, Shard.parse(shard), execution=HOW)
    return {slide.id: slide.error or slide.status for slide in slides}


def run_and_die(folder: CohortFolder) -> object:
    """As if by kill -9, in the middle of a slide."""

    def die(event: Event) -> None:
        if isinstance(event, RegionFinished):
            print(json.dumps({"step": "dies", "said": ""}), flush=True)
            os._exit(0)

    return [slide.id for slide in run_cohort(folder, execution=HOW, emit=die)]


def tables(folder: CohortFolder) -> object:
    write_report(folder)
    return len(collect(folder, csv=True).slides)


def shared(root: Path, name: str) -> CohortFolder:
    """A folder of the group, whose files also belong to the group."""
    place = root / name
    place.mkdir()
    os.chown(place, 0, GROUP)
    place.chmod(0o2775)
    return CohortFolder(place / "cohort")


def main() -> None:
    root, slides = Path(sys.argv[1]), sys.argv[2:]
    warm = CohortFolder(root / "warm")
    warm.root.mkdir()
    plan(warm, slides[:1])
    run(warm)
    tables(warm)

    folder, ann, ben = shared(root, "group"), User(ANN, 0o002), User(BEN, 0o002)
    ann.does("ann plans", lambda: plan(folder, slides))
    ann.does("ann's share", lambda: run(folder, "1/2"))
    ben.does("ben's share", lambda: run(folder, "2/2"))
    ben.does("ben's tables", lambda: tables(folder))
    ann.does("ann's tables", lambda: tables(folder))

    folder = shared(root, "sticky")
    ann.does("ann plans", lambda: plan(folder, slides[:2]))
    ann.does("ann's tables", lambda: tables(folder))
    ann.does("ann dies", lambda: run_and_die(folder))
    for place in (folder.root, *folder.root.rglob("*")):
        if place.is_dir():
            place.chmod(0o3775)
    ben.does("ben runs", lambda: run(folder))
    ben.does("ben's tables", lambda: tables(folder))

    folder, ann, ben = shared(root, "closed"), User(ANN, 0o022), User(BEN, 0o022)
    ann.does("ann plans", lambda: plan(folder, slides[:1]))
    ben.does("ben runs", lambda: run(folder))


if __name__ == "__main__":
    main()
