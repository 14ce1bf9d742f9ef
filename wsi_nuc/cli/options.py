"""The options of `run`, and those that several commands share, as annotated types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Option = typer.Option

# Of `run` and of cohort commands, which say how slides are computed.
Device = Annotated[str | None, Option(help="auto, cpu, cuda, cuda:N or all (one worker per GPU).")]
Workers = Annotated[int | None, Option(min=1, help="Worker processes; default: the CPUs this process may use.")]
Scheduler = Annotated[str | None, Option(help="serial, local, slurm or the ADDRESS of a Dask scheduler.")]
Reader = Annotated[str | None, Option(help="Force a slide reader instead of choosing by content.")]
Pack = Annotated[bool | None, Option("--pack", help="Publish each result as one file, SLIDE.zarr.zip.")]

# Of `run` alone.
Report = Annotated[
    bool | None, Option("--report", help="Also write SLIDE.report.html: figures, pictures and quality checks.")
]
Slides = Annotated[list[str], typer.Argument(help="Slides: files, DICOM or OME-Zarr folders, URLs.")]
Out = Annotated[
    Path | None, Option("--out", "-o", help="Folder that gets a SLIDE.zarr per slide; default: results.")
]
Model = Annotated[
    str | None, Option(help="A name from `wsi-nuc models` (default: default), or a checkpoint file.")
]
Mpp = Annotated[float | None, Option(help="Microns per level-0 pixel, if the header has none or lies.")]
Tissue = Annotated[str | None, Option(help="auto, none (whole slide) or a GeoJSON file in level-0 px.")]
Roi = Annotated[str | None, Option(help="GeoJSON file in level-0 px: only nuclei inside are kept.")]
RegionSize = Annotated[
    int | None,
    Option(help="Edge of a region in pixels as read; default: by slide and workers. Results do not depend on it."),
]
Stage = Annotated[
    Path | None, Option(help="Folder on this machine's own disk: slides are copied there, and read from there.")
]
Labels = Annotated[
    bool | None, Option("--labels", help="Also write a multiscale label image.", show_default=False)
]
Features = Annotated[
    bool | None, Option("--features", help="Also measure every nucleus: shape, stain, texture, neighbours.")
]
Embedding = Annotated[
    bool | None,
    Option("--embedding", help="Features, and the model's embedding at every nucleus (PromptNucSeg)."),
]
Dab = Annotated[
    bool | None, Option("--dab", help="Features, and the density of DAB in every nucleus, for brown slides (IHC).")
]
DabVectors = Annotated[
    str | None,
    Option(
        help="default, calibrated (from the slide's colours), or R,G,B of haematoxylin and of DAB: six numbers."
    ),
]
AllowBadTiles = Annotated[
    bool | None,
    Option("--allow-bad-tiles", help="Publish even if places could not be decoded or computed; they are listed."),
]
Overwrite = Annotated[bool | None, Option("--overwrite", help="Replace a result made with other settings.")]
Config = Annotated[Path | None, Option("--config", help="YAML file with any of these options.")]
Assign = Annotated[list[str] | None, Option("--set", help="key=value, for any key of the configuration.")]
Quiet = Annotated[bool | None, Option("--quiet", "-q", help="No progress, only warnings and errors.")]
Json = Annotated[bool | None, Option("--json", help="One JSON object per slide on standard output.")]

# Of several `cohort` commands.
Cohort = Annotated[Path, typer.Argument(help="The cohort's folder, as given to `cohort plan --out`.")]
CohortJson = Annotated[bool, Option("--json", help="JSON on standard output.")]
AllowFailed = Annotated[
    bool, Option("--allow-failed", help="End with 0, not 3, if only slides that are known to be bad are missing.")
]
Journal = Annotated[
    Path | None, Option("--journal", help="File that gets a line for each finished region, for scripts.")
]
Shards = Annotated[str | None, Option("--shard", help="I/N: the I-th of N shares, from 1; balanced by area.")]
Filters = Annotated[
    list[str] | None,
    Option(
        "--only",
        help="COLUMN=PATTERN with * and ?, for any column of the list, or state. Several patterns for one column "
        "are alternatives; every column has to match.",
    ),
]
CohortOverwrite = Annotated[bool | None, Option("--overwrite", help="Replace results made with other settings.")]
CohortAssign = Annotated[
    list[str] | None,
    Option("--set", help="key=value, for any key that says how to run, such as scratch=/tmp/parts."),
]
CohortQuiet = Annotated[bool, Option("--quiet", "-q", help="No progress, only warnings and errors.")]
