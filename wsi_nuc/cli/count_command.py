"""`wsi-nuc count`: nuclei and their density in drawn regions or on a grid, for one store or many."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.options import Option
from wsi_nuc.errors import UsageError

if TYPE_CHECKING:
    from wsi_nuc.counting.count import Counted, Question
    from wsi_nuc.counting.table import Subject

_LENGTH = re.compile(r"([0-9]*\.?[0-9]+) ?(um|µm|μm|mm)")


def count(
    stores: Annotated[
        list[Path], typer.Argument(help="Published stores, folders of them, or the folder of a cohort.")
    ],
    out: Annotated[Path, Option("--out", "-o", help="The table to write: .csv or .parquet.")],
    by: Annotated[
        Path | None,
        Option(
            help="GeoJSON with the regions (QuPath's annotations). For several stores a folder with one file per "
            "slide, SLIDE.geojson."
        ),
    ] = None,
    grid: Annotated[str, Option(help="Edge of the cells of a grid, such as 100um or 0.5mm.")] = "",
    classes: Annotated[list[str] | None, Option("--class", help="Only this class. May be repeated.")] = None,
    min_score: Annotated[float, Option(min=0, max=1, help="Only nuclei with at least this score.")] = 0.0,
    positive_above: Annotated[
        float | None, Option(help="OD: nuclei with more DAB on average are positive. Needs features with --dab.")
    ] = None,
    unit: Annotated[str, Option(help="What the coordinates of the regions are: px (of level 0) or um.")] = "px",
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the table if it exists.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Count nuclei per mm2 of usable tissue: in each region, in each cell of a grid, or on the whole slide.

    A nucleus is where its centroid is. One on the border of two regions counts once: a region holds its left and
    upper sides. Regions that overlap each count all that they hold. Nothing is computed again. The table appears
    complete, or not at all.
    """
    from rich.console import Console
    from rich.progress import Progress

    from wsi_nuc.counting.count import Question
    from wsi_nuc.counting.table import refuse_target, write_counts

    if by is not None and grid:
        raise UsageError("--grid", "does not go together with --by", "leave one of them out")
    if unit not in ("px", "um"):
        raise UsageError(f"--unit {unit}", "is not a unit of regions", "write px or um")
    out = out.expanduser().absolute()
    refuse_target(out, overwrite)
    question = Question(
        tuple(classes or ()), min_score, positive_above, None, unit == "um", _length(grid) if grid else None
    )
    subjects = _subjects(stores, by, question)
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task(out.name, total=len(subjects))

        def show(done: int, counted: Counted) -> None:
            bar.update(task, completed=done)
            for line in _told(counted):
                bar.console.print(f"wsi-nuc: {subjects[done - 1].question.regions}: {line}", highlight=False)

        rows = write_counts(subjects, out, overwrite, show)
    typer.echo(f"{out}: {rows:,} rows of {len(subjects)} {'slides' if len(subjects) > 1 else 'slide'}")


def _length(text: str) -> float:
    """Micrometres."""
    match = _LENGTH.fullmatch(text.strip())
    if match is None or not float(match[1]) > 0:
        raise UsageError(f"--grid {text}", "is not a length", "write it with its unit, such as 100um or 0.5mm")
    return float(match[1]) * (1000 if match[2] == "mm" else 1)


def _told(counted: Counted) -> list[str]:
    read = counted.regions
    if read is None:
        return []
    counts = (
        (read.mended, "regions crossed themselves and were mended"),
        (read.cut, "regions reached beyond the slide and were cut"),
        (read.passed_over, "objects are not regions and were passed over"),
    )
    return [f"{number} {what}" for number, what in counts if number]


def _subjects(paths: list[Path], by: Path | None, question: Question) -> list[Subject]:
    from dataclasses import replace

    subjects = [subject for path in paths for subject in _stores_at(path, question)]
    if by is None:
        return subjects
    if by.is_dir():
        return [replace(s, question=replace(question, regions=_file_of(by, s))) for s in subjects]
    if len(subjects) > 1:
        remedy = "give a folder with one SLIDE.geojson for each"
        raise UsageError(f"--by {by}", f"belongs to one slide, and there are {len(subjects)}", remedy)
    return [replace(s, question=replace(question, regions=by)) for s in subjects]


def _file_of(folder: Path, subject: Subject) -> Path:
    names = dict.fromkeys((f"{subject.label}.geojson", f"{Path(subject.label).stem}.geojson"))
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(folder, f"has no regions of {subject.label}", f"name its file {next(iter(names))}")


def _stores_at(path: Path, question: Question) -> list[Subject]:
    """The store at this path, or all stores of a folder or of a cohort."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.counting.table import Subject
    from wsi_nuc.store.verify import is_result

    if not path.exists():
        raise UsageError(path, "is not there", "give a published store, or a folder of stores")
    if not is_result(path) and CohortFolder(path).plan.is_file():
        return _of_cohort(path, question)
    stores = [path] if path.is_file() or is_result(path) else [p for p in sorted(path.iterdir()) if is_result(p)]
    if not stores:
        raise UsageError(path, "holds no result of wsi-nuc", "give a published store, or a folder of stores")
    return [Subject(p, p.name.removesuffix(".zip").removesuffix(".zarr"), question) for p in stores]


def _of_cohort(path: Path, question: Question) -> list[Subject]:
    """The slides that are done. The others are named on standard error."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.plan import load
    from wsi_nuc.cohort.records import DONE
    from wsi_nuc.cohort.state import states
    from wsi_nuc.counting.table import Subject

    folder = CohortFolder(path)
    plan = load(folder)
    all_states = states(folder, plan, plan.rows)
    done = [state.row for state in all_states if state.state == DONE]
    if len(done) < len(all_states):
        typer.echo(f"wsi-nuc: {path}: {len(all_states) - len(done)} slides are not done and left out", err=True)
    if not done:
        raise UsageError(path, "has no slide that is done", "run `wsi-nuc cohort run` first")
    return [Subject(folder.store(row.id), row.id, question, row.patient or None) for row in done]
