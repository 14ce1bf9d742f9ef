"""From maps to nuclei: each is found once and whole, and depends on nothing but the maps near it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.hv_scenes import cut, discs, drawn, numbered, seen
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import ModelSpec, NucleiModel, check_geometry
from wsi_nuc.models.hv import HvMaps, HvSettings, decode, hv_of
from wsi_nuc.models.instances import Instances, InstancesLook, Labels
from wsi_nuc.run import region, request
from wsi_nuc.run.session import run_session
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.types import Box, TileBatch

USE = HvSettings()
Pixels = dict[tuple[tuple[int, int], ...], tuple[float, bytes]]


def perfect(labels: Labels, classes: int = 2) -> HvMaps:
    even = np.full((classes, *labels.shape), 1 / classes, np.float32)
    return HvMaps((labels > 0).astype(np.float32), hv_of(labels), even)


def overlaps(one: Labels, other: Labels) -> Any:
    """N x M IoUs."""
    pair = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(pair, (one.ravel(), other.ravel()), 1)
    iou = pair / (pair.sum(1)[:, None] + pair.sum(0) - pair)
    return iou[1:, 1:]


def test_touching_nuclei_are_parted_as_they_were_drawn() -> None:
    labels = discs(200, (50, 60, 14), (76, 62, 13), (64, 84, 12), (140, 40, 16), (150, 140, 9), (100, 150, 20))
    found = decode([perfect(labels)], USE)
    iou = overlaps(labels, found.labels[0])
    assert iou.shape == (6, 6)
    assert (iou.max(axis=1) > 0.93).all()
    assert np.array_equal(found.labels[0] > 0, labels > 0)


def test_nuclei_of_a_dense_tissue_are_found_from_noisy_maps() -> None:
    labels = drawn(512, seed=7)
    found = decode([seen(labels, noise=0.1)], USE)
    iou = overlaps(labels, found.labels[0])
    assert labels.max() > 250
    assert np.mean(iou.max(axis=1) > 0.7) > 0.9
    assert found.labels.max() < 1.05 * labels.max()


def test_ids_have_no_gaps_and_follow_reading_order() -> None:
    found = decode([seen(drawn(256, seed=7))], USE)
    ids, first = np.unique(found.labels, return_index=True)
    assert ids.tolist() == list(range(len(found.score) + 1))
    assert (np.diff(first[1:]) > 0).all()
    assert found.labels.dtype == np.int32
    assert found.score.dtype == found.class_probs.dtype == np.float32


@pytest.mark.parametrize("stride", [1, 3, 4])
def test_score_and_classes_are_means_over_the_pixels(stride: int) -> None:
    maps = seen(drawn(199, seed=7), classes=3, stride=stride)
    found = decode([maps], USE)
    large = maps.class_probs.repeat(stride, axis=1).repeat(stride, axis=2)[:, :199, :199]
    assert len(found.score) > 10
    for row, score in enumerate(found.score):
        mask = found.labels[0] == row + 1
        assert score == pytest.approx(maps.foreground[mask].mean(), abs=1e-5)
        assert found.class_probs[row] == pytest.approx(large[:, mask].mean(axis=1), abs=1e-5)


def test_a_tile_without_nuclei_gives_none() -> None:
    nothing = np.zeros((64, 64), np.float32)
    grey = HvMaps(
        nothing + np.float32(0.49), np.zeros((2, 64, 64), np.float32), np.ones((3, 64, 64), np.float32) / 3
    )
    specks = replace(grey, foreground=np.float32(np.random.default_rng(0).random((64, 64)) > 0.99))
    found = decode([grey, specks], USE)
    assert not found.labels.any()
    assert found.score.shape == (0,)
    assert found.class_probs.shape == (0, 3)


def test_tiles_of_a_batch_are_decoded_alone_and_stay_in_order() -> None:
    tiles = [seen(drawn(128, seed), seed) for seed in (1, 3, 7)]
    empty = perfect(np.zeros((128, 128), np.int32))
    tiles.insert(1, empty)
    alone = [decode([tile], USE) for tile in tiles]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        together = decode([tiles[i] for i in order], USE)
        for name in ("labels", "score", "class_probs"):
            expected = np.concatenate([getattr(alone[i], name) for i in order])
            assert np.array_equal(getattr(together, name), expected)


def away_from_edges(found: Instances, size_px: int, origin: tuple[int, int]) -> Pixels:
    """The nuclei at least `size_px` from the edges of their tile: their pixels, score and classes."""
    (labels,) = found.labels
    high, wide = labels.shape
    nuclei = {}
    for row in range(len(found.score)):
        y, x = np.nonzero(labels == row + 1)
        if min(y.min(), x.min(), high - 1 - y.max(), wide - 1 - x.max()) >= size_px:
            places = tuple(zip((x + origin[0]).tolist(), (y + origin[1]).tolist(), strict=True))
            nuclei[places] = float(found.score[row]), found.class_probs[row].tobytes()
    return nuclei


SMALL = HvSettings(flood_px=8, hole_px=4, sobel_px=11, gradients=(-0.2, 0.1), least_px=5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.05, 0.3, 1.0]))
def test_two_tiles_agree_on_what_is_far_from_their_edges(seed: int, left: int, top: int, noise: float) -> None:
    """At the strongest noise the maps hold no nuclei any more, but clumps, pits and chains of markers."""
    whole = seen(drawn(200, seed % 7), seed, noise)
    box = Box(left, top, left + 140, top + 140)
    one = away_from_edges(decode([whole], SMALL), SMALL.sight_px, (0, 0))
    two = away_from_edges(decode([cut(whole, box)], SMALL), SMALL.sight_px, (left, top))
    inner = box.grow(-SMALL.sight_px)
    ours = {p for p in one if all(inner.x0 <= x < inner.x1 and inner.y0 <= y < inner.y1 for x, y in p)}
    assert ours == set(two)
    assert all(one[places] == two[places] for places in ours)


def test_an_odd_nucleus_changes_no_other_one() -> None:
    """HoVer-Net's scale is the least and the greatest value of the tile. This one has none."""
    labels = discs(400, *((40 + 30 * i, 60, 13) for i in range(8)), (300, 300, 5), (308, 300, 4))
    plain = perfect(np.where(labels < 9, labels, 0).astype(np.int32))
    odd = perfect(labels)
    odd.hv[:, labels >= 9] *= 1.9
    one, two = (away_from_edges(decode([maps], USE), 1, (0, 0)) for maps in (plain, odd))
    assert len(one) == 8
    assert one.keys() < two.keys()


def test_a_nucleus_that_is_too_wide_is_dropped_and_its_neighbours_stay() -> None:
    labels = discs(300, (120, 150, 50), (184, 150, 14), (120, 60, 12))
    found = decode([perfect(labels)], USE)
    assert overlaps(labels, found.labels[0]).max(axis=1).round(1).tolist()[0] == 0
    assert len(found.score) == 2
    assert len(decode([perfect(labels)], replace(USE, largest_px=110)).score) == 3
    assert len(decode([perfect(labels)], replace(USE, largest_px=110, least_px=500)).score) == 2


def test_small_holes_are_filled_and_large_ones_keep_what_is_in_them() -> None:
    ring, hole, inner = discs(200, (100, 100, 44)), discs(200, (100, 100, 26)), discs(200, (100, 100, 13))
    maps = perfect(np.where(hole > 0, 2 * inner, ring).astype(np.int32))
    maps.foreground[95:100, 95:100] = 0
    (found,) = decode([maps], USE).labels
    assert found.max() == found[97, 97] == 2
    (found,) = decode([maps], replace(USE, hole_px=200)).labels
    assert found.max() == 1, "as HoVer-Net has it"


def test_foreground_without_a_marker_near_it_belongs_to_no_nucleus() -> None:
    labels = discs(200, (40, 100, 12))
    maps = perfect(labels)
    maps.foreground[98:103, 40:160] = 1  # a bar that leads away from the nucleus, where the map falls
    maps.hv[0, :, 53:] = np.linspace(1, -1.9, 147)
    ends = []
    for steps in (10, 24):
        (found,) = decode([maps], replace(USE, flood_px=steps)).labels
        assert found.max() == 1
        ends.append(np.nonzero(found)[1].max())
    assert ends[1] - ends[0] == 14
    assert ends[1] < 100


@pytest.mark.parametrize("wrong", [{"sobel_px": 4}, {"gradients": (0.1, 0.1)}, {"flood_px": 0}, {"marker": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=next(iter(wrong))):
        HvSettings(**wrong)


# Through the whole pipeline: a model that cuts its maps out of those of the whole slide.

SIZE = 1024
HALO = 144  # enough for `sight_px` around all but the largest nuclei
SPEC = ModelSpec("maps", ("a", "b"), 0.25, 160, HALO, USE.largest_px, 8, 2, "0" * 64)
CLUMP = [(500 + 22 * i + 11 * (j % 2), 500 + 19 * j, 11.6) for i in range(20) for j in range(20)]


def slide_maps() -> HvMaps:
    """Dense tissue, and in it a clump of 400 nuclei, wider than a tile with its halo, and a blob of 350 px."""
    labels = drawn(SIZE, seed=1)
    labels[470:930, 470:980] = 0
    clump = discs(SIZE, *CLUMP)
    labels[clump > 0] = 5000 + clump[clump > 0]
    blob = discs(SIZE, (250, 760, 175))
    labels[discs(SIZE, (250, 760, 180)) > 0] = 0
    labels[blob > 0] = 9999
    return seen(numbered(labels), noise=0.05)


@pytest.fixture(scope="module")
def whole() -> HvMaps:
    return slide_maps()


def model_of(whole: HvMaps, spec: ModelSpec) -> NucleiModel:
    def look(batch: TileBatch) -> InstancesLook:
        return InstancesLook(spec.name, decode([cut(whole, tile.read_box) for tile in batch.tiles], USE))

    return NucleiModel(spec, look)


@pytest.fixture
def run(whole: HvMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    slide = tmp_path / "maps.svs"
    write_slide(slide, SynthSpec(size=SIZE, mpp=0.25, blank=True))

    def nuclei(core_px: int, region_px: int | None = None) -> Any:
        spec = replace(SPEC, core_px=core_px)
        check_geometry(spec)
        region.loaded_model.cache_clear()
        monkeypatch.setattr(request, "model_spec", lambda name: spec)
        monkeypatch.setattr(region, "load_model", lambda name, device: model_of(whole, spec))
        out = tmp_path / f"{core_px}-{region_px}"
        more = {} if region_px is None else {"region_size": region_px}
        config = RunConfig(out=out, scheduler="serial", model="classical", tissue="none", **more)
        (result,) = run_session(config, [str(slide)])
        assert result.error == ""
        return geopandas.read_parquet(Path(result.store) / "shapes/nuclei/shapes.parquet")

    yield nuclei
    region.loaded_model.cache_clear()


def outlines(nuclei: Any) -> list[bytes]:
    return sorted(shapely.to_wkb(shapely.normalize(nuclei.geometry.to_numpy())))


def test_tiles_of_a_slide_find_what_one_tile_finds_once_and_whole(run: Callable[..., Any], whole: HvMaps) -> None:
    cut_up, alone = run(160), run(SIZE)
    assert cut_up.seam.mean() > 0.1, "small tiles have many seams"
    assert not alone.seam.any()
    assert len(alone) == decode([whole], USE).labels.max() > 1000
    assert outlines(cut_up) == outlines(alone)


def test_regions_change_nothing(run: Callable[..., Any]) -> None:
    assert outlines(run(160, region_px=320)) == outlines(run(160, region_px=640))


def test_a_clump_wider_than_the_halo_is_parted_and_a_blob_is_in_no_part_reported(run: Callable[..., Any]) -> None:
    for core_px in (160, 512):
        nuclei = run(core_px)
        tree = shapely.STRtree(nuclei.geometry.to_numpy())
        centres = shapely.points(np.array([(x + 0.5, y + 0.5) for x, y, _ in CLUMP]))
        _, hit = tree.query(centres, predicate="intersects")
        assert len(set(hit.tolist())) == len(CLUMP)
        assert nuclei.geometry.iloc[hit].area.between(250, 450).all()
        inside_blob = shapely.Point(250, 760).buffer(172)
        assert len(tree.query(inside_blob, predicate="intersects")) == 0
