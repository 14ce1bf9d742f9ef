"""Patches around dots: every dot once, on its nucleus, and known where a missing dot says something."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.dots.drawn import box, centres, point, truth_of, write_csv, write_geojson
from wsi_nuc.config import RunConfig
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.run.session import run_session
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store.reading import NucleiFile, class_names
from wsi_nuc.synth import SynthTruth, synth_slide
from wsi_nuc.tiling.grid import TileGrid
from wsi_nuc.tiling.plan import RegionTask
from wsi_nuc.tiling.read import read_region
from wsi_nuc.tiling.scale import choose_scale
from wsi_nuc.training.dots.config import DotsConfig
from wsi_nuc.training.dots.images import DotImages, enough, images_of
from wsi_nuc.training.dots.patches import known_pixels
from wsi_nuc.types import Box, SlideRef

MPP = 0.25


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> SynthTruth:
    return synth_slide(tmp_path_factory.mktemp("slide"), size=1400, mpp=MPP, tissue=0.6, seed=3)


@pytest.fixture(scope="module")
def outlines(truth: SynthTruth) -> Any:
    return truth_of(truth)


def config(truth: SynthTruth, points: Path, **more: Any) -> DotsConfig:
    return DotsConfig(slide=str(truth.slide), points=points, **{"same_nucleus_um": 0.0, **more})


def corner(image: LabelledImage) -> np.ndarray[Any, Any]:
    return np.array([float(v) for v in image.id.rpartition("@")[2].split(",")])


def kinds_of(images: DotImages) -> Any:
    return np.concatenate([image.point_types for image in images.images])


def all_l0(images: DotImages, l0_per_px: float) -> Any:
    return np.concatenate([corner(i) + i.points_xy * l0_per_px for i in images.images])


@pytest.mark.parametrize("mpp", [MPP, 0.5, 0.4])
def test_every_dot_is_in_one_patch_and_on_its_nucleus(
    truth: SynthTruth, outlines: Any, tmp_path: Path, mpp: float
) -> None:
    polygons, names = outlines
    xy = centres(polygons)
    file = write_csv(tmp_path / "dots.csv", xy, names)
    gathered = images_of(config(truth, file, patch_px=256), mpp)
    placed = all_l0(gathered, mpp / MPP)
    assert gathered.dots == len(xy)
    # The corner in the name of a patch is rounded to a level-0 pixel.
    (_, dot), distance = shapely.STRtree(shapely.points(placed)).query_nearest(
        shapely.points(xy), return_distance=True
    )
    assert distance.max() < 1
    assert sorted(dot.tolist()) == list(range(len(xy)))
    assert [gathered.classes[kind] for kind in kinds_of(gathered)[dot]] == names
    assert shapely.distance(polygons, shapely.points(placed[dot])).max() < 1
    # Nuclei are drawn darker than what is around them; a patch that was cut elsewhere would not show it.
    assert gathered.repairs["dots no darker than their surroundings (kept)"] < 0.2 * len(xy)


def test_patches_share_no_pixel_and_have_the_pixels_of_the_slide(
    truth: SynthTruth, outlines: Any, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "dots.csv", centres(outlines[0]))
    gathered = images_of(config(truth, file, patch_px=256), MPP)
    corners = np.array([corner(image) for image in gathered.images])
    steps = (corners - corners[0]) / 256
    assert (steps == np.round(steps)).all()
    assert len(np.unique(steps, axis=0)) == len(steps)
    source = open_slide(SlideRef(str(truth.slide)))
    for image in gathered.images[:3]:
        x, y = corner(image).astype(int).tolist()
        assert image.rgb.shape == (256, 256, 3)
        assert (image.rgb == source.read(0, Box(x, y, x + 256, y + 256)).rgb).all()
    source.close()


def test_pixels_at_another_resolution_are_those_of_a_run(truth: SynthTruth, outlines: Any, tmp_path: Path) -> None:
    """A run reads with `read_region`. One patch fits the region, so it lies on a grid that a run could have."""
    xy = centres(outlines[0])
    inside = xy[shapely.contains_xy(shapely.box(512, 512, 900, 900), *xy.T)]
    file = write_csv(tmp_path / "a.csv", inside)
    gathered = images_of(config(truth, file, patch_px=256), 0.4)
    source = open_slide(SlideRef(str(truth.slide)))
    scale = choose_scale(source.info, MPP, 0.4)
    image = gathered.images[0]
    x, y = np.round(corner(image) / scale.l0_per_grid).astype(int).tolist()
    step = math.gcd(x, y, 256)
    grid = TileGrid(2048, 2048, step, 0, scale.l0_per_grid)
    rows, columns = np.meshgrid(np.arange(256 // step), np.arange(256 // step), indexing="ij")
    tiles = ((rows + y // step) * grid.cols + columns + x // step).ravel()
    task = RegionTask(grid.region(0, tiles), grid, scale, (shapely.box(-1e4, -1e4, 1e4, 1e4),))
    for tile in read_region(source, task):
        at = tile.tile.core_box.shift(-x, -y)
        assert tile.rgb is not None
        # A tile is resampled relative to its own corner, and where a grey level is a tie the rounding may differ.
        difference = np.abs(image.rgb[at.y0 : at.y1, at.x0 : at.x1].astype(int) - tile.rgb)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.05
    source.close()


def test_inside_of_a_region_all_is_known_and_outside_only_around_dots(
    truth: SynthTruth, outlines: Any, tmp_path: Path
) -> None:
    xy = centres(outlines[0])
    corner_l0 = np.floor(xy[np.argmin(np.hypot(*(xy - 700).T))]) - 60
    drawn = shapely.box(*corner_l0, *(corner_l0 + np.array([200, 90])))
    beyond = xy[~shapely.contains_xy(drawn.buffer(80), *xy.T)][:40]
    within = xy[shapely.contains_xy(drawn, *xy.T)]
    assert len(within)
    file = write_geojson(
        tmp_path / "a.geojson", [box(*drawn.bounds), *map(point, np.concatenate([beyond, within]).tolist())]
    )
    gathered = images_of(config(truth, file, patch_px=256, surroundings_um=5), MPP)
    dots = np.concatenate([beyond, within])
    inside = around = sure_pixels = 0
    for image in gathered.images:
        assert image.known is not None
        x, y = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
        x, y = x + corner(image)[0], y + corner(image)[1]
        in_patch = ((dots >= corner(image)) & (dots < corner(image) + 256)).all(axis=1)
        own, other = (
            np.min(np.hypot(x[..., None] - xy[:, 0], y[..., None] - xy[:, 1]), axis=2, initial=1e9)
            for xy in (dots[in_patch], dots[~in_patch])
        )
        drawn_here = shapely.contains_xy(drawn, x, y)
        on_slide = (x >= 0) & (y >= 0) & (x < 1400) & (y < 1400)
        expected = (drawn_here | (own < 20)) & ~((other < 20) & (other < own)) & on_slide
        # A dot counts from the centre of its pixel.
        sure = (np.abs(own - 20) > 1) & (np.abs(other - 20) > 1) & (np.abs(own - other) > 2)
        assert (image.known == expected)[sure].all()
        inside += int((image.known & drawn_here).sum())
        around += int((image.known & ~drawn_here).sum())
        sure_pixels += int((sure & expected).sum())
    assert 0.9 * 200 * 90 < inside <= 200 * 90
    assert around > 10_000
    assert sure_pixels > 20_000


@given(
    st.lists(st.tuples(st.floats(-10, 50), st.floats(-10, 50)), max_size=5),
    st.floats(1, 12),
)
@settings(max_examples=40, deadline=None)
def test_known_pixels_are_those_whose_nearest_dot_is_near_and_inside(
    dots: list[tuple[float, float]], reach: float
) -> None:
    xy = np.floor(np.array(dots).reshape(-1, 2)) + 0.5
    known = known_pixels(xy, None, (30, 40), reach)
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    distance = np.hypot(x[..., None] - xy[:, 0], y[..., None] - xy[:, 1])
    inside = ((xy >= 0) & (xy < (40, 30))).all(axis=1)
    own, other = (distance[..., side].min(axis=2, initial=1e9) for side in (inside, ~inside))
    sure = (np.abs(own - reach) > 1e-3) & (np.abs(other - own) > 1e-3)
    expected = (own <= reach) & (own < other)
    assert (known == expected)[sure].all()


def test_a_small_region_is_one_patch(truth: SynthTruth, outlines: Any, tmp_path: Path) -> None:
    xy = centres(outlines[0])
    inside = xy[shapely.contains_xy(shapely.box(333, 411, 580, 660), *xy.T)]
    file = write_geojson(tmp_path / "a.geojson", [box(333, 411, 580, 660), *map(point, inside.tolist())])
    assert len(images_of(config(truth, file, patch_px=256), MPP).images) == 1


def test_a_region_that_was_not_drawn_around_dotted_nuclei_is_refused(
    truth: SynthTruth, outlines: Any, tmp_path: Path
) -> None:
    """0.12 mm2 of this slide may hold few dots; nearly as much as 4 times that may not."""
    finer = truth.spec.mpp * 2
    xy = centres(outlines[0])[:10].tolist()
    file = write_geojson(tmp_path / "tissue.geojson", [box(-50, -50, 1300, 1500), *map(point, xy)])
    assert "in them a nucleus without a dot counts as background" in refused(truth, file, mpp=finer)
    around = images_of(config(truth, file, mpp=finer, regions=False), finer)
    assert sum(image.known.sum() for image in around.images if image.known is not None) < 10 * 34**2
    whole = images_of(config(truth, file), MPP)
    assert sum(image.known.sum() for image in whole.images if image.known is not None) >= 1300 * 1400


def test_more_patches_than_are_used_are_counted(truth: SynthTruth, outlines: Any, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "dots.csv", centres(outlines[0]))
    few = images_of(config(truth, file, patch_px=256, most_patches=2), MPP)
    assert len(few.images) == 2
    assert few.repairs["dots beyond the 2 patches that are used"] == len(outlines[0]) - few.dots > 0


@pytest.mark.parametrize("pack", [False, True])
def test_a_result_of_this_program_gives_its_nuclei(truth: SynthTruth, tmp_path: Path, pack: bool) -> None:
    settings = RunConfig(out=tmp_path, model="classical", scheduler="serial", pack=pack)
    (result,) = run_session(settings, [str(truth.slide)])
    assert result.store is not None
    with NucleiFile(Path(result.store)) as file:
        nuclei = np.concatenate([file.points(group).xy_l0 for group in range(file.groups)])
    gathered = images_of(config(truth, Path(result.store), patch_px=256), MPP)
    assert np.allclose(np.sort(all_l0(gathered, 1), axis=0), np.sort(nuclei, axis=0))
    assert gathered.classes == tuple(n for n in class_names(Path(result.store)) if n in gathered.classes)
    assert len(gathered.classes) > 1


def refused(truth: SynthTruth, points: Path, **more: Any) -> str:
    with pytest.raises(UsageError) as error:
        images_of(config(truth, points, **more), MPP)
    assert points.name in str(error.value)
    return str(error.value)


def test_dots_that_cannot_be_used_are_dropped_and_counted(
    truth: SynthTruth, outlines: Any, tmp_path: Path
) -> None:
    tissue = write_geojson(tmp_path / "tissue.geojson", [box(0, 0, 900, 1400)])
    xy = centres(outlines[0])
    in_tissue = xy[xy[:, 0] < 880]
    edge, glass = [950.0, 700.0], [1200.0, 700.0]
    dots = [*in_tissue.tolist(), (in_tissue[0] + 0.5).tolist(), edge, glass, [-5.0, 3.0], [1e9, 3.0]]
    file = write_csv(tmp_path / "dots.csv", dots, ["b", *["a"] * (len(dots) - 1)])
    gathered = images_of(config(truth, file, tissue=str(tissue), same_nucleus_um=1.0), MPP)
    expected = {
        "dots outside of the slide or image (dropped)": 2,
        "second dots on one nucleus (dropped)": 1,
        "dots at the border of the tissue (kept)": 1,
        "dots in glass (dropped)": 1,
        "dots of class 'b', which are too few to learn it": 1,
    }
    assert {what: gathered.repairs[what] for what in expected} == expected
    assert gathered.dots == len(in_tissue) + 1


def test_dots_for_other_pixels_are_refused(truth: SynthTruth, outlines: Any, tmp_path: Path) -> None:
    xy = centres(outlines[0])
    finer = write_csv(tmp_path / "finer.csv", xy * 4)
    assert "outside of the slide of 1400 x 1400 px" in refused(truth, finer)
    coarser = write_csv(tmp_path / "coarser.csv", xy / 4)
    assert "no darker than their surroundings" in refused(truth, coarser, tissue="none")
    assert images_of(config(truth, coarser, tissue="none", least_on_nuclei=0.0), MPP).dots == len(xy)
    blank = synth_slide(tmp_path, size=1400, mpp=MPP, blank=True)
    assert "in glass" in refused(blank, write_csv(tmp_path / "dots.csv", xy))


def test_no_dots_and_too_few_say_so(truth: SynthTruth, outlines: Any, tmp_path: Path) -> None:
    assert "no dot that can be used" in refused(truth, write_geojson(tmp_path / "none.geojson", []))
    only_region = write_geojson(tmp_path / "region.geojson", [box(300, 300, 500, 500)])
    assert "no dot that can be used" in refused(truth, only_region)
    own = config(truth, write_csv(tmp_path / "few.csv", centres(outlines[0])[:20]), least_dots=25)
    few = images_of(own, MPP)
    with pytest.raises(UsageError, match=r"few.csv: has 20 dots .* needs 25, .* Put 5 more dots"):
        enough(few, own)
    enough(few, own.model_copy(update={"least_dots": 20}))
    with pytest.raises(UsageError, match="--points: is missing"):
        images_of(DotsConfig(slide=str(truth.slide)), MPP)
