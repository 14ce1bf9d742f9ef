"""The summary of a slide is the count over all of its nuclei at once, however the file is cut."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.build import MPP, made_from, publish_nuclei
from tests.store.build import CLASSES, nuclei
from wsi_nuc.errors import StorageError
from wsi_nuc.features.neighbourhood import needs
from wsi_nuc.features.squares import EDGE_UM, squares_in
from wsi_nuc.features.summary import slide_summary
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import digest, read
from wsi_nuc.store.reading import class_names


def published(folder: Path, monkeypatch: pytest.MonkeyPatch, table: NucleiTable, rows: int) -> Path:
    monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", rows)
    return publish_nuclei(folder / str(rows), table)


def equal(summary: dict[str, float | int | str], expected: dict[str, float | int | str]) -> bool:
    """NaN is equal to itself here."""
    return [*map(repr, summary.items())] == [*map(repr, expected.items())]


@pytest.mark.parametrize("rows", [7, 64, 1000])
def test_row_groups_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    table = nuclei(700, size=2048)
    whole = slide_summary(published(tmp_path, monkeypatch, table, 16384))
    assert equal(slide_summary(published(tmp_path, monkeypatch, table, rows)), whole)


def test_it_is_what_a_plain_count_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = nuclei(400, seed=3, size=1500)
    summary = slide_summary(published(tmp_path, monkeypatch, table, 50))
    area, centre = table.areas_and_centres()
    xy, label = centre * MPP, table.class_id
    gaps = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    upper = np.triu(gaps <= 30, 1)
    tissue_mm2 = (4096 * MPP / 1000) ** 2
    assert summary["nuclei"] == 400
    assert summary["tissue_mm2"] == pytest.approx(tissue_mm2)
    assert summary["nuclei_per_mm2"] == pytest.approx(400 / tissue_mm2)
    assert summary["nuclei_area_share"] == pytest.approx(area.sum() * MPP**2 / tissue_mm2 / 1e6, rel=1e-5)
    nearest = np.where(np.eye(len(gaps), dtype=bool), np.inf, gaps).min(axis=1)
    assert summary["nearest_um_mean"] == pytest.approx(nearest[nearest <= 100].mean(), rel=1e-6)
    for k, name in enumerate(CLASSES):
        assert summary[f"count_{name}"] == np.sum(label == k)
        assert summary[f"area_um2_q50_{name}"] == pytest.approx(np.median(area[label == k] * MPP**2), rel=1e-12)
    n = np.bincount(label, minlength=3)
    a, b = np.nonzero(upper)
    mixed = np.sum(((label[a] == 0) & (label[b] == 2)) | ((label[a] == 2) & (label[b] == 0)))
    expected = upper.sum() * n[0] * n[2] / (400 * 399 / 2)
    assert summary["enrichment_tumour_immune"] == pytest.approx(math.log2((mixed + 0.5) / (expected + 0.5)))


def test_classes_that_keep_apart_are_seen(tmp_path: Path) -> None:
    """One class on the left, another on the right: same-class neighbours are enriched, squares hold one class."""
    table = nuclei(900, size=4096)
    left = table.prompt_xy[:, 0] < 2000
    probs = np.zeros_like(table.class_probs)
    probs[left, 0], probs[~left, 2] = 1, 1
    apart = NucleiTable(*(probs if name == "class_probs" else getattr(table, name) for name in _names()))
    shuffled = np.random.default_rng(0).permutation(probs)
    mixed = NucleiTable(*(shuffled if name == "class_probs" else getattr(table, name) for name in _names()))
    separate, shuffled_classes = (
        slide_summary(publish_nuclei(tmp_path / n, t)) for n, t in (("a", apart), ("m", mixed))
    )
    assert separate["enrichment_tumour_tumour"] > 0.8
    assert abs(shuffled_classes["enrichment_tumour_tumour"]) < 0.3
    assert separate["enrichment_tumour_immune"] < -3
    assert separate["class_segregation"] > 0.8
    assert shuffled_classes["class_segregation"] < 0.2
    assert math.isnan(separate["enrichment_stroma_stroma"])


def test_the_mix_of_classes_is_that_of_all_nuclei(tmp_path: Path) -> None:
    """Also of those in squares whose middle is not in tissue, which the figures of density leave out."""
    tissue = shapely.box(0, 0, 1700, 4096)  # the middle of the second column of squares is at x = 1500
    store = publish_nuclei(tmp_path, nuclei(500, size=4096), tissue)
    summary = slide_summary(store)
    shares = [float(summary[f"share_{name}"]) for name in CLASSES]
    assert summary["class_entropy_bits"] == pytest.approx(-sum(p * math.log2(p) for p in shares if p))
    assert summary["class_segregation"] == pytest.approx(
        1 - float(summary["class_entropy_local_bits"]) / float(summary["class_entropy_bits"])
    )
    assert 0 <= float(summary["class_segregation"]) <= 1
    assert summary["squares_in_tissue"] == 8


def test_a_slide_without_tissue_has_no_densities(tmp_path: Path) -> None:
    summary = slide_summary(publish_nuclei(tmp_path, NucleiTable.empty(len(CLASSES)), shapely.Polygon()))
    assert (summary["tissue_mm2"], summary["nuclei"], summary["squares_in_tissue"]) == (0, 0, 0)
    for name in ("nuclei_per_mm2", "per_mm2_tumour", "share_tumour", "nuclei_area_share", "squares_empty_share"):
        assert math.isnan(float(summary[name])), name


def test_in_a_store_of_an_older_version_lost_places_are_not_usable(tmp_path: Path) -> None:
    store = publish_nuclei(tmp_path, nuclei(50))
    # Its manifest names the places, and has no `usable_mm2`.
    lost = {**read(store), "counts": {"nuclei": 50}}
    lost["tiles"] = {**lost["tiles"], "failed_boxes_l0": [[0, 0, 4096, 1024]]}
    (store / "manifest.json").write_text(json.dumps(lost | {"digest": digest(lost)}))
    summary = slide_summary(store)
    assert summary["usable_mm2"] == pytest.approx(0.75 * float(summary["tissue_mm2"]))
    assert summary["nuclei_per_mm2"] == pytest.approx(50 / float(summary["usable_mm2"]))


def _names() -> list[str]:
    return ["xy", "offsets", "prompt_xy", "score", "prompt_score", "predicted_iou", "class_probs", "tile"]


def test_gathered_nuclei_are_seen(tmp_path: Path) -> None:
    spread, gathered = (
        slide_summary(publish_nuclei(tmp_path / str(size), nuclei(600, size=size))) for size in (4096, 1024)
    )
    assert gathered["squares_gini"] > spread["squares_gini"]
    assert gathered["squares_dispersion"] > spread["squares_dispersion"]
    assert gathered["squares_empty_share"] > 0.5 > spread["squares_empty_share"]
    assert gathered["nearest_um_mean"] < spread["nearest_um_mean"]


def test_a_slide_without_nuclei_has_all_its_columns(tmp_path: Path) -> None:
    full = slide_summary(publish_nuclei(tmp_path / "full", nuclei(100)))
    empty = slide_summary(publish_nuclei(tmp_path / "empty", NucleiTable.empty(len(CLASSES))))
    assert list(empty) == list(full)
    assert empty["nuclei"] == 0 == empty["nuclei_per_mm2"]
    assert math.isnan(empty["area_um2_q50_tumour"])
    assert empty["squares_empty_share"] == 1


def test_values_are_plain(tmp_path: Path) -> None:
    summary = slide_summary(publish_nuclei(tmp_path, nuclei(50)))
    assert {type(value) for value in summary.values()} == {float, int, str}


def test_microns_do_not_depend_on_the_scan(tmp_path: Path) -> None:
    """The same tissue scanned twice as fine: twice the pixels, the same figures."""
    coarse = nuclei(300, size=2048)
    fine = NucleiTable(
        *(2 * v if n in ("xy", "prompt_xy") else v for n, v in ((n, getattr(coarse, n)) for n in _names()))
    )
    coarse_summary = slide_summary(publish_nuclei(tmp_path / "1", coarse, made=made_from(mpp=0.5, size=2048)))
    fine_summary = slide_summary(publish_nuclei(tmp_path / "2", fine, made=made_from(mpp=0.25, size=4096)))
    numbers = {key for key, value in coarse_summary.items() if isinstance(value, float) and key != "mpp"}
    assert {key: coarse_summary[key] for key in numbers} == pytest.approx(
        {key: fine_summary[key] for key in numbers}, nan_ok=True
    )


def test_a_missing_store_is_named_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path)):
        slide_summary(tmp_path)


@settings(max_examples=25, deadline=None)
@given(
    x=st.floats(0, 4000),
    y=st.floats(0, 4000),
    width=st.floats(1, 9000),
    height=st.floats(1, 9000),
    mpp=st.sampled_from([0.2431, 0.5, 1.0]),
)
def test_squares_in_tissue_are_those_whose_middle_is(
    x: float, y: float, width: float, height: float, mpp: float
) -> None:
    squares = squares_in([shapely.box(x, y, x + width, y + height)], mpp)
    edge = EDGE_UM / mpp
    everywhere = [(c, r) for c in range(60) for r in range(60)]
    inside = {
        (c, r) for c, r in everywhere if x < (c + 0.5) * edge < x + width and y < (r + 0.5) * edge < y + height
    }
    assert {square for square in squares if max(square) < 60} == inside
    assert squares == sorted(set(squares))


def test_features_are_summed_up_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are those of all rows at once, however they are read. Nuclei without a value do not count."""
    import anndata

    from tests.features.tissue import NAMES, Tissue, slide_and_store
    from wsi_nuc.executors.base import SerialExecutor
    from wsi_nuc.features.running import add_features

    slide, store = slide_and_store(tmp_path, Tissue.of(40, edge_um=300), 0.5)
    plain = slide_summary(store)
    add_features(made_folder(store.parent) / store.name, slide, SerialExecutor(lambda: None).run)
    monkeypatch.setattr("wsi_nuc.features.means._ROWS", 7)
    summary = slide_summary(store)
    assert {key: value for key, value in summary.items() if not key.startswith("feature_")}.keys() == plain.keys()
    rows = anndata.read_zarr(store / "tables/nuclei_table").to_df().astype(np.float64)
    assert not rows.isna().any(axis=None)
    # The mean is over the nuclei that have such neighbours.
    alone = rows["count_25um"] == 0
    assert alone.any()
    for name, need in needs(class_names(store)).items():
        short = rows[need.counted_by] < need.least
        assert (rows.loc[short, name] == need.otherwise).all(), name
        rows.loc[short, name] = np.nan
    for name in set(NAMES) - {"orientation_rad"}:
        assert summary[f"feature_mean_{name}"] == pytest.approx(rows[name].mean(), nan_ok=True), name
        assert summary[f"feature_sd_{name}"] == pytest.approx(rows[name].std(ddof=0), nan_ok=True, abs=1e-9), name
    assert len(summary) == len(plain) + 2 * (len(NAMES) - 1)
