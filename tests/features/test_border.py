"""Near the border of the analysed area neighbours are missing: how near is exact, and counts are corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.build import MPP, publish_nuclei
from tests.features.test_missing import CHUNK, zarr_slide
from tests.features.tissue import Tissue, measured, slide_and_store
from tests.store.build import CLASSES, nuclei
from wsi_nuc.config import RunConfig
from wsi_nuc.features.border import Analysed, border_features
from wsi_nuc.features.job import GroupJob
from wsi_nuc.features.neighbourhood import Scene, Surroundings, neighbourhood_features
from wsi_nuc.features.registry import BORDER, REACH_UM, features_of
from wsi_nuc.features.running import run_slides
from wsi_nuc.features.summary import slide_summary
from wsi_nuc.safezarr import open_array
from wsi_nuc.store.manifest import read
from wsi_nuc.store.reading import NucleiFile
from wsi_nuc.tissue.area import polygons_only
from wsi_nuc.types import Box, Float64, SlideRef

SLIDE = Box(0, 0, 4096, 3000)
# In level-0 pixels: a piece with a hole, a slanted one that touches it nowhere, and one that leaves the slide.
TISSUE = shapely.get_parts(
    polygons_only(
        [
            shapely.Polygon(
                [(300, 200), (2100, 350), (1900, 2500), (250, 2200)],
                [[(900, 900), (1300, 950), (1250, 1400), (880, 1350)]],
            ),
            shapely.Polygon([(2400, 300), (3500, 900), (2700, 1700)]),
            shapely.Polygon([(2500, 1900), (4400, 2000), (4300, 3300), (2600, 3200)]),
        ]
    )
)
LOST = ((1500, 1500, 1756, 2012), (3000, 2300, 3256, 2556))


def job(lost: Any = (), mpp: float = MPP) -> GroupJob:
    return GroupJob("", SlideRef("x"), 0, mpp, CLASSES, None, lost)


def area_of(tissue: Any = TISSUE, lost: Any = LOST, slide: Box = SLIDE, mpp: float = MPP) -> Analysed:
    everywhere = np.array([-1e5, -1e5, 1e5, 1e5])
    area = Analysed.near(everywhere, np.atleast_1d(tissue), job(lost, mpp), slide)
    assert area is not None
    return area


def scene(xy_um: Float64) -> Scene:
    label = np.arange(len(xy_um)) % len(CLASSES)
    return Scene(xy_um, label, np.ones(len(xy_um)), len(xy_um), np.zeros(0, np.bool_))


def columns_at(xy_um: Float64, area: Analysed | None) -> dict[str, Float64]:
    here = scene(xy_um)
    counts = neighbourhood_features(here, CLASSES)
    return {**counts, **border_features(here, area, counts)}


def random_um(count: int, seed: int = 0, slide: Box = SLIDE) -> Float64:
    return np.random.default_rng(seed).uniform((-20, -20), (slide.x1 * MPP, slide.y1 * MPP), (count, 2))


def whole_area() -> Any:
    """The area as one geometry in um, by plain set operations."""
    on_slide = shapely.intersection(shapely.union_all(TISSUE), shapely.box(0, 0, SLIDE.x1, SLIDE.y1))
    left = shapely.difference(on_slide, shapely.union_all([shapely.box(*box) for box in LOST]))
    return shapely.transform(left, lambda xy: xy * MPP)


def test_every_column_of_the_table_is_there() -> None:
    here = columns_at(random_um(50), area_of())
    assert {column.name for column in BORDER} <= set(here)


def test_the_distance_is_that_to_the_area_as_one_geometry() -> None:
    xy, whole = random_um(3000), whole_area()
    columns = columns_at(xy, area_of())
    points = shapely.points(xy)
    inside = shapely.intersects(whole, points)
    distance = np.where(inside, shapely.distance(shapely.boundary(whole), points), 0)
    assert 0.3 < inside.mean() < 0.7
    assert columns["border_um"] == pytest.approx(np.minimum(distance, REACH_UM), abs=1e-4)
    assert columns["near_border_50um"].tolist() == (columns["border_um"] < 50).astype(float).tolist()


def test_the_share_of_a_disc_is_that_of_the_area_as_one_geometry() -> None:
    xy, whole = random_um(400, seed=1), whole_area()
    columns = columns_at(xy, area_of())
    for radius, off in ((25, 0.03), (50, 0.015)):
        disc = shapely.buffer(shapely.points(xy), radius, quad_segs=64)
        share = shapely.area(shapely.intersection(disc, whole)) / (np.pi * radius**2)
        difference = columns[f"inside_{radius}um"] - share
        assert np.abs(difference).max() < off
        assert abs(difference.mean()) < off / 20
        whole_discs = columns["border_um"] >= radius
        assert whole_discs.sum() > 20
        assert (columns[f"inside_{radius}um"][whole_discs] == 1).all()


@given(st.floats(0, 360), st.floats(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_straight_edge_cuts_what_a_circle_loses(degrees: float, distance: float) -> None:
    """From a half on the edge itself to nothing at a distance of the radius."""
    turn = np.deg2rad(degrees)
    inward = np.array([np.cos(turn), np.sin(turn)])
    along = np.array([-inward[1], inward[0]])
    middle = np.array([500.3, 500.7])
    corners = [middle + along * a + inward * b for a, b in ((-400, 0), (400, 0), (400, 400), (-400, 400))]
    area = area_of(shapely.Polygon(np.array(corners) / MPP), (), Box(0, 0, 4000, 4000))
    columns = columns_at((middle + inward * distance)[None], area)
    for radius in (25, 50):
        x = min(1.0, distance / radius)
        kept = 1 - (np.arccos(x) - x * np.sqrt(1 - x * x)) / np.pi
        assert columns[f"inside_{radius}um"][0] == pytest.approx(kept, abs=0.03)


def test_corrected_counts_of_an_even_field_are_the_same_at_the_border_and_in_the_middle() -> None:
    """Four fields of nuclei at random places. Raw counts fall by a third at the border, corrected ones do not."""
    area, fields = area_of(), []
    size, count = np.array([SLIDE.x1, SLIDE.y1]) * MPP, 9000
    for seed in range(4):
        xy = np.random.default_rng(seed).uniform((0, 0), size, (count, 2))
        fields.append(columns_at(xy[area.holds(xy / MPP)], area))
    columns = {name: np.concatenate([field[name] for field in fields]) for name in fields[0]}
    at_border, middle = columns["border_um"] < 15, columns["near_border_50um"] == 0
    for radius in (25, 50):
        raw, corrected = columns[f"count_{radius}um"], columns[f"count_{radius}um_corrected"]
        drawn = count / size.prod() * np.pi * radius**2
        assert raw[at_border].mean() < 0.75 * drawn
        assert corrected[at_border].mean() == pytest.approx(drawn, rel=0.04)
        assert corrected[middle].mean() == pytest.approx(drawn, rel=0.04)
        assert corrected[middle].tolist() == raw[middle].tolist()


def test_nuclei_outside_of_the_area_are_no_neighbours() -> None:
    area = area_of(shapely.box(0, 0, 400, 400), (), Box(0, 0, 4000, 4000))  # 100 um
    xy = np.array([[50.0, 50.0], [60.0, 50.0], [95.0, 50.0], [105.0, 50.0], [110.0, 50.0], [140.0, 50.0]])
    columns = columns_at(xy, area)
    assert columns["border_um"].tolist() == [50, 40, 5, 0, 0, 0]
    assert columns["near_border_50um"].tolist() == [0, 1, 1, 1, 1, 1]
    assert columns["count_25um"].tolist() == [1, 1, 2, 2, 2, 0]
    corrected, share = columns["count_25um_corrected"], columns["inside_25um"]
    assert corrected[:3].tolist() == [1, 1, 0]
    assert corrected[3] == pytest.approx(1 / share[3])
    assert 0.3 < share[3] < 0.45
    assert share[5] == 0
    assert corrected[5] == 0


def test_without_tissue_nothing_is_said() -> None:
    area = Analysed.near(np.array([0.0, 0, 1, 1]), np.zeros(0, object), job(), SLIDE)
    columns = columns_at(random_um(5), area)
    for column in BORDER:
        assert np.isnan(columns[column.name]).all()
    far = Analysed.near(np.array([3900.0, 0, 4000, 100]), TISSUE[:1], job(), SLIDE)
    assert columns_at(np.array([[1000.0, 10.0]]), far)["border_um"].tolist() == [0]


def test_the_whole_slide_as_tissue_ends_where_the_slide_does(tmp_path: Path) -> None:
    tissue = Tissue.of(36)  # 128 um
    columns = measured(*slide_and_store(tmp_path, tissue, 0.5))
    to_side = np.minimum(tissue.centres_um, tissue.edge_um - tissue.centres_um).min(axis=1)
    assert columns["border_um"] == pytest.approx(to_side, abs=1)
    assert (columns["count_50um_corrected"] >= columns["count_50um"]).all()


def test_row_groups_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit."""

    def whole(rows: int) -> dict[str, Float64]:
        monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", rows)
        parts = []
        with NucleiFile(publish_nuclei(tmp_path / str(rows), nuclei(700, seed=2))) as file:
            around = Surroundings(file, MPP, REACH_UM)
            for group in range(file.groups):
                here = around.scene(group)
                area = Analysed.near(file.group_boxes_l0[group], TISSUE, job(LOST), SLIDE)
                parts.append(border_features(here, area, neighbourhood_features(here, CLASSES)))
        assert len(parts) == -(-700 // rows)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    together, cut = whole(16384), whole(40)
    for name, values in together.items():
        assert np.array_equal(cut[name], values, equal_nan=True), name


def run(slide: SlideRef, out: Path, **options: Any) -> Path:
    config = RunConfig(out=out, scheduler="serial", model="classical", tissue="none", mpp=slide.mpp, **options)
    (result,) = run_slides(config, [slide.path])
    assert not result.error
    return Path(result.store)


def column(store: Path, name: str) -> Float64:
    classes = list(read(store)["counts"]["classes"])
    place = len(classes) + [feature.name for feature in features_of(classes)].index(name)
    return np.asarray(open_array(store / "tables/nuclei_table/X")[:, place], np.float64)


def test_lost_places_and_the_region_of_interest_are_borders_at_once_and_later(tmp_path: Path) -> None:
    tissue, mpp = Tissue.of(100, edge_um=256), 0.25
    slide = zarr_slide(tmp_path / "x.zarr", tissue.rgb(mpp), mpp)
    (tmp_path / "x.zarr/0/c/3/3/0").unlink()
    roi = tmp_path / "roi.geojson"
    roi.write_text(shapely.to_geojson(shapely.box(0, 0, 820, 1024)))
    at_once = run(slide, tmp_path / "at once", features=True, roi=str(roi))
    later = run(slide, tmp_path / "later", roi=str(roi))
    assert run(slide, tmp_path / "later", features=True, roi=str(roi)) == later
    assert read(later)["digest"] == read(at_once)["digest"]
    assert read(later)["tiles"]["missing_boxes_l0"]
    with NucleiFile(later) as file:
        xy = file.points(0).xy_l0
    hole = shapely.box(3 * CHUNK, 3 * CHUNK, 4 * CHUNK, 4 * CHUNK)
    analysed = shapely.difference(shapely.box(0, 0, 820, 1024), hole)
    expected = shapely.distance(shapely.boundary(analysed), shapely.points(xy)) * mpp
    border = column(later, "border_um")
    assert border == pytest.approx(np.where(shapely.intersects_xy(analysed, *xy.T), expected, 0), abs=1e-4)
    assert (shapely.distance(hole, shapely.points(xy)) * mpp - border < 1e-4).any()


def test_the_mean_over_a_slide_stands_beside_the_raw_one(tmp_path: Path) -> None:
    tissue = Tissue.of(100, edge_um=256)
    slide = zarr_slide(tmp_path / "x.zarr", tissue.rgb(0.5), 0.5)
    summary = slide_summary(run(slide, tmp_path / "out", features=True))
    raw, corrected = (float(summary[f"feature_mean_count_50um{end}"]) for end in ("", "_corrected"))
    assert 1.1 * raw < corrected < 2 * raw
    assert 0 < float(summary["feature_mean_near_border_50um"]) < 1
