"""`wsi-nuc models`: list the models, show what a file holds, convert foreign weights."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from wsi_nuc.cli.options import Option
from wsi_nuc.errors import UsageError, choices

models_app = typer.Typer(invoke_without_command=True, help="Models: list, show, convert.")


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the models that come with wsi-nuc, and those that other packages bring."""
    if context.invoked_subcommand is None:
        list_models()


@models_app.command("list")
def list_models() -> None:
    """List the models that come with wsi-nuc, and those that other packages bring."""
    from wsi_nuc.models.registry import listed

    for model in listed():
        about = f"cannot be used: {model.problem}" if model.problem else model.about
        classes = f"; classes {', '.join(model.classes)}" if model.classes else ""
        typer.echo(f"{model.name}: {about}{classes}" + (f" ({model.package})" if model.package else ""))


@models_app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="A native checkpoint (.safetensors), or a name such as `default`.")],
    json: Annotated[bool, Option("--json", help="The whole header as JSON.")] = False,
) -> None:
    """Show what a checkpoint's header says: architecture, classes, resolution, training data, metrics.

    For a model that comes with the package the command shows its card.
    """
    from wsi_nuc.models.compact.packaged import PACKAGED, checkpoint_of

    if model in PACKAGED and not json:
        typer.echo(PACKAGED[model].about())
        return
    info = checkpoint_of(model).info
    if json:
        typer.echo(jsonlib.dumps(dict(info.details) | {"sha256": info.sha256}, indent=1))
        return
    size = sum(_product(shape) for shape in info.shapes.values())
    lines = {
        "architecture": info.architecture,
        "classes": ", ".join(info.classes),
        "mpp": info.mpp,
        "parameters": f"{size / 1e6:.1f} M in {len(info.shapes)} tensors",
        "sha256": info.sha256,
    }
    lines |= {key: value for key, value in info.details.items() if key not in lines and key != "format_version"}
    typer.echo("\n".join(f"{key:<14} {value}" for key, value in lines.items()))


def _product(shape: tuple[int, ...]) -> int:
    out = 1
    for length in shape:
        out *= length
    return out


@models_app.command("presets")
def presets() -> None:
    """List what `models convert --preset` sets, for the sizes B, L and H (vit_b, vit_l, vit_h)."""
    from wsi_nuc.models.promptnucseg.settings import PRESETS

    for name, preset in PRESETS.items():
        typer.echo(f"{name}: classes {', '.join(preset.classes)}; prompter.space_px {preset.space_px}")
        for size in ("vit_b", "vit_l", "vit_h"):
            values = ", ".join(f"{key}={jsonlib.dumps(value)}" for key, value in preset.use(size).items())
            typer.echo(f"  {size}: {values}")


@models_app.command("convert")
def convert(
    sources: Annotated[
        list[Path], typer.Argument(help="Official SAM, timm or authors' files, .pth or .safetensors.")
    ],
    out: Annotated[Path, Option("--out", "-o", help="The native file to write (.safetensors).")],
    preset: Annotated[
        str | None,
        Option(help="pannuke, kumar or cpm17: used as its authors do on this set; see `wsi-nuc models presets`."),
    ] = None,
    classes: Annotated[
        str | None, Option(help="Names of the classes, separated by commas; default: the preset's, or nucleus.")
    ] = None,
    mpp: Annotated[float, Option(min=0.01, max=100, help="Microns per pixel at which it was trained.")] = 0.25,
    space: Annotated[
        int | None, Option(min=1, help="Distance of anchors in pixels; default: as published.")
    ] = None,
    assign: Annotated[
        list[str] | None, Option("--set", help="key=value that says how the model is used, such as negatives=1.")
    ] = None,
) -> None:
    """Turn foreign weights into a native file. If tensors do not fit they are listed, and nothing is written."""
    from wsi_nuc.configuring import assigned_values
    from wsi_nuc.models.options import checked_options
    from wsi_nuc.models.promptnucseg.convert import Target
    from wsi_nuc.models.promptnucseg.convert import convert as run_conversion
    from wsi_nuc.models.promptnucseg.settings import PRESETS, UseSettings

    if preset is not None and preset not in PRESETS:
        raise UsageError(f"--preset {preset}", "there is no such preset", choices(preset, PRESETS))
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}", "native files end in .safetensors", "give a name with that ending")
    names = tuple(name.strip() for name in (classes or "").split(",") if name.strip())
    use = checked_options("promptnucseg", UseSettings, assigned_values(assign or []))
    info = run_conversion(sources, out, Target(names, mpp, space, preset or "", use))
    typer.echo(f"{out}: {info.architecture}, {len(info.shapes)} tensors, sha256 {info.sha256}")
