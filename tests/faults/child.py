"""Run by the tests in a process of its own, which has everything loaded and forks its runs.

`kills SLIDE OUT STEP` kills a run at every STEP-th durable call, and at each of the last calls, which make the
result visible. It prints `number|status|digest` for each kill, where the digest is of what the user sees then.
Every run goes on from what the run before it left.

`killed SLIDE OUT NUMBER` kills a run NUMBER durable calls before its end, and prints the status.

`jobs SLIDE OUT COUNT` starts COUNT runs of one slide at once, and prints PUBLISHED or VERIFIED for each.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from tests.faults.one_run import digest_of, run_one
from tests.store.faults import killing, recording

LAST = 12
PUBLISHED, VERIFIED = 10, 11


def forked(call: Callable[[], int]) -> int:
    """The id of a child that exits with what `call` returns."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = call()
        finally:
            os._exit(code)
    return child


def status_of(child: int) -> int:
    """How a child ended: 9 if it was killed, else its exit code times 256."""
    return os.waitpid(child, 0)[1]


def killed_at(number: int, slide: Path, out: Path) -> int:
    """How a run ends that is killed before its `number`-th durable call, if it makes that many."""

    def run() -> int:
        with killing(number):
            return run_one(slide, out, keep_parts=True).exit_code

    return status_of(forked(run))


def calls_of_a_run(slide: Path) -> int:
    with TemporaryDirectory() as folder, recording() as calls:
        run_one(slide, Path(folder))
    return len(calls)


def killed(slide: Path, out: Path, number: int) -> None:
    print(killed_at(calls_of_a_run(slide) - number, slide, out))


def kills(slide: Path, out: Path, step: int) -> None:
    calls = calls_of_a_run(slide)
    # Once the parts are there, a run makes a few calls fewer.
    for number in sorted({*range(0, calls, step), *range(calls - LAST - step, calls)}):
        status = killed_at(number, slide, out)
        print(number, status, digest_of(out), sep="|")
        if digest_of(out):
            shutil.rmtree(out / f"{slide.name}.zarr")


def jobs(slide: Path, out: Path, count: int) -> None:
    def run() -> int:
        result = run_one(slide, out)
        return {"published": PUBLISHED, "verified": VERIFIED}.get(result.status, 1)

    for child in [forked(run) for _ in range(count)]:
        print(status_of(child) // 256)


if __name__ == "__main__":
    # Threads do not survive a fork. Frozen objects are not copied by the collector in every child.
    cv2.setNumThreads(1)
    gc.freeze()
    {"kills": kills, "killed": killed, "jobs": jobs}[sys.argv[1]](
        Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    )
