"""`wsi-nuc train`, `wsi-nuc evaluate` and `wsi-nuc data check`, and the progress of a training."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from wsi_nuc.cli.options import Option
from wsi_nuc.errors import INTERRUPTED, UsageError
from wsi_nuc.training.events import Emit, EpochDone, Event, Noted, StepDone

LINE_EVERY_S = 30.0


def train(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="FAMILY-OR-CONFIG",
            help="A family, such as compact or classes (only classes, from dots), or a YAML file as in configs/.",
        ),
    ] = None,
    out: Annotated[
        Path | None, Option("--out", "-o", help="Folder of the training; the same one resumes.")
    ] = None,
    device: Annotated[str | None, Option(help="auto, cpu, cuda or cuda:N.")] = None,
    init: Annotated[
        list[str] | None, Option(help="Weights to start from: native, official SAM, timm, the authors'.")
    ] = None,
    model: Annotated[
        str | None,
        Option("--model", help="Whose nuclei get the classes that `classes` learns: default or a file."),
    ] = None,
    points: Annotated[
        Path | None, Option("--points", help="Dots on nuclei: GeoJSON of QuPath, CSV, or a result.")
    ] = None,
    slide: Annotated[
        str | None, Option("--slide", help="The slide that the dots are on, or a folder of images.")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Start again instead of resuming.")] = False,
    assign: Annotated[list[str] | None, Option("--set", help="key=value, for any key of the file.")] = None,
    show: Annotated[
        bool, Option("--show", help="Print all settings, with what recipe and preset stand for, and do not train.")
    ] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, only warnings and errors.")] = False,
) -> None:
    """Train a model. After a stop the same command goes on. For several GPUs start it with torchrun."""
    from wsi_nuc.training.registry import load_train_config
    from wsi_nuc.training.registry import train as run_training

    given = {
        "out": out,
        "device": device,
        "init": init or None,
        "model": model,
        "dots.points": points,
        "dots.slide": slide,
    }
    settings = load_train_config(config, assign or [], given)
    if show:
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        with training_progress(quiet) as emit:
            made = run_training(settings, emit, overwrite)
    except KeyboardInterrupt:
        typer.echo("wsi-nuc: stopped. The same command goes on from the last saved epoch.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(made)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def evaluate(
    data: Annotated[Path | None, typer.Argument(help="Folder of labelled images.")] = None,
    model: Annotated[
        list[str] | None, Option("--model", help="Name or file. May be repeated: the table has one row per model.")
    ] = None,
    oracle: Annotated[bool, Option("--oracle", help="Give the annotated points as prompts (Table 7).")] = False,
    split: Annotated[str | None, Option(help="Only images of this split.")] = None,
    name: Annotated[str | None, Option(help="A known data set, for its classes and resolution.")] = None,
    config: Annotated[Path | None, Option("--config", help="YAML file with data and variants.")] = None,
    assign: Annotated[list[str] | None, Option("--set", help="key=value, for any key of the file.")] = None,
    device: Annotated[str | None, Option(help="auto, cpu, cuda or cuda:N.")] = None,
    out: Annotated[Path | None, Option("--out", "-o", help="Folder for tables and JSON.")] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score models on labelled images as the papers do, with the code that `run` uses."""
    from wsi_nuc.evaluation.report import write_report
    from wsi_nuc.evaluation.variants import evaluate_variants, load_evaluate_config

    given: dict[str, object] = {"device": device, "out": out, "oracle": oracle or None, "models": model or None}
    source = {"path": data, "split": split, "name": name}
    settings = load_evaluate_config(config, assign or [], given, source)

    def tell(variant: str, image: str, pq: float) -> None:
        if not quiet:
            print(f"{variant}: {image}: PQ {pq:.3f}", file=sys.stderr, flush=True)  # noqa: T201

    results = evaluate_variants(settings, tell)
    typer.echo(write_report(settings, results))


data_app = typer.Typer(no_args_is_help=True, help="Labelled images.")


@data_app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled images.")],
    name: Annotated[str, Option(help="A known data set, for its classes and resolution.")] = "",
    reader: Annotated[str, Option(help="Force a reader instead of choosing by content.")] = "",
    like: Annotated[
        str, Option("--as", help="kumar, cpm17 or pannuke: compare with its published counts and split lists.")
    ] = "",
    sheet: Annotated[Path | None, Option(help="Also draw an overlay of some images to this PNG.")] = None,
    json: Annotated[bool, Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Count images, nuclei and classes, and name what was mended and what is broken."""
    from wsi_nuc.datasets import check_dataset

    report = check_dataset(folder, name=name, reader_name=reader, sheet=sheet, like=like)
    typer.echo(report.as_json() if json else report.as_text())
    if report.published is not None and not report.published.agrees:
        raise UsageError(folder, f"is not {like} as published", "see what the report names in capitals")
    if not report.ok:
        raise UsageError(folder, f"{len(report.broken)} images cannot be used", "correct or remove them")


@contextmanager
def training_progress(quiet: bool) -> Iterator[Emit]:
    """Prints progress to standard error: a bar on a terminal, a line every half minute elsewhere."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _line_printer(quiet)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reading images", total=None)

        def emit(event: Event) -> None:
            if isinstance(event, StepDone):
                bar.update(task, description=step_line(event), total=event.steps, completed=event.step)
            else:
                bar.console.print(message(event), markup=False, highlight=False)

        yield emit


def _line_printer(quiet: bool) -> Emit:
    printed = [time.monotonic()]

    def emit(event: Event) -> None:
        if quiet and not isinstance(event, Noted):
            return
        if isinstance(event, StepDone):
            if time.monotonic() - printed[0] < LINE_EVERY_S:
                return
            printed[0] = time.monotonic()
            text = f"{step_line(event)}, step {event.step} of {event.steps}"
        else:
            text = message(event)
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the printing layer

    return emit


def step_line(event: StepDone) -> str:
    minutes, seconds = divmod(round(event.seconds_left), 60)
    left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    loss = "" if event.loss is None else f"loss {event.loss:.4f}, "
    return (
        f"{event.stage} epoch {event.epoch}/{event.epochs}, {loss}{event.images_per_s:.1f} images/s, {left} left"
    )


def message(event: EpochDone | Noted) -> str:
    if isinstance(event, Noted):
        return event.message
    shown = (name for name in ("pq", "mpq", "aji", "f1", "class_f1") if event.row.get(name, -1.0) >= 0)
    scores = ", ".join(f"{name} {event.row[name]:.3f}" for name in shown)
    mark = " (best so far)" if event.best else ""
    return (
        f"{event.stage} epoch {event.epoch}/{event.epochs}: loss {event.row['loss']:.4f} {scores}{mark}".rstrip()
    )
