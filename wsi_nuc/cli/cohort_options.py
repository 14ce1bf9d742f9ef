"""Options that several commands of `wsi-nuc cohort` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Option = typer.Option

Folder = Annotated[Path, typer.Argument(help="The cohort's folder, as given to `cohort plan --out`.")]
Json = Annotated[bool, Option("--json", help="JSON on standard output.")]
AllowFailed = Annotated[
    bool, Option("--allow-failed", help="End with 0, not 3, if all that is missing is known to be bad.")
]
Journal = Annotated[
    Path | None, Option("--journal", help="File that gets a line for each finished region, for scripts.")
]
Shards = Annotated[str | None, Option("--shard", help="I/N: the I-th of N shares, from 1; balanced by area.")]
Filters = Annotated[
    list[str] | None,
    Option(
        "--only",
        help="COLUMN=PATTERN with * and ?, of any column or state. Of one column any pattern will do, and every "
        "column has to match.",
    ),
]
Device = Annotated[str | None, Option(help="auto, cpu, cuda, cuda:N or all (one worker a GPU).")]
Workers = Annotated[int | None, Option(min=1, help="Worker processes; default: the CPUs this process may use.")]
Scheduler = Annotated[str | None, Option(help="serial, local, slurm or the ADDRESS of a Dask scheduler.")]
Pack = Annotated[bool | None, Option("--pack", help="Publish each result as one file, SLIDE.zarr.zip.")]
Overwrite = Annotated[bool | None, Option("--overwrite", help="Replace results made with other settings.")]
Assign = Annotated[list[str] | None, Option("--set", help="key=value of how to run, such as scratch=/tmp/parts.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress, only warnings and errors.")]
