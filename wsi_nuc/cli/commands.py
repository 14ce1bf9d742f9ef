"""The small commands: info, verify, pack, unpack and synth."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from wsi_nuc.cli.options import Option
from wsi_nuc.errors import OK, SLIDES, STORAGE, USAGE, UsageError, WsiNucError, overall_code

Subject = TypeVar("Subject")


def info(
    slides: Annotated[list[str], typer.Argument(help="Slides to describe.")],
    model: Annotated[str, Option(help="The model to plan for.")] = "default",
    reader: Annotated[str, Option(help="Force a slide reader.")] = "auto",
    mpp: Annotated[float | None, Option(help="Microns per level-0 pixel.")] = None,
    tissue: Annotated[str, Option(help="auto, none or a GeoJSON file.")] = "auto",
    check: Annotated[
        bool, Option(help="Find some nuclei, and judge by their size whether the microns per pixel can be right.")
    ] = True,
    json: Annotated[bool, Option("--json", help="One JSON object per slide.")] = False,
) -> None:
    """Show metadata, microns per pixel and whether they can be right, levels, tissue share, plan and memory."""
    from wsi_nuc.quality.describe import describe_slide

    def show(slide: str) -> int:
        described = describe_slide(slide, model=model, reader=reader, mpp=mpp, tissue=tissue, check=check)
        typer.echo(jsonlib.dumps(described) if json else _lines(described))
        return SLIDES if described.get("problem") else OK

    raise typer.Exit(code_of_all(slides, show))


def code_of_all(subjects: Iterable[Subject], do: Callable[[Subject], int]) -> int:
    """The exit code of a call from those of `do` for each subject. An error is printed, and the rest still run."""
    codes: list[int] = []
    for subject in subjects:
        try:
            codes.append(do(subject))
        except WsiNucError as error:
            codes.append(error.exit_code)
            typer.echo(f"wsi-nuc: {error}", err=True)
    return overall_code(codes)


def _lines(described: dict[str, object]) -> str:
    return "\n".join(f"{key:<14} {value}" for key, value in described.items() if value not in (None, ""))


def verify(
    stores: Annotated[list[Path], typer.Argument(help="Published stores (SLIDE.zarr or SLIDE.zarr.zip).")],
    slide: Annotated[
        str | None,
        Option(help="The slide of the store: also check that it still is what the store was made from."),
    ] = None,
) -> None:
    """Check every file of a store against its manifest, and name what is missing, changed or extra."""
    from wsi_nuc.safezip import flaw_of
    from wsi_nuc.store.verify import is_result
    from wsi_nuc.store.verify import verify as problems_of

    if slide is not None and len(stores) != 1:
        raise UsageError("--slide", f"belongs to one store, and {len(stores)} are given", "verify them one by one")
    codes: list[int] = []
    for store in stores:
        problems = problems_of(store)
        damaged = is_result(store) or bool(flaw_of(store))
        codes.append((STORAGE if damaged else USAGE) if problems else OK)
        for problem in problems:
            typer.echo(f"{store}: {problem}", err=True)
        if not problems:
            typer.echo(f"{store}: verified")
    if bad := codes.count(STORAGE):
        remedy = "run the same `wsi-nuc run` again to restore them"
        typer.echo(f"wsi-nuc: {bad} of {len(stores)} stores are damaged; {remedy}", err=True)
    if slide is not None and codes == [OK]:
        _verify_slide(stores[0], slide)
    raise typer.Exit(overall_code(codes))


def _verify_slide(store: Path, slide: str) -> None:
    from wsi_nuc.slides.identity import refuse_other
    from wsi_nuc.store.manifest import read
    from wsi_nuc.types import SlideRef

    refuse_other(
        SlideRef(slide), str(read(store)["made_from"]["slide_sha256"]), "run it again for a result of its own"
    )
    typer.echo(f"{slide}: is the slide of this result")


Keep = Annotated[bool, Option("--keep", help="Keep the old store beside the new one.")]


def pack(
    stores: Annotated[list[Path], typer.Argument(help="Published stores (SLIDE.zarr).")], keep: Keep = False
) -> None:
    """Turn each store into one file, SLIDE.zarr.zip, which all commands read. It is verified before and after."""
    _convert_all(stores, True, keep)


def unpack(
    stores: Annotated[list[Path], typer.Argument(help="Packed stores (SLIDE.zarr.zip).")], keep: Keep = False
) -> None:
    """Turn each packed store into a folder again, for other programs. It is verified before and after."""
    _convert_all(stores, False, keep)


def _convert_all(stores: list[Path], packed: bool, keep: bool) -> None:
    from wsi_nuc.cli.progress import progress
    from wsi_nuc.store.packing import convert

    def make(store: Path) -> int:
        with progress(quiet=True) as emit:
            now = convert(store, packed, keep, emit)
        typer.echo(f"{now}: verified")
        return OK

    raise typer.Exit(code_of_all(stores, make))


def synth(
    file: Annotated[Path, typer.Argument(help="Slide to write: .svs or .ome.tif.")],
    size: Annotated[int, Option(min=256, help="Edge in pixels.")] = 4096,
    mpp: Annotated[float, Option(min=0.05, max=4, help="Microns per pixel.")] = 0.25,
    seed: Annotated[int, Option(help="Same seed, same bytes.")] = 0,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the slide and its truth.")] = False,
) -> None:
    """Write a synthetic H&E slide, with the exact outline and class of every nucleus beside it as GeoParquet."""
    from wsi_nuc.synth import SynthSpec, write_slide

    done = write_slide(file, SynthSpec(size=size, mpp=mpp, seed=seed), overwrite=overwrite)
    counts = ", ".join(f"{count:,} {name}" for name, count in done.classes.items())
    written = f"{file}: {done.slide.stat().st_size / 1e6:.1f} MB, {size} x {size} px at {mpp:g} um"
    typer.echo(f"{written}, with {done.nuclei:,} nuclei ({counts}); their outlines are in {done.truth}")
