"""The data dictionary: every column of every table, from the records beside the code that makes the columns.

`docs/columns.md` and `wsi-nuc columns` are made from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wsi_nuc.cohort.matrix import MATRIX
from wsi_nuc.cohort.tables import LEFT_OUT, LISTED, OWN, of_cohort
from wsi_nuc.counting import table as counts
from wsi_nuc.features.registry import FAMILIES
from wsi_nuc.features.registry import TABLE as FEATURES
from wsi_nuc.features.summary import FIGURES
from wsi_nuc.store import classes, layout, tissue
from wsi_nuc.store.column_record import PLACEHOLDER, Column, find
from wsi_nuc.store.nuclei_columns import NUCLEI
from wsi_nuc.store.tables import OBS, PROBABILITY


@dataclass(frozen=True, slots=True)
class Section:
    """The columns of one table."""

    title: str
    about: str
    columns: tuple[Column, ...]
    pooled: bool = False
    """Whether its rows are pooled to rows of patients."""


SECTIONS = (
    Section(
        f"{layout.NUCLEI_SHAPES}/{layout.PARQUET}",
        "One row per nucleus. The fields of the file say the same as this table (Arrow metadata of each field).",
        NUCLEI,
    ),
    Section(
        f"{layout.TISSUE_SHAPES}/{layout.PARQUET}",
        "One row per polygon of the area that was searched. A slide without tissue has no row.",
        tissue.COLUMNS,
    ),
    Section(
        f"{layout.NUCLEI_TABLE}, obs",
        "One row per nucleus, in the order of the shapes.",
        OBS,
    ),
    Section(
        f"{layout.NUCLEI_TABLE}, X",
        "32-bit floats; what is empty is NaN. The probabilities of the classes come first. The features after "
        "them are there with `wsi-nuc run --features` or `wsi-nuc features STORE`; then `var` says the same as "
        "these tables. All lengths are in micrometres of the slide.",
        (PROBABILITY, *FEATURES),
    ),
    Section(
        "classes",
        "One row per class, in the attributes of the store's root: `slide.attrs['wsi_nuc']['classes']` in "
        "SpatialData. What is empty is null. After `wsi-nuc run` the same table lies beside the store as "
        "`SLIDE.classes.csv`; where DAB was measured, it also has `positive_share`. In stores that were made "
        "before the results number `pipeline` was 3, quantiles come from a histogram and are off by up to a fifth "
        "for classes of few nuclei; tables of cohorts compute them anew.",
        (classes.CLASS, *classes.FIGURES, *classes.TISSUE),
    ),
    Section(
        "table of wsi-nuc count",
        "One row per region (`--by`), per cell of a grid with usable tissue or counted nuclei (`--grid`), or per "
        "slide. Only the nuclei that `--class` and `--min-score` choose are counted, those whose centroids lie in "
        "there. `positive...` is there with `--positive-above`, and `patient` for a cohort that has some.",
        counts.COLUMNS,
    ),
    Section(
        "cohort.parquet, cohort.csv",
        "One row per slide, and one per patient (`level`). A slide that is not done, and a patient without a "
        "slide that is done, have no figures: they are empty, and not 0. The last column says where the figure of "
        "a patient comes from. An exact one is that of one slide with all of the patient's tissue; an approximate "
        "one need not be. A figure that only a part of the patient's slides has is empty: one of a class that "
        "another model does not know, or of features that were not measured everywhere. The fields of the Parquet "
        "file say the same as this table.",
        (*OWN, LISTED, *(of_cohort(column) for column in FIGURES if column.name not in LEFT_OUT)),
        pooled=True,
    ),
    Section(
        "cohort.h5ad, patients.h5ad",
        "The same figures as AnnData, one row per slide and one row per patient, ready for a PCA or a classifier: "
        "`X` has no NaN. Slides and patients that are not done, or have no nuclei or usable tissue, have no row. "
        "`X` holds the columns above whose figure of a patient is a mean, or is computed from others: they do not "
        "grow with the amount of tissue. All other columns are in `obs`: covariates, counts, areas, resolution, "
        "size, tiles and model, texts as categories, with an underscore for a slash in a name. `var` says what "
        "this page says of each column. A figure that was not measured for every slide, or that no row has, is "
        "left out. `uns['wsi_nuc']` holds what the cohort was made with, and which rows and columns were left out "
        "and why.",
        MATRIX,
    ),
)


def looked_up(name: str) -> Iterator[tuple[Section, Column]]:
    """Where there are columns of this name, and what they mean. Patterns that any name fits are left out."""
    for section in SECTIONS:
        try:
            yield section, find([column for column in section.columns if _own_letters(column)], name)
        except KeyError:
            continue


def _own_letters(column: Column) -> str:
    return PLACEHOLDER.sub("", column.name)


def document() -> str:
    """The dictionary as Markdown."""
    lines = [
        "# Every column",
        "",
        "`wsi-nuc columns NAME` says the same of one column. `{class}` and `{other}` stand for each class of the",
        "model, `{feature}` for each feature but `orientation_rad` and embeddings, `{number}` for a number, and",
        "`{column}` for a name in the list of a cohort. The README shows how to open the files. This page is made",
        "from the code: `wsi_nuc/cohort/dictionary.py`.",
    ]
    for section in SECTIONS:
        lines += ["", f"## {section.title}", "", section.about]
        for family in dict.fromkeys(column.family for column in section.columns):
            if family:
                lines += ["", f"### {family.capitalize()}"]
            if family in FAMILIES and not section.pooled:
                lines += ["", FAMILIES[family]]
            last = [" a patient's |", "---|"] if section.pooled else ["", ""]
            lines += ["", f"| name | unit | meaning | range | empty |{last[0]}", f"|---|---|---|---|---|{last[1]}"]
            lines += [_line(section, column) for column in section.columns if column.family == family]
    return "\n".join(lines) + "\n"


def _line(section: Section, column: Column) -> str:
    cells = [f"`{column.name}`", column.unit, column.about, column.range, column.empty]
    # The table's own columns say themselves what they hold for a patient.
    own = column in OWN
    cells += ["see there" if own else str(column.patient)] if section.pooled else []
    return f"| {' | '.join(cells)} |"
