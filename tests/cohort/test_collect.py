"""The tables are complete, pool patients by their tissue, and always have the same bytes."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.cohort.lists import planned, write_list
from wsi_nuc.cohort.collect import collect
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.matrix import anndata_bytes, measured_everywhere
from wsi_nuc.cohort.plan import load
from wsi_nuc.cohort.shards import Shard
from wsi_nuc.cohort.state import exit_code
from wsi_nuc.cohort.tables import differing, pooled, summarise
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.errors import SLIDES
from wsi_nuc.features.squares import entropy
from wsi_nuc.features.summary import figure_column
from wsi_nuc.results_numbers import NUMBERS
from wsi_nuc.store.manifest import digest as digest_of

HOW = {"scheduler": "serial"}


@pytest.fixture(scope="module")
def source(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        "slide,id,patient,Stage,nuclei,age,dose,Ki67/mm2,Ki67_mm2,_index",
        f"{slides[0]},a,P1,II,x,61,0.5,7,8,9",
        f"{slides[1]},b,P1,II,y,61,1",
        f"{slides[2]},c,P2,=III,z,NA,2e1",
        "missing.svs,gone,P3,IV,,70,",
        "missing too.svs,lost,P2,=III,,,",
        f"{slides[3]},d,,I,,48,4",
    ]
    return write_list(tmp_path_factory.mktemp("list") / "list.csv", *lines)


@pytest.fixture(scope="module")
def done(source: Path, tmp_path_factory: pytest.TempPathFactory) -> CohortFolder:
    folder, _ = planned(tmp_path_factory.mktemp("cohort"), source)
    list(run_cohort(folder, execution=HOW))
    return folder


def test_every_line_and_every_patient_has_a_row(done: CohortFolder) -> None:
    got = collect(done, csv=True)
    assert exit_code(got.states) == SLIDES
    table = pd.read_parquet(done.table)
    slides, patients = (table[table.level == level].set_index("id") for level in ("slide", "patient"))
    assert list(slides.index) == ["a", "b", "c", "gone", "lost", "d"]
    assert slides.state.to_dict() == {
        **dict.fromkeys("abc", "done"),
        "gone": "refused",
        "lost": "refused",
        "d": "done",
    }
    assert "does not exist" in slides.error["gone"]
    assert np.isnan(slides.nuclei_per_mm2["gone"])
    assert patients.state.to_dict() == {"P1": "done", "P2": "partial", "P3": "missing"}
    assert patients.Stage.to_dict() == {"P1": "II", "P2": "=III", "P3": "IV"}
    assert patients.nuclei["P1"] == slides.nuclei["a"] + slides.nuclei["b"]
    assert slides.list_nuclei["a"] == "x"
    for name in "abcd":
        manifest = json.loads((done.store(name) / "manifest.json").read_text())
        assert slides.nuclei[name] == manifest["counts"]["nuclei"]
        assert slides.slide_sha256[name] == manifest["made_from"]["slide_sha256"]
        assert (done.root / slides.store[name]).samefile(done.store(name))
    cells = list(csv.DictReader(done.csv.read_text().splitlines()))
    assert len(cells) == len(table)
    assert [row["Stage"] for row in cells if row["id"] == "c"] == ["'=III"]


@pytest.mark.parametrize(("level", "ids"), [("slide", ["a", "b", "c", "d"]), ("patient", ["P1", "P2"])])
def test_the_anndata_holds_the_same_figures_of_what_is_done(
    done: CohortFolder, level: str, ids: list[str]
) -> None:
    collect(done)
    table = pd.read_parquet(done.table).query("level == @level").set_index("id").loc[ids]
    data = anndata.read_h5ad(done.anndata if level == "slide" else done.patients)
    assert list(data.obs_names) == ids
    assert list(data.obs.Stage) == list(table.Stage)
    assert np.isfinite(data.X).all()
    for name in data.var_names:
        known, column = data.layers["measured"][:, data.var_names == name][:, 0], data[:, name].X[:, 0]
        np.testing.assert_array_equal(known, table[name].notna())
        np.testing.assert_array_equal(column[known], table[name].to_numpy(np.float64)[known])
        assert (column[~known] == data.var.default[name]).all()
        assert data.var.default[name] == pytest.approx(table[name].mean(), rel=1e-12)
        assert data.var.measured[name] == known.sum()
    assert (data.obs.figures_filled == (~data.layers["measured"]).sum(axis=1)).all()
    assert level == "patient" or 0 < data.obs.figures_filled.sum() < data.layers["measured"].sum()


def test_figures_of_the_tissue_are_apart_from_those_of_the_scan(done: CohortFolder) -> None:
    collect(done)
    data = anndata.read_h5ad(done.anndata)
    technical = {"mpp", "width_px", "height_px", "tiles_processed", "tissue_mm2", "nuclei", "count_other", "model"}
    assert technical <= set(data.obs)
    assert {"nuclei_per_mm2", "share_other", "class_entropy_bits"} <= set(data.var_names)
    assert not set(data.obs) & set(data.var_names), "tools refuse a name that means two columns"
    assert set(data.var.family) == {"density", "neighbourhood", "class", "spread"}
    assert data.obs.mpp.dtype == np.float64
    assert data.obs.width_px.tolist() == [512, 768, 1024, 1280]
    assert data.obs.patient.isna().tolist() == [False, False, False, True]


def test_an_age_is_a_number_everywhere(done: CohortFolder) -> None:
    collect(done, csv=True)
    slides, patients = anndata.read_h5ad(done.anndata).obs, anndata.read_h5ad(done.patients).obs
    for table in (pd.read_parquet(done.table), pd.read_csv(done.csv), slides.reset_index()):
        by_id = table.set_index("id")
        assert by_id.age.dtype == by_id.dose.dtype == np.float64
        assert by_id.age[["a", "b", "d"]].tolist() == [61, 61, 48]
        assert np.isnan(by_id.age["c"])
        assert by_id.dose[list("abcd")].tolist() == [0.5, 1, 20, 4]
        assert set(by_id.Stage.dropna()) <= {"I", "II", "=III", "'=III", "IV"}
    assert slides.loc["a", ["Ki67_mm2_", "Ki67_mm2", "list__index"]].tolist() == [7, 8, 9]
    assert patients.age["P1"] == 61
    assert np.isnan(patients.dose["P1"]), "its slides differ"
    assert (slides.Stage.dtype, slides.patient.dtype) == ("category", "category")


def test_the_anndata_says_what_it_was_made_with_and_what_it_lacks(done: CohortFolder) -> None:
    collect(done)
    recipe = anndata.read_h5ad(done.anndata).uns["wsi_nuc"]
    assert json.loads(recipe["settings"])["model"] == "classical"
    assert recipe["results"]["features"] == NUMBERS["features"]
    assert "does not exist" in recipe["rows_left_out"].why["gone"]
    assert list(recipe["rows_left_out"].index) == ["gone", "lost"]
    of_patients = anndata.read_h5ad(done.patients).uns["wsi_nuc"]
    assert of_patients["rows_left_out"].why.to_dict() == {"P3": "missing: no slide is done"}


def test_shards_and_repeats_do_not_show_in_the_bytes(done: CohortFolder, source: Path, tmp_path: Path) -> None:
    collect(done, csv=True)
    other, _ = planned(tmp_path / "cohort", source)
    for index in (2, 3, 1):
        list(run_cohort(other, Shard(index, 3), execution=HOW))
    collect(other)
    # Small files that are lost are made again from the results.
    other.summary("a").unlink()
    other.summary("b").write_text("{")
    collect(other, csv=True)
    for file, same in (
        (done.table, other.table),
        (done.anndata, other.anndata),
        (done.patients, other.patients),
        (done.csv, other.csv),
    ):
        assert file.read_bytes() == same.read_bytes()


def test_a_result_other_than_the_recorded_one_is_not_collected(
    source: Path, done: CohortFolder, tmp_path: Path
) -> None:
    import shutil

    copied = CohortFolder(tmp_path / "cohort")
    shutil.copytree(done.root, copied.root)
    manifest = copied.manifest("a")
    changed = json.loads(manifest.read_text())
    changed["counts"]["nuclei"] += 1
    changed["digest"] = digest_of(changed)
    manifest.write_text(json.dumps(changed))
    got = collect(copied)
    states = {state.row.id: state.state for state in got.states}
    assert states["a"] == "pending"
    assert states["b"] == "done"
    assert len(load(copied).rows) == len(got.slides)


def test_the_queries_of_the_readme_answer(done: CohortFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    collect(done)
    text = (Path(__file__).parents[2] / "README.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```", text.partition("## Cohorts")[2].partition("\n## ")[0], re.DOTALL)
    monkeypatch.chdir(done.root.parent)
    patients, missing, nuclei = (
        duckdb.sql(query.replace("cohort/", f"{done.root.name}/")).df() for query in queries
    )
    assert sorted(patients.id) == ["P1", "P2"], "a patient with a slide that failed is not dropped"
    assert patients.set_index("id").slides_failed.to_dict() == {"P1": 0, "P2": 1}
    assert sorted(missing.id) == ["gone", "lost"]
    assert nuclei.nuclei.sum() == sum(
        json.loads(done.manifest(name).read_text())["counts"]["nuclei"] for name in "abcd"
    )
    assert set(nuclei.patient.fillna("")) == {"P1", "P2", ""}


@pytest.fixture(scope="module")
def uneven_folder(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> CohortFolder:
    """A cohort of patients whose slides were not treated alike or not all done."""
    place = tmp_path_factory.mktemp("uneven")
    Image.new("RGB", (600, 600), "white").save(place / "blank.png")
    lines = [
        "slide,id,patient,mpp,model,stage,grade",
        f"{slides[0]},a,mixed,,,II,1",
        f"{slides[1]},b,mixed,0.5,,,2",
        f"{slides[2]},c,models,,,III,",
        f"{slides[3]},d,models,,default,III,",
        f"{place}/gone.svs,gone,models,,,,3",
        f"{place}/blank.png,blank,empty,0.5,,I,",
    ]
    folder, _ = planned(place / "cohort", write_list(place / "list.csv", *lines))
    list(run_cohort(folder, execution=HOW))
    collect(folder)
    return folder


@pytest.fixture(scope="module")
def uneven(uneven_folder: CohortFolder) -> pd.DataFrame:
    """Its table, by id."""
    return pd.read_parquet(uneven_folder.table).set_index("id")


def test_slides_and_patients_without_nuclei_are_named_and_have_no_row(uneven_folder: CohortFolder) -> None:
    slides, patients = anndata.read_h5ad(uneven_folder.anndata), anndata.read_h5ad(uneven_folder.patients)
    assert list(slides.obs_names) == ["a", "b", "c", "d"]
    assert slides.uns["wsi_nuc"]["rows_left_out"].why["blank"] == "no usable tissue"
    assert patients.uns["wsi_nuc"]["rows_left_out"].why.to_dict() == {"empty": "no usable tissue"}
    assert patients.obs.state.to_dict() == {"mixed": "done", "models": "partial"}


def test_a_figure_that_some_slides_were_not_measured_for_or_no_slide_has_is_left_out(done: CohortFolder) -> None:
    got = collect(done)
    slides = [{**row, "squares_gini": None} if "squares_gini" in row else row for row in got.slides]
    del slides[0]["nearest_um_mean"]
    data = anndata_bytes("slide", slides, got.columns, measured_everywhere(slides), got.plan)
    read = anndata.read_h5ad(io.BytesIO(data))
    assert "nearest_um_mean" not in read.var_names
    absent = read.uns["wsi_nuc"]["columns_left_out"].why
    assert (absent["nearest_um_mean"], absent["squares_gini"]) == ("not measured for every slide", "no row has it")
    whole = anndata.read_h5ad(done.anndata)
    assert list(read.obs_names) == list(whole.obs_names)
    assert set(read.var_names) == set(whole.var_names) - {"nearest_um_mean", "squares_gini"}


def test_a_patient_says_on_how_many_slides_and_how_much_tissue_it_stands(uneven: pd.DataFrame) -> None:
    columns = ["state", "slides", "slides_failed", "slides_left"]
    assert uneven.loc["mixed", columns].tolist() == ["done", 2, 0, 0]
    assert uneven.loc["models", columns].tolist() == ["partial", 2, 1, 0]
    assert uneven.tissue_mm2["models"] == uneven.tissue_mm2["c"] + uneven.tissue_mm2["d"]


def test_slides_that_differ_are_not_averaged_without_a_word(uneven: pd.DataFrame) -> None:
    assert uneven.slides_differ_in["mixed"] == "mpp (0.25 to 0.5)"
    assert uneven.slides_differ_in["models"] == "model (classical, default)"
    assert uneven.slides_differ_in["empty"] is None
    assert np.isnan(uneven.mpp["mixed"])


def test_what_slides_differ_in_is_named() -> None:
    row = {"mpp": 0.25, "model": "default", "weights_sha256": "a", "feature_mean_area_um2": 30.0}
    plain = {name: value for name, value in row.items() if not name.startswith("feature_")}
    assert differing([]) is None
    assert differing([row, row | {"mpp": 0.252}]) is None, "headers of one scanner differ this much"
    assert differing([row, row | {"weights_sha256": "b"}]) == "weights"
    assert differing([row, plain | {"mpp": 0.5}]) == "mpp (0.25 to 0.5); features (measured for 1 of 2)"


def test_a_covariate_with_a_hole_is_what_the_other_lines_say(uneven: pd.DataFrame) -> None:
    assert uneven.stage.to_dict() | {"mixed": "II", "models": "III", "empty": "I"} == uneven.stage.to_dict()
    assert np.isnan(uneven.grade["mixed"])
    assert uneven.grade["models"] == 3, "the line of a slide that failed counts, too"
    assert np.isnan(uneven.grade["empty"])


def test_a_patient_without_tissue_has_no_densities_rather_than_zeros(uneven: pd.DataFrame) -> None:
    for name in ("blank", "empty"):
        row = uneven.loc[name]
        assert (row.tissue_mm2, row.nuclei, row.count_epithelial) == (0, 0, 0)
        assert row[["nuclei_per_mm2", "per_mm2_epithelial", "share_epithelial", "class_entropy_bits"]].isna().all()


def test_a_class_without_nuclei_has_its_columns(uneven: pd.DataFrame) -> None:
    assert (uneven.loc[["a", "b", "c"], "count_other"] == 0).all()
    assert uneven.loc[["a", "b", "c"], ["area_um2_mean_other", "enrichment_other_other"]].isna().all(axis=None)
    assert uneven.dtypes["area_um2_q50_other"] == np.float64


def test_the_mix_of_a_patient_is_that_of_its_columns(uneven: pd.DataFrame) -> None:
    row = uneven.loc["mixed"]
    counts = row[[name for name in uneven if name.startswith("count_")]].to_numpy(np.int64)
    assert row.class_entropy_bits == pytest.approx(entropy(counts))
    assert row.class_segregation == pytest.approx(1 - row.class_entropy_local_bits / row.class_entropy_bits)


def test_a_figure_of_a_part_of_the_slides_is_empty_for_the_patient() -> None:
    rows = [
        {"nuclei": 5, "count_a": 5, "feature_mean_area_um2": 30.0, "area_um2_mean_a": None},
        {"nuclei": 5, "count_b": 5},
    ]
    columns = [figure_column(name) for name in (*rows[0], "count_b")]
    assert pooled(rows, columns) == {"nuclei": 10} | dict.fromkeys(column.name for column in columns[1:])


def test_figures_that_were_kept_by_another_version_are_computed_anew(done: CohortFolder) -> None:
    before = done.summary("a").read_bytes()
    digest = json.loads(before)["digest"]
    old = json.loads(before) | {"figures": {"nuclei": -1}, "results": 1}
    done.summary("a").write_text(json.dumps(old))
    summarise(done, "a", digest)
    assert done.summary("a").read_bytes() == before


def test_a_cohort_without_a_finished_slide_still_has_tables(source: Path, tmp_path: Path) -> None:
    folder, _ = planned(tmp_path / "cohort", source)
    collect(folder)
    table = pd.read_parquet(folder.table)
    assert table.state.value_counts().to_dict() == {"pending": 4, "refused": 2, "missing": 3}
    for file in (folder.anndata, folder.patients):
        data = anndata.read_h5ad(file)
        assert data.n_obs == 0
        assert data.obs.Stage.dtype == "category"


counts = st.integers(0, 500)
areas = st.floats(0.01, 50)


@given(st.lists(st.tuples(counts, counts, areas, areas), min_size=1, max_size=6))
def test_a_patient_is_what_one_slide_with_all_the_tissue_would_be(
    parts: list[tuple[int, int, float, float]],
) -> None:
    """`parts`: nuclei of two classes, usable tissue in mm2, mean area of the first class in um2."""

    def figures(first: int, second: int, tissue: float, mean: float) -> dict[str, float | int | None]:
        total = first + second
        return {
            "nuclei": total,
            "usable_mm2": tissue,
            "nuclei_per_mm2": total / tissue,
            "count_big_cell": first,
            "per_mm2_big_cell": first / tissue,
            "share_big_cell": first / total if total else None,
            "area_um2_mean_big_cell": mean if first else None,
            "area_share_of_tissue_big_cell": first * mean / (tissue * 1e6),
        }

    first, second = sum(part[0] for part in parts), sum(part[1] for part in parts)
    area = sum(part[0] * part[3] for part in parts)
    whole = figures(first, second, sum(part[2] for part in parts), area / first if first else 0.0)
    got = pooled([figures(*part) for part in parts], [figure_column(name) for name in whole])
    assert got.keys() == whole.keys()
    for name, value in whole.items():
        if value is None:
            assert got[name] is None, name
        else:
            assert math.isclose(got[name], value, rel_tol=1e-9, abs_tol=1e-12), name
