"""Stain, texture and boundary are those of the pixels of each nucleus, at one resolution for all scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.features.tissue import NAMES, Tissue, measured, slide_and_store
from tests.store.build import CLASSES
from wsi_nuc.features.coverage import cover
from wsi_nuc.features.pixels import OD, feature_scale, unmixed
from wsi_nuc.features.registry import features_of
from wsi_nuc.features.texture import LEVELS, MOST_OD, texture_features
from wsi_nuc.rings import Rings
from wsi_nuc.types import Box, Level, SlideInfo

FAMILY = {feature.name: feature.family for feature in features_of(CLASSES)}
OF_PIXELS = [name for name in NAMES if FAMILY[name] in ("stain", "texture", "boundary")]


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return Tissue.of(36)


@pytest.fixture(scope="module")
def columns(tissue: Tissue, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return measured(*slide_and_store(tmp_path_factory.mktemp("half"), tissue, 0.5))


def test_every_nucleus_has_every_feature(columns: dict[str, np.ndarray]) -> None:
    assert list(columns) == NAMES
    assert {name for name, values in columns.items() if np.isnan(values).any()} == set()


def test_the_stain_that_was_drawn_is_measured(tissue: Tissue, columns: dict[str, np.ndarray]) -> None:
    """Within one grey level: the middle of a nucleus of 0.55 to 0.95 OD, and eosin that is 0.1 everywhere."""
    level = 0.55 + 0.5 * (np.arange(1, 37) % 5) / 5
    assert columns["h_q90"] == pytest.approx(level, abs=0.03)
    assert columns["e_mean"] == pytest.approx(0.1, abs=0.02)
    assert columns["e_ring_mean"] == pytest.approx(0.1, abs=0.02)
    assert (columns["h_contrast"] > 0.1).all()
    assert (columns["edge_fall_share"] > 0.99).all()
    assert np.corrcoef(columns["edge_sharpness"], level)[0, 1] > 0.9


def test_plain_loops_over_pixels_agree(tissue: Tissue, columns: dict[str, np.ndarray]) -> None:
    haematoxylin, eosin = (plane * OD for plane in unmixed(tissue.rgb(0.5)))
    edge = haematoxylin.shape[0]
    xy = tissue.xy_um / 0.5
    everything = Rings(xy, tissue.offsets).fill(np.arange(1, 37), Box(0, 0, edge, edge))
    for i in range(0, 36, 5):
        inside = everything == i + 1
        assert columns["h_mean"][i] == pytest.approx(haematoxylin[inside].mean(), rel=1e-5)
        assert columns["h_sd"][i] == pytest.approx(haematoxylin[inside].std(), rel=1e-4)
        assert columns["e_mean"][i] == pytest.approx(eosin[inside].mean(), rel=1e-5)
        for name, q in (("h_q10", 0.1), ("h_median", 0.5), ("h_q90", 0.9)):
            assert columns[name][i] == pytest.approx(np.quantile(haematoxylin[inside], q), rel=1e-5)
        off = haematoxylin[inside] - haematoxylin[inside].mean()
        assert columns["skewness"][i] == pytest.approx((off**3).mean() / (off**2).mean() ** 1.5, rel=1e-4)
        assert columns["kurtosis"][i] == pytest.approx((off**4).mean() / (off**2).mean() ** 2 - 3, abs=1e-4)
        assert columns["h_total_um2"][i] == pytest.approx(columns["h_mean"][i] * columns["area_um2"][i], rel=1e-6)


def test_the_ring_is_near_and_free_and_belongs_to_one_nucleus(tissue: Tissue) -> None:
    xy, edge = tissue.xy_um / 0.5, 256
    covered = cover(Rings(xy, tissue.offsets), np.arange(36), 36, (edge, edge), 4)
    label = Rings(xy, tissue.offsets).fill(np.arange(1, 37), Box(0, 0, edge, edge))
    y, x = np.divmod(covered.ring.pixel, edge)
    assert (label[y, x] == 0).all()
    assert len(np.unique(covered.ring.pixel)) == len(covered.ring.pixel)
    for i in range(36):
        own_ring = covered.ring.owner == i
        own_y, own_x = np.nonzero(label == i + 1)
        apart = np.hypot(own_y[:, None] - y[own_ring], own_x[:, None] - x[own_ring]).min(axis=0)
        assert apart.min() > 0.9
        assert apart.max() < 4.5
        neighbour_y, neighbour_x = np.nonzero((label > 0) & (label != i + 1))
        to_neighbour = np.hypot(neighbour_y[:, None] - y[own_ring], neighbour_x[:, None] - x[own_ring]).min(axis=0)
        assert (apart < to_neighbour + 1.5).all()


def test_neighbours_in_the_way_do_not_change_who_gets_what() -> None:
    """If only some rings are asked for, they get the same pixels as if all were asked for."""
    tissue = Tissue.of(49, edge_um=80)
    xy = tissue.xy_um / 0.5
    whole = cover(Rings(xy, tissue.offsets), np.arange(49), 49, (160, 160), 4)
    rows = np.array([24, 3, 40])
    rest = np.setdiff1d(np.arange(49), rows)
    both = np.concatenate([rows, rest])
    parts = [xy[tissue.offsets[i] : tissue.offsets[i + 1]] for i in both]
    part = cover(Rings(np.concatenate(parts), tissue.offsets), both, 3, (160, 160), 4)
    for k, i in enumerate(rows):
        for in_whole, in_part in ((whole.inside, part.inside), (whole.ring, part.ring)):
            assert in_part.pixel[in_part.owner == k].tolist() == in_whole.pixel[in_whole.owner == i].tolist()


def test_cooccurrence_is_that_of_scikit_image() -> None:
    from skimage.feature import graycomatrix, graycoprops

    rng = np.random.default_rng(0)
    image = rng.integers(-200, 3600, (24, 30)).astype(np.int16)
    square = np.array([[4.0, 4], [22, 4], [22, 18], [4, 18]])
    covered = cover(Rings.of([square]), np.array([1]), 1, image.shape, 4)
    columns = texture_features(image, covered, 0.5)
    levels = np.clip(image // round(MOST_OD / OD / LEVELS), 0, LEVELS - 1)[4:18, 4:22].astype(np.uint8)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    matrix = graycomatrix(levels, [1], angles, LEVELS, symmetric=True).sum(axis=3, keepdims=True)
    share = (matrix / matrix.sum())[..., 0, 0]
    for name in ("contrast", "dissimilarity", "homogeneity", "ASM", "correlation"):
        theirs = graycoprops(share[..., None, None], name)[0, 0]
        assert columns[f"glcm_{name.lower()}"][0] == pytest.approx(theirs, rel=1e-9), name
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert columns["glcm_entropy_bits"][0] == pytest.approx(entropy)


def test_two_resolutions_of_one_tissue_give_the_same(
    tissue: Tissue, columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Tolerances are shares of the spread between nuclei.

    At 0.25 um per pixel only the rounding of grey levels differs, which can move a pixel into the next of the 16
    levels of co-occurrence. 0.33 um is resampled, which blurs a little.
    """
    fine = measured(*slide_and_store(tmp_path / "fine", tissue, 0.25))
    odd = measured(*slide_and_store(tmp_path / "odd", tissue, 128 / 388))
    for name in NAMES:
        spread, levels = float(np.ptp(columns[name])), name.startswith("glcm")
        most = 0.2 * spread + 0.04 if levels else 0.06 * spread + 0.002
        assert np.abs(fine[name] - columns[name]).max() <= most, name
        assert np.abs(odd[name] - columns[name]).max() <= 0.25 * spread + (0.06 if levels else 0.003), name


def test_turned_by_a_quarter_it_is_the_same(
    tissue: Tissue, columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    turned = tissue.turned()
    rgb = np.ascontiguousarray(np.rot90(tissue.rgb(0.5), -1))
    moved_columns = measured(*slide_and_store(tmp_path, turned, 0.5, rgb))
    for name in set(NAMES) - {"orientation_rad"}:
        assert moved_columns[name] == pytest.approx(columns[name], rel=2e-2, abs=2e-2), name


def test_moved_by_whole_pixels_it_is_the_same(
    tissue: Tissue, columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Moved so far that other squares of the slide are read."""
    rgb = np.full((1400, 1500, 3), 240, np.uint8)
    rgb[1001:1257, 900:1156] = tissue.rgb(0.5)
    shift = np.array([450.0, 500.5])
    moved = replace(tissue, xy_um=tissue.xy_um + shift, centres_um=tissue.centres_um + shift, edge_um=750.0)
    moved_columns = measured(*slide_and_store(tmp_path, moved, 0.5, rgb))
    inner = np.flatnonzero(np.all(np.abs(tissue.centres_um - 64) < 50, axis=1))
    for name in NAMES:
        if FAMILY[name] == "border":
            continue  # the larger slide has its border elsewhere
        assert moved_columns[name][inner] == pytest.approx(columns[name][inner], rel=1e-4, abs=1e-4), name


def info(mpp: float, *downsamples: float) -> SlideInfo:
    levels = tuple(Level(round(40_000 / d), round(40_000 / d), d) for d in downsamples)
    return SlideInfo("x", "x", 40_000, 40_000, levels, mpp, "header")


def test_the_resolution_is_half_a_micron_whatever_the_levels() -> None:
    for mpp in (0.1, 0.2431, 0.25, 0.33, 0.5, 0.7, 1.0):
        for downsamples in ((1.0,), (1.0, 2.0, 4.0), (1.0, 4.0, 16.0)):
            scale = feature_scale(info(mpp, *downsamples), mpp)
            assert scale.grid_mpp == pytest.approx(0.5, rel=0.06)
            assert scale.l0_per_grid * mpp == pytest.approx(scale.grid_mpp)
    assert feature_scale(info(0.25, 1, 4), 0.25).level == 0
    assert feature_scale(info(0.125, 1, 4), 0.125).level == 1
    assert feature_scale(info(0.2431, 1), 0.2431).level_px_per_grid == 2
