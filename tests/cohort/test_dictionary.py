"""Every column of every file is in the data dictionary, and holds what the dictionary says."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.cohort.lists import planned, write_list
from tests.e2e.command import wsi_nuc
from wsi_nuc.cohort.collect import collect
from wsi_nuc.cohort.dictionary import SECTIONS, document
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.counting.count import Question, count
from wsi_nuc.counting.table import columns_of
from wsi_nuc.store.column_record import Column, find

DOCUMENT = Path(__file__).parents[2] / "docs" / "columns.md"
SHAPES, TISSUE, OBS, TABLE, CLASSES, COUNTS, COHORT, MATRIX = (section.title for section in SECTIONS)
NOT_HERE = {"embedding_{number}"}


def test_the_page_is_what_the_records_of_the_columns_give() -> None:
    assert DOCUMENT.read_text() == document(), "write wsi_nuc.cohort.dictionary.document() to docs/columns.md"


@pytest.fixture(scope="module")
def files(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cohort with features, a patient, a column of the list, and a slide that fails."""
    place = tmp_path_factory.mktemp("dictionary")
    lines = ["slide,id,patient,stage", f"{slides[2]},a,P1,II", f"{slides[3]},b,P1,II", "gone.svs,c,P1,"]
    folder, _ = planned(place / "cohort", write_list(place / "list.csv", *lines), features=True, dab=True)
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    collect(folder, csv=True)
    return {"store": folder.store("b"), "table": folder.table, "csv": folder.csv, "anndata": folder.anndata}


@pytest.fixture(scope="module")
def tables(files: dict[str, Path]) -> dict[str, Any]:
    """By title of the section: columns by name."""
    table = anndata.read_zarr(files["store"] / "tables/nuclei_table")
    collected = anndata.read_h5ad(files["anndata"])
    root = json.loads((files["store"] / "zarr.json").read_text())["attributes"]["wsi_nuc"]
    return {
        SHAPES: pq.read_table(files["store"] / "shapes/nuclei/shapes.parquet").to_pandas(ignore_metadata=True),
        TISSUE: pq.read_table(files["store"] / "shapes/tissue/shapes.parquet").to_pandas(ignore_metadata=True),
        OBS: table.obs,
        TABLE: table.to_df(),
        CLASSES: pd.DataFrame(root["classes"]),
        COUNTS: counts(files["store"], {name["class"] for name in root["classes"]}),
        COHORT: pd.read_parquet(files["table"]),
        MATRIX: {
            "figures_filled": collected.obs.figures_filled,
            **collected.var[["family", "default", "measured"]],
        },
    }


def counts(store: Path, classes: set[str]) -> pd.DataFrame:
    """Whole slide and cells, with all columns that a table of counts may have."""
    asked = Question(positive_above=0.1), Question(positive_above=0.1, grid_um=100)
    columns = dict.fromkeys(column.name for question in asked for column in columns_of(question, classes, True))
    rows = [{"slide": "b", "patient": "P1", **row} for question in asked for row in count(store, question).rows]
    return pd.DataFrame(rows, columns=list(columns))


def test_every_name_in_a_file_is_explained_and_nothing_else_is(tables: dict[str, Any]) -> None:
    for section in SECTIONS:
        records = {column.name: column for column in section.columns}
        used = set()
        for name in tables[section.title]:
            filled = find(section.columns, name)
            assert filled.name == name
            assert all(text for fact, text in filled.facts.items() if fact != "unit"), name
            used |= {pattern for pattern, column in records.items() if _same(column, filled, name)}
        assert records.keys() - used - NOT_HERE == set(), section.title


def _same(record: Column, filled: Column, name: str) -> bool:
    return record.filled(name) == filled


def test_values_are_in_the_range_and_empty_only_where_that_is_said(tables: dict[str, Any]) -> None:
    checked = 0
    for section in SECTIONS:
        table = tables[section.title]
        done = table[table.state == "done"] if section.title == COHORT else table
        for name in done:
            column = find(section.columns, name)
            slides = done[done.level == "slide"] if section.title == COHORT else done
            values = pd.Series(slides[name])
            if column.empty in ("never", "not done") and section.title != COUNTS:
                assert not values.isna().any(), name
            if values.dtype.kind not in "iuf":
                continue
            known = values.dropna().to_numpy(np.float64)
            low, high, whole = limits(column.range)
            assert (known >= low - 1e-5).all(), name
            assert (known <= high + 1e-5).all(), name
            assert not whole or (known == np.round(known)).all(), name
            checked += len(known) > 0 and (low, high) != (-math.inf, math.inf)
    assert checked > 150


def limits(text: str) -> tuple[float, float, bool]:
    """Least and largest value, and whether all are whole numbers. "0 to 1", "from 0", "above 0, to 1"."""
    number = r"-?(?:\d[\d.]*|pi/2)"
    low = re.match(rf"(?:whole numbers )?(?:from |above )?({number})", text)
    high = re.search(rf"to ({number})", text)
    values = [m[1].replace("pi/2", str(math.pi / 2)).rstrip(".") if m else None for m in (low, high)]
    return (
        float(values[0]) if values[0] is not None else -math.inf,
        float(values[1]) if values[1] is not None else math.inf,
        text.startswith("whole"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 to 1", (0, 1, False)),
        ("-pi/2 to pi/2", (-math.pi / 2, math.pi / 2, False)),
        ("above 0, to 1", (0, 1, False)),
        ("whole numbers from 1", (1, math.inf, True)),
        ("from -2", (-2, math.inf, False)),
        ("any number", (-math.inf, math.inf, False)),
        ("0 to tissue_mm2", (0, math.inf, False)),
    ],
)
def test_ranges_are_read(text: str, expected: tuple[float, float, bool]) -> None:
    assert limits(text) == pytest.approx(expected)


def test_files_say_it_themselves(files: dict[str, Path], tables: dict[str, Any]) -> None:
    places = {
        SHAPES: files["store"] / "shapes/nuclei/shapes.parquet",
        TISSUE: files["store"] / "shapes/tissue/shapes.parquet",
        COHORT: files["table"],
    }
    for section in SECTIONS:
        if section.title in places:
            for field in pq.read_schema(places[section.title]):
                said = {key.decode(): text.decode() for key, text in field.metadata.items() if b":" not in key}
                expected = find(section.columns, field.name).facts
                if not field.name.startswith("feature_"):
                    assert said == expected, field.name
                assert said["about"] == expected["about"]
    var = anndata.read_zarr(files["store"] / "tables/nuclei_table").var
    for name in tables[TABLE]:
        expected = find(_section(TABLE), name).facts
        assert var.loc[name, list(expected)].to_dict() == expected
    collected = anndata.read_h5ad(files["anndata"])
    assert collected.var.unit["feature_mean_h_mean"] == "OD"
    assert collected.var.range["feature_mean_solidity"] == "above 0, to 1"
    assert set(collected.obs) | set(collected.var_names) <= {*tables[COHORT], "figures_filled"}
    assert {*collected.var} == {"unit", "about", "range", "empty", "family", "default", "measured"}
    assert collected.var.family["feature_mean_solidity"] == "shape"
    assert pd.read_csv(files["csv"]).columns.tolist() == list(tables[COHORT])


def _section(title: str) -> Any:
    return next(section.columns for section in SECTIONS if section.title == title)


def test_quantiles_are_those_of_duckdb_and_pandas(files: dict[str, Path], tables: dict[str, Any]) -> None:
    import duckdb

    shapes = files["store"] / "shapes/nuclei/shapes.parquet"
    sql = f"select class, quantile_cont(area_um2, 0.95) as q from '{shapes}' group by class"
    from_sql = duckdb.sql(sql).df().set_index("class").q.to_dict()
    rows = tables[CLASSES].set_index("class")
    assert len(from_sql) >= 2
    for name, areas in tables[SHAPES].groupby("class", observed=True).area_um2:
        assert rows.area_um2_q95[name] == pytest.approx(areas.quantile(0.95), rel=1e-12)
        assert rows.area_um2_q95[name] == pytest.approx(from_sql[name], rel=1e-12)


def test_the_command_explains_a_name() -> None:
    done = wsi_nuc("columns", "score", "per_mm2_tumour", "share_25um_tumour")
    assert done.returncode == 0, done.stderr
    assert "not the confidence in the class" in done.stdout
    assert "`count_tumour` / `usable_mm2`" in done.stdout
    assert "share of tumour among the other nuclei within 25 um" in done.stdout
    unknown = wsi_nuc("columns", "scores")
    assert unknown.returncode == 2
    assert "scores" in unknown.stderr


def test_the_command_lists_all() -> None:
    done = wsi_nuc("columns")
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert names == {column.name for section in SECTIONS for column in section.columns}
