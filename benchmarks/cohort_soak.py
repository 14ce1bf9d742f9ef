"""A cohort under fire: slides that are bad in ten ways, several jobs at once, kills at random moments.

Afterwards exactly the good slides must be published and verified, and each bad one named. The tables must be those
of one job that nobody disturbed, and hardly any tile may be computed twice.

python -m benchmarks.cohort_soak [SLIDES [BAD [KILLS [SHARDS [EDGE_PX]]]]]
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.slides import MPP, write_slides
from benchmarks.table import Row, print_rows
from wsi_nuc.cohort.collect import collect
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import load, save
from wsi_nuc.cohort.planning import make_plan
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.config import RunConfig
from wsi_nuc.store.flat import to_csv
from wsi_nuc.store.verify import verify

SLIDES, BAD, KILLS, SHARDS, WORKERS = 200, 10, 50, 4, 2
# Sixteen tiles and as many regions, with few nuclei, to measure what a kill costs and not the model. A kill costs
# about half a region, so smaller slides repeat more: 1.1 % here, 3.8 % with four regions per slide.
SIZE = 1536
MOST_REPEATED = 0.02


@dataclass(frozen=True)
class Fire:
    """What came of the cohort under fire."""

    kills: int
    wrong: list[str]
    """What is not as it has to be, in words."""
    regions: int
    twice: int
    """Regions that were computed more than once."""
    cut_off: int
    """Regions that a kill interrupted."""
    repeated: float
    """Share of the seconds spent on regions that was spent in vain."""


Line = tuple[str, str, str]


def missing(place: Path, good: Sequence[Path]) -> Line:
    return str(place / "missing.svs"), "missing", ""


def text(place: Path, good: Sequence[Path]) -> Line:
    (place / "text.svs").write_text("not a slide")
    return str(place / "text.svs"), "text", ""


def truncated(place: Path, good: Sequence[Path]) -> Line:
    (place / "truncated.svs").write_bytes(good[0].read_bytes()[:5000])
    return str(place / "truncated.svs"), "truncated", ""


def damaged(place: Path, good: Sequence[Path]) -> Line:
    """Opens as it should, but its largest level cannot be decoded."""
    import tifffile

    copy = place / "damaged.svs"
    shutil.copyfile(good[1], copy)
    with tifffile.TiffFile(copy) as tiff:
        offsets = tiff.pages[0].dataoffsets  # type: ignore[union-attr]
    with copy.open("r+b") as file:
        for offset in offsets[:40]:
            file.seek(offset)
            file.write(b"\0" * 600)
    return str(copy), "damaged", ""


def same_content(place: Path, good: Sequence[Path]) -> Line:
    shutil.copyfile(good[0], place / "copy.svs")
    return str(place / "copy.svs"), "copy", ""


def same_path(place: Path, good: Sequence[Path]) -> Line:
    return str(good[0]), "again", ""


def slash(place: Path, good: Sequence[Path]) -> Line:
    return str(place / "slash.svs"), "a/b", ""


def no_number(place: Path, good: Sequence[Path]) -> Line:
    return str(place / "comma.svs"), "comma", "0,25"


def without_mpp(place: Path, good: Sequence[Path]) -> Line:
    import cv2
    import numpy as np

    cv2.imwrite(str(place / "picture.png"), np.full((600, 600, 3), 230, np.uint8))
    return str(place / "picture.png"), "picture", ""


def empty(place: Path, good: Sequence[Path]) -> Line:
    (place / "empty.svs").touch()
    return str(place / "empty.svs"), "empty", ""


WAYS: list[Callable[[Path, Sequence[Path]], Line]] = [
    damaged, truncated, same_content, slash, missing, text, same_path, no_number, without_mpp, empty,
]  # fmt: skip


def soak(place: Path, slides: int, bad: int, kills: int, shards: int, size: int = SIZE) -> Fire:
    """Two cohorts of one plan: one in peace, one under fire."""
    peace, fire = CohortFolder(place / "peace"), CohortFolder(place / "fire")
    listed = _list(place, size, slides - bad, WAYS[:bad])
    config = RunConfig(out=peace.root, workers=WORKERS, region_size=256)
    plan = make_plan(peace, str(listed), config)
    for folder in (peace, fire):
        save(folder, plan, overwrite=True)
    list(run_cohort(peace, execution={"workers": WORKERS}))
    struck = _fire(fire, kills, shards)
    return _judged(peace, fire, [f"bad{i}" for i in range(bad)], struck)


def _list(place: Path, size: int, good: int, ways: Sequence[Callable[[Path, Sequence[Path]], Line]]) -> Path:
    paths = [place / "slides" / f"{i:03}.svs" for i in range(good)]
    paths[0].parent.mkdir(parents=True)
    write_slides(paths, size)
    # The list states their resolution, so that no time is spent on checking it.
    lines: list[Sequence[str]] = [(str(path), f"good{i}", f"{MPP}", f"P{i % 9}") for i, path in enumerate(paths)]
    for i, way in enumerate(ways):
        slide, name, mpp = way(place, paths)
        # Spread over the list. Only the id that is bad itself is kept as it is.
        lines.insert(3 * i + 1, (slide, name if "/" in name else f"bad{i}", mpp, f"P{i}"))
    listed = place / "list.csv"
    listed.write_bytes(to_csv(["slide", "id", "mpp", "patient"], lines))
    return listed


def _log(folder: CohortFolder) -> Path:
    return folder.root / "regions.log"


def _job(folder: CohortFolder, index: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.cohort_soak", "job", str(folder.root), str(index), str(count)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(jobs: Sequence[subprocess.Popen[bytes]]) -> None:
    for job in jobs:
        job.wait()


def _events(folder: CohortFolder) -> list[tuple[str, str, float]]:
    """What the jobs wrote: start, end or kill; of which region (or job); when."""
    log = _log(folder)
    lines = log.read_text().splitlines() if log.exists() else []
    return [(kind, what, float(when)) for kind, what, when in (line.split("\t") for line in lines)]


def _note(folder: CohortFolder, kind: str, what: str) -> None:
    fd = os.open(_log(folder), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{kind}\t{what}\t{time.monotonic()}\n".encode())
    os.close(fd)


def _fire(folder: CohortFolder, kills: int, shards: int) -> int:
    """Runs all jobs at once. Whenever enough is done since the last kill, one job is killed and started anew."""
    dice = random.Random(kills)
    regions = sum(row.tiles for row in load(folder).runnable)
    jobs = {index: _job(folder, index, shards) for index in range(1, shards + 1)}
    struck = 0
    while struck < kills:
        done = sum(kind == "end" for kind, *_ in _events(folder))
        alive = [index for index, job in jobs.items() if job.poll() is None]
        if not alive:
            break
        if done < regions * 0.95 * struck / kills:
            time.sleep(0.05)
            continue
        time.sleep(dice.uniform(0, 3))
        index = dice.choice(alive)
        jobs[index].kill()
        jobs[index].wait()
        _note(folder, "kill", str(jobs[index].pid))
        struck += 1
        jobs[index] = _job(folder, index, shards)
    _wait(list(jobs.values()))
    return struck


def job(root: Path, index: int, count: int) -> None:
    """One job, which notes when it starts and ends a region."""
    from wsi_nuc.cohort.shards import Shard
    from wsi_nuc.run import session
    from wsi_nuc.run.region import RegionJob, process_region
    from wsi_nuc.run.tally import RegionReport

    folder = CohortFolder(root)

    def noted(task: RegionJob) -> RegionReport:
        name = f"{os.getpid()} {Path(task.slide.path).name} {task.task.index}"
        _note(folder, "start", name)
        report = process_region(task)
        _note(folder, "end", name)
        return report

    vars(session)["process"] = noted
    list(run_cohort(folder, Shard(index, count), execution={"scheduler": "serial"}))


def _judged(peace: CohortFolder, fire: CohortFolder, bad: Sequence[str], struck: int) -> Fire:
    wrong = _wrong(peace, fire, bad)
    events = _events(fire)
    started, spent, killed = dict[str, float](), dict[str, list[float]](), dict[str, float]()
    for kind, what, when in events:
        if kind == "start":
            started[what] = when
        elif kind == "end":
            spent.setdefault(what.partition(" ")[2], []).append(when - started.pop(what))
        else:
            killed[what] = when
    lost = [
        killed[what.partition(" ")[0]] - when for what, when in started.items() if what.partition(" ")[0] in killed
    ]
    again = [seconds for each in spent.values() for seconds in each[1:]]
    needed = sum(each[0] for each in spent.values())
    return Fire(struck, wrong, len(spent), len(again), len(lost), (sum(lost) + sum(again)) / needed)


def _wrong(peace: CohortFolder, fire: CohortFolder, bad: Sequence[str]) -> list[str]:
    """Everything that is not as it has to be, in words."""
    wrong = []
    quiet, loud = collect(peace), collect(fire)
    good = {slide.row.id for slide in loud.states if slide.row.id.startswith("good")}
    for slide in loud.states:
        if (slide.state == "done") != (slide.row.id in good):
            wrong.append(f"{slide.row.label} is {slide.state}: {slide.error}")
        elif slide.state == "done":
            wrong += [f"{slide.row.label}: {problem}" for problem in verify(fire.store(slide.row.id))]
        elif not slide.error:
            wrong.append(f"{slide.row.label} has no reason")
    named = sum(slide.state in ("failed", "refused") for slide in loud.states)
    if named != len(bad):
        wrong.append(f"{named} slides are named as bad, {len(bad)} are")
    published = {path.stem for path in fire.results.glob("*.zarr")}
    if published != good:
        wrong.append(f"published but not good, or the other way round: {sorted(published ^ good)}")
    for undisturbed, disturbed in (
        (peace.table, fire.table),
        (peace.anndata, fire.anndata),
        (peace.patients, fire.patients),
    ):
        if undisturbed.read_bytes() != disturbed.read_bytes():
            wrong.append(f"{disturbed.name} differs from that of one undisturbed job")
    if [(slide.state, slide.error) for slide in quiet.states] != [
        (slide.state, slide.error) for slide in loud.states
    ]:
        wrong.append("states or reasons differ from those of one undisturbed job")
    return wrong


def measure(small: bool = False) -> list[Row]:
    return soaked(slides=12, bad=4, kills=5, shards=2, size=1280) if small else soaked()


def soaked(
    slides: int = SLIDES, bad: int = BAD, kills: int = KILLS, shards: int = SHARDS, size: int = SIZE
) -> list[Row]:
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as place:
        outcome = soak(Path(place), slides, bad, kills, shards, size)
    for line in outcome.wrong:
        print(line, file=sys.stderr)
    what = f"{slides} slides ({bad} bad), {shards} jobs, {outcome.kills} kills"
    unit, most = f"of {outcome.regions}", f"<= {outcome.kills}"
    return [
        Row(f"{what}: things that are wrong", len(outcome.wrong), "", "0", not outcome.wrong, always=True),
        Row("kills that struck", outcome.kills, "", f"{kills}", outcome.kills == kills, always=True),
        # A kill costs at most the region that its job was in.
        Row("regions computed twice", outcome.twice, unit, most, outcome.twice <= outcome.kills, always=True),
        Row(
            "regions cut off by a kill", outcome.cut_off, unit, most, outcome.cut_off <= outcome.kills, always=True
        ),
        Row("work repeated", 100 * outcome.repeated, "%", "<= 2", outcome.repeated <= MOST_REPEATED),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        job(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        print_rows(soaked(*map(int, sys.argv[1:])))
