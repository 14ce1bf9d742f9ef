"""Planning ten thousand small slides with two workers and one stop: how long it takes, and what the stop costs.

python -m benchmarks.cohort_plan [SLIDES]
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.command import cost_of
from benchmarks.slides import write_slides
from benchmarks.table import Row, print_rows

SLIDES, EDGE_PX, WORKERS = 10_000, 512, 2
MOST_S, MOST_MIB = 600.0, 350


@dataclass(frozen=True)
class Stopped:
    """What came of a plan that was stopped."""

    seconds: float
    """Until it ended."""
    looks: int
    """How many looks at slides it left on the disk."""


def measure(small: bool = False) -> list[Row]:
    return planned(24, "--model", "classical", "--scheduler", "serial") if small else planned(SLIDES)


def planned(slides: int, *options: str) -> list[Row]:
    """`options`: further options of the plan. The targets are for ten thousand slides and the default model."""
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as place:
        listed, cohort = _list(Path(place), slides), Path(place) / "cohort"
        call = ["cohort", "plan", str(listed), "--out", str(cohort), "--workers", str(WORKERS), *options]
        stopped = _stopped(call, cohort / "looks", slides // 3)
        rest = cost_of(*call)
        again = cost_of(*call)
        suspects = _count(cohort / "looks", b'"sha256"')
    known = re.search(r"\(([\d,]+) of them earlier", rest.said)
    lost = stopped.looks - (int(known[1].replace(",", "")) if known else 0)
    took = stopped.seconds + rest.wall_s
    what = f"plan of {slides:,} slides with {WORKERS} workers and one stop"
    return [
        Row(what, took, "s", f"<= {MOST_S:g}", took <= MOST_S),
        Row(f"{what}, looks lost", lost, "", "0", lost == 0, always=True),
        Row(f"{what}, slides read whole as suspected twins", suspects, "", "0", suspects == 0, always=True),
        Row(f"{what}, CPU after the stop", rest.cpu_s, "s"),
        Row(f"{what}, peak memory", rest.peak_mib, "MiB", f"<= {MOST_MIB}", rest.peak_mib <= MOST_MIB),
        Row("the same plan once more", again.wall_s, "s"),
    ]


def _list(place: Path, slides: int) -> Path:
    """A list of slides. No two files have the same size, which would make them suspected twins."""
    paths = [place / "slides" / f"{i:05}.svs" for i in range(slides)]
    paths[0].parent.mkdir()
    write_slides(paths, EDGE_PX)
    largest = max(path.stat().st_size for path in paths)
    for i, path in enumerate(paths):
        with path.open("ab") as file:
            file.write(bytes(largest + i - path.stat().st_size))
    listed = place / "list.csv"
    listed.write_text("slide\n" + "\n".join(map(str, paths)) + "\n")
    return listed


def _stopped(call: list[str], looks: Path, after: int) -> Stopped:
    started = time.perf_counter()
    plan = subprocess.Popen([sys.executable, "-m", "wsi_nuc", *call], stderr=subprocess.PIPE, text=True)
    while plan.poll() is None and _count(looks) < after:
        time.sleep(0.1)
    plan.send_signal(signal.SIGTERM)
    said = plan.communicate()[1]
    if plan.returncode != 75:
        raise RuntimeError(said[-2000:])
    return Stopped(time.perf_counter() - started, _count(looks))


def _count(looks: Path, what: bytes = b"\n") -> int:
    return sum(file.read_bytes().count(what) for file in looks.glob("*.jsonl"))


if __name__ == "__main__":
    print_rows(planned(int(sys.argv[1]) if len(sys.argv) > 1 else SLIDES))
