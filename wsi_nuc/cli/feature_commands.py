"""`wsi-nuc features`: measure every nucleus of published stores, and say what all columns mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.commands import code_of_all
from wsi_nuc.cli.options import Dab, DabVectors, Option, Workers
from wsi_nuc.cli.stopping import stoppable
from wsi_nuc.errors import UsageError

if TYPE_CHECKING:
    from wsi_nuc.executors.base import Execute
    from wsi_nuc.features.job import ModelRef


def features(
    stores: Annotated[list[Path] | None, typer.Argument(help="Published stores (SLIDE.zarr).")] = None,
    slide: Annotated[
        str | None, Option(help="The slide of the store; default: a file of its name beside it or here.")
    ] = None,
    reader: Annotated[str, Option(help="Force a slide reader.")] = "auto",
    embedding: Annotated[str | None, Option(help="Model file whose embedding is also added.")] = None,
    dab: Dab = None,
    dab_vectors: DabVectors = None,
    device: Annotated[str, Option(help="Where that model runs: cpu, cuda or cuda:N.")] = "cpu",
    workers: Workers = None,
) -> None:
    """Measure shape, stain, texture and surroundings of every nucleus; adds columns to tables/nuclei_table.

    A store is replaced in one step, and only by a complete one. `wsi-nuc columns` explains every column.
    """
    if not stores:
        raise UsageError("wsi-nuc features", "no store is given", "name a store; `wsi-nuc columns` lists features")
    if slide is not None and len(stores) > 1:
        raise UsageError("--slide", f"{len(stores)} stores cannot all be of one slide", "give one store per call")
    model = None
    with stoppable("Finished stores are kept: the same command goes on"):
        if embedding is not None:
            from wsi_nuc.features.embed import model_ref

            model = model_ref(embedding, device)
        vectors = ""
        if dab or dab_vectors:
            from wsi_nuc.features.dab import DEFAULT_TEXT, checked

            vectors = checked(dab_vectors or DEFAULT_TEXT)
        code = code_of_all(stores, lambda store: _measure(store, slide, reader, workers, (model, vectors)))
    raise typer.Exit(code)


def columns(
    names: Annotated[list[str] | None, typer.Argument(help="Columns, such as score or per_mm2_tumour.")] = None,
) -> None:
    """What the columns of stores and cohorts mean: unit, formula, range, and when they are empty.

    Without a name, one line for every column of every table. `docs/columns.md` is the same as a page.
    """
    from wsi_nuc.cohort.dictionary import SECTIONS, looked_up

    if not names:
        for section in SECTIONS:
            typer.echo(section.title)
            for column in section.columns:
                typer.echo(f"  {column.name:<27} {column.unit:<7} {column.about}")
    for name in names or []:
        known = list(looked_up(name))
        if not known:
            raise UsageError(
                f"column {name}",
                "there is none of this name, unless it is that of a class or comes from the list of a cohort",
                "`wsi-nuc columns` lists all",
            )
        for section, column in known:
            typer.echo(f"{column.name} in {section.title}")
            facts = {**column.facts, "unit": column.unit or "none"}
            for fact, text in facts.items():
                typer.echo(f"  {fact:<8} {text}")


def _measure(
    store: Path, slide: str | None, reader: str, workers: int | None, further: tuple[ModelRef | None, str]
) -> int:
    """Measure one store and return its exit code. `further`: the model of an embedding, and the vectors of DAB."""
    from wsi_nuc.cli.progress import progress
    from wsi_nuc.features.class_table import write_class_table
    from wsi_nuc.features.running import add_features
    from wsi_nuc.run.job import slide_of
    from wsi_nuc.store.flat import class_table_of
    from wsi_nuc.store.folders import place_of

    ref = slide_of(store, slide, reader)
    if ref is None:
        raise UsageError(store, "its slide is not beside it", "pass it with --slide")
    with progress(quiet=True) as emit:
        place = place_of(store, emit)
    tabled = class_table_of(place).exists()
    with _executing(store, workers) as execute:
        done = add_features(place, ref, execute, *further)
    if tabled:
        write_class_table(place)
    count = done.manifest["counts"]["nuclei"]
    for text in done.manifest["counts"].get("not_measured", []):
        typer.echo(f"wsi-nuc: {store}: left empty: {text}", err=True)
    typer.echo(f"{store}: {count:,} nuclei measured" if done.new else f"{store}: has these features already")
    return 0


@contextmanager
def _executing(store: Path, workers: int | None) -> Iterator[Execute]:
    """Worker processes if there is enough work for them, otherwise this process."""
    from wsi_nuc.executors.base import SerialExecutor
    from wsi_nuc.run.resources import usable_cpus
    from wsi_nuc.store.reading import NucleiFile

    with NucleiFile(store) as file:
        wanted = min(workers or usable_cpus(), file.groups)
    if wanted <= 1:
        yield SerialExecutor(_nothing).run
        return
    from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor

    with closing(DaskExecutor(ClusterOptions(workers=wanted), _nothing)) as executor:
        yield executor.run


def _nothing() -> None:
    """Measuring needs no model, so workers have nothing to set up."""
