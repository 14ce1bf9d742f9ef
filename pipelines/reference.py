"""Pages of the documentation that are made from the code: options, settings, outputs, errors."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast, get_args, get_origin

from typer.main import get_command

from pipelines.pages import ROOT
from wsi_nuc import errors, run_slides
from wsi_nuc.cli import app
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.config import RunConfig
from wsi_nuc.datasets.record import DataError
from wsi_nuc.store.manifest import MANIFEST, read
from wsi_nuc.store.place import IsLink
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.training.loop import TrainingError

README = ROOT / "README.md"
# Imported so that all kinds of errors are known: those that rooms add to `wsi_nuc/errors.py`.
KINDS_OF_ROOMS = (DataError, IsLink, TrainingError)
TAKES = {int: "whole number", float: "number", Path: "path"}
# The entries of a manifest. The page is not made if there are others.
ENTRIES = {
    "format": "the version of this file's form; a newer one is refused",
    "identity": "sha256 of `made_from`: the same for every repetition of a run",
    "made_from": "everything that the result depends on: slide, weights, settings, results numbers",
    "slide": "size, resolution and levels of the slide, as numbers; no free text of its header",
    "versions": "of this program and of the libraries that it used",
    "tiles": "what became of every tile of the grid, and the places without a result, with their area",
    "repairs": "how many outlines were mended",
    "counts": "nuclei, also per class; the area of the tissue, and the part of it that could be analysed; doubts",
    "files": "size and sha256 of every other file of the store",
    "digest": "sha256 of all of the above: equal for equal results, on whatever machine and however interrupted",
    "run": "what differs between repetitions: times of the stages, regions, warnings",
    "run_sha256": "sha256 of `run`",
}


def options() -> str:
    """Every command with its arguments and options."""
    parts = ["# Every command", "The same as `wsi-nuc COMMAND --help`."]
    for words, command in commands(get_command(app), "wsi-nuc"):
        rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
        parts += [f"## {words}", command.help or ""]
        if rows:
            parts.append("\n".join(["| option | takes | default | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def commands(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    """A command and all below it, each with the words that call it."""
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{words} {name}")


def _row(parameter: Any) -> str:
    argument = parameter.param_type_name == "argument"
    names = [parameter.name.upper()] if argument else [*parameter.opts, *parameter.secondary_opts]
    kind = parameter.type_descriptor.annotation
    many = get_origin(kind) is list
    kind = get_args(kind)[0] if many else kind
    takes = "" if kind is bool else TAKES.get(kind, "text") + _limits(parameter) + ", any number" * many
    default = "" if parameter.default in (None, False, "") else f"`{parameter.default}`"
    cells = (
        ", ".join(f"`{name}`" for name in names),
        takes,
        "required" if parameter.required else default,
        " ".join((parameter.help or "").split()),
    )
    return f"| {' | '.join(cell.replace('|', ', ') for cell in cells)} |"


def _limits(parameter: Any) -> str:
    ends = (("from", parameter.min), ("to", parameter.max))
    words = [f"{word} {end:g}" for word, end in ends if end is not None]
    return f", {' '.join(words)}" if words else ""


def settings() -> str:
    """Every key of the configuration of a run, from the file that is shipped with its defaults."""
    keys = (ROOT / "configs/run.yaml").read_text(encoding="utf-8")
    return (
        "# Every setting\n\n`wsi-nuc run --config FILE` reads such a file, `--set KEY=VALUE` sets one key, and "
        "`wsi-nuc cohort plan` takes both. A key that is left out has the value below.\n\n"
        f"```yaml\n{keys}```\n"
    )


def failures() -> str:
    """The exit codes, and every kind of error that ends with one."""
    kinds = [errors.WsiNucError, *below(errors.WsiNucError), errors.Interrupted]
    rows = [
        f"| `{kind.__name__}` | {getattr(kind, 'exit_code', '')} | {' '.join((kind.__doc__ or '').split())} |"
        for kind in kinds
    ]
    return "\n".join(
        [
            "# Errors and exit codes",
            "",
            "An error names what failed, why, and what to do about it, in one line on standard error:",
            "",
            "```text",
            str(errors.SlideError("b1.svs", "is shorter than its header says", "copy it again")),
            "```",
            "",
            "The exit code says how the call ended.",
            "",
            _table("| exit code |"),
            "",
            "## Kinds",
            "",
            "In Python the same errors are exceptions with `subject`, `cause`, `remedy` and `exit_code`.",
            "",
            "| kind | exit code | meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def below(kind: type) -> Iterator[type]:
    for child in cast("list[type]", kind.__subclasses__()):
        yield child
        yield from below(child)


def _table(head: str) -> str:
    """The table of the README that begins with `head`, with links as they are from here."""
    lines = README.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return "\n".join(rows).replace("](docs/", "](../")


def outputs() -> str:
    """The files of a store and its manifest, from a result of a small drawn slide."""
    with tempfile.TemporaryDirectory() as name:
        slide = Path(name) / "slide.svs"
        write_slide(slide, SynthSpec(size=256, mpp=0.25, seed=1))
        config = RunConfig(out=Path(name), model="classical", scheduler="serial", labels=True)
        (result,) = run_slides(config, [str(slide)])
        if result.error:
            raise RuntimeError(result.error)
        manifest = read(Path(result.store))
        folders = {"/".join(parts[:3]) for file in manifest["files"] if (parts := Path(file).parts[:-1])}
    return "\n\n".join(
        [
            "# Every output",
            "One store per slide, `SLIDE.zarr` (or, packed, the same files in `SLIDE.zarr.zip`). It is Zarr v3 in "
            "the layout of SpatialData.",
            _table("| element |"),
            "[Every column](../columns.md) says what the columns of the tables mean.",
            "The folders of a result with `--labels`:",
            "```text\n" + "\n".join(sorted(folders)) + "\n```",
            "## The manifest",
            f"`{MANIFEST}` is written last. A store without it is not a result. `wsi-nuc verify` compares every "
            "file with it.",
            _entries(manifest),
            "This one is of a drawn slide of 256 px. Of `files`, the first is shown, and hashes are cut.",
            "```json\n" + json.dumps(_short(manifest), indent=2) + "\n```",
            "## The folder of a cohort",
            _of_cohort(),
            "## Other files",
            "`wsi-nuc report` and `run --report` write `SLIDE.report.html` beside the store, `wsi-nuc try` writes "
            "`SLIDE.try.png`, and `wsi-nuc export` the files that [Exports](../exports.md) describes.",
        ]
    )


def _of_cohort() -> str:
    cohort = CohortFolder(Path("cohort"))
    rows = ["| path | holds |", "|---|---|"]
    for name, part in vars(CohortFolder).items():
        if not isinstance(part, property):
            continue
        if not part.__doc__:
            raise ValueError(f"{CohortFolder.__name__}.{name} does not say what it holds")
        rows.append(f"| `{getattr(cohort, name).relative_to('cohort')}` | {' '.join(part.__doc__.split())} |")
    return "\n".join(rows)


def _short(manifest: dict[str, Any]) -> Any:
    """The manifest with one of its files, and with the beginnings of its hashes."""
    first = dict(itertools.islice(manifest["files"].items(), 1))
    text = json.dumps({**manifest, "files": first})
    return json.loads(re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", text))


def _entries(manifest: dict[str, Any]) -> str:
    if missing := manifest.keys() ^ ENTRIES.keys():
        raise ValueError(f"ENTRIES and the manifest differ in {', '.join(sorted(missing))}")
    rows = (f"| `{name}` | {meaning} |" for name, meaning in ENTRIES.items())
    return "\n".join(["| entry | meaning |", "|---|---|", *rows])


PAGES: dict[str, Callable[[], str]] = {
    "reference/options.md": options,
    "reference/settings.md": settings,
    "reference/outputs.md": outputs,
    "reference/errors.md": failures,
}
