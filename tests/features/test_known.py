"""What every feature is on nuclei so simple that it can be computed by hand. A feature without a row here fails.

No known value is 0, since that would hide a factor; none of a ratio is 1, since that would hide its inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import shapely

from tests.features.tissue import Tissue, measured, slide_and_store
from tests.store.build import CLASSES
from wsi_nuc.features.border import Analysed, border_features
from wsi_nuc.features.coverage import Coverage, cover
from wsi_nuc.features.dab import DEFAULT, dab_features, density_of
from wsi_nuc.features.job import GroupJob
from wsi_nuc.features.neighbourhood import Scene, neighbourhood_features
from wsi_nuc.features.pixels import OD
from wsi_nuc.features.registry import features_of
from wsi_nuc.features.shape import shape_features
from wsi_nuc.features.texture import boundary_features, stain_features, texture_features
from wsi_nuc.models.classical.settings import unmixing
from wsi_nuc.rings import Rings
from wsi_nuc.types import Box, Float64, Int64, SlideRef

Columns = dict[str, Float64]
# A nucleus of 8 x 8 pixels in the middle of 24 x 24.
UM_PER_PX, EDGE_PX, FIRST_PX, LAST_PX = 0.5, 24, 8, 16
NUCLEUS_PX = Rings.of([np.array([[8.0, 8], [16, 8], [16, 16], [8, 16]])])
FIRST, SECOND = CLASSES[:2]


def corner() -> Columns:
    """A square of 4 um without its lower right quarter: area 12, outline 16, hull 14, a diagonal as axis."""
    return shape_features(Rings.of([np.array([[0.0, 0], [4, 0], [4, 2], [2, 2], [2, 4], [0, 4]])]))


def square() -> Columns:
    """A square of 2 um with vertices so dense that the mean of a radius over an edge is exact."""
    along = np.arange(100) / 50 - 1
    side = np.column_stack([along, np.full(100, -1.0)])
    turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return shape_features(Rings.of([np.concatenate([side @ turn for turn in turns])]))


def density(columns_od: list[float]) -> np.ndarray:
    """24 x 24, with these densities from left to right."""
    return np.tile(np.rint(np.array(columns_od) / OD).astype(np.int16), (EDGE_PX, 1))


def covered() -> Coverage:
    return cover(NUCLEUS_PX, np.array([0]), 1, (EDGE_PX, EDGE_PX), 4)


def two_tones() -> Columns:
    """A nucleus of 0.4 OD with a quarter of 0.8 OD on its right; 0.1 OD left of it and 0.3 OD right of it."""
    haematoxylin = density([0.1] * 12 + [0.3] * 12)
    inside = slice(FIRST_PX, LAST_PX)
    haematoxylin[inside, inside] = density([0.4] * 6 + [0.8] * 2)[:8]
    return {
        **stain_features("h", haematoxylin, covered(), quantiles=True),
        **stain_features("e", 2 * haematoxylin, covered(), quantiles=False),
        **texture_features(haematoxylin, covered(), UM_PER_PX),
    }


def brown() -> Columns:
    """A nucleus with haematoxylin everywhere, and 0.4 OD of DAB with a quarter of 1.2 OD on its right."""
    dab = np.tile([0.4] * (LAST_PX - 2) + [1.2] * (EDGE_PX - LAST_PX + 2), (EDGE_PX, 1))
    length = [vector / np.linalg.norm(vector) for vector in np.array(DEFAULT)]
    light = 256 * 10 ** -(0.3 * length[0] + dab[..., None] * length[1]) - 1
    return dab_features(density_of(np.rint(light).astype(np.uint8), DEFAULT), covered().inside)


def dark() -> Columns:
    """A nucleus of which a quarter is darker than what textures tell apart."""
    return texture_features(density([0.4] * (LAST_PX - 2) + [1.8] * (EDGE_PX - LAST_PX + 2)), covered(), UM_PER_PX)


def ramp() -> Columns:
    """Even up to the fourth of the nucleus's eight columns, then 0.1 OD more with each column."""
    return texture_features(density([max(0, x - 11) / 10 for x in range(EDGE_PX)]), covered(), UM_PER_PX)


def edge() -> Columns:
    """A nucleus of 0.6 OD; above its middle 0.2 OD around it, below 0.8 OD."""
    haematoxylin = density([0.2] * EDGE_PX)
    haematoxylin[EDGE_PX // 2 :] = density([0.8] * EDGE_PX)[0]
    haematoxylin[FIRST_PX:LAST_PX, FIRST_PX:LAST_PX] = density([0.6] * EDGE_PX)[0, 0]
    return boundary_features(haematoxylin, NUCLEUS_PX, UM_PER_PX)


def slide() -> Columns:
    """A published nucleus of 4 x 5 um on a slide that has 0.6 OD everywhere."""
    ring = np.array([[30.0, 30], [34, 30], [34, 35], [30, 35]])
    tissue = Tissue(ring, np.array([0, 4]), np.array([[32.0, 32.5]]), edge_um=64.0)
    light = 256 * 10 ** -(0.6 * np.linalg.inv(unmixing())[0]) - 1
    rgb = np.tile(np.rint(light).astype(np.uint8), (128, 128, 1))
    with TemporaryDirectory() as folder:
        return measured(*slide_and_store(Path(folder), tissue, UM_PER_PX, rgb))


def cross() -> Columns:
    """A nucleus with others to its right, below, left and above, 10, 20, 30 and 40 um away, and one at 60 um. The
    nearest is of the first class, the others are of the second."""
    xy = np.array([[0.0, 0], [10, 0], [0, 20], [-30, 0], [0, -40], [60, 0]])
    return neighbourhood_features(scene_of(xy, np.array([0, 0, 1, 1, 1, 1])), CLASSES)


def corner_of_tissue() -> Columns:
    """The first nucleus lies 20 um from two borders of its tissue, and 10 um from its only neighbour."""
    around = scene_of(np.array([[20.0, 20], [30, 20]]))
    box = shapely.box(0, 0, 1000, 1000)
    job = GroupJob("", SlideRef("x"), 0, 1.0, CLASSES)
    area = Analysed.near(np.array([0.0, 0, 40, 40]), np.array([box]), job, Box(0, 0, 2000, 2000))
    return border_features(around, area, neighbourhood_features(around, CLASSES))


def scene_of(xy_um: Float64, label: Int64 | None = None) -> Scene:
    count = len(xy_um)
    label = np.zeros(count, np.int64) if label is None else label
    return Scene(xy_um, label, np.ones(count), count, np.zeros(0, np.bool_))


def inside_corner(radius: float, distance: float) -> float:
    """The share of a disc around a point as far from the two sides of a right angle that lies between them."""
    disc = shapely.Point(distance, distance).buffer(radius, quad_segs=256)
    return float(disc.intersection(shapely.box(0, 0, 1000, 1000)).area / disc.area)


def bits(*shares: float) -> float:
    return -sum(share * float(np.log2(share)) for share in shares)


# Of the 210 pairs of adjacent pixels in `two_tones`: 152 of levels 4 and 4, 22 of levels 4 and 8, 36 of 8 and 8.
EVEN, MIXED, DARK = 152 / 210, 22 / 210, 36 / 210
DARK_ENDS = DARK + MIXED / 2
SQUARE_RADIUS = (np.sqrt(2) + np.arcsinh(1)) / 2

KNOWN: dict[str, tuple[Callable[[], Columns], float]] = {
    "area_um2": (corner, 12),
    "perimeter_um": (corner, 16),
    "equivalent_diameter_um": (corner, np.sqrt(4 * 12 / np.pi)),
    "major_axis_um": (corner, 4 * np.sqrt(5 / 3)),
    "minor_axis_um": (corner, 4 * np.sqrt(7 / 9)),
    "eccentricity": (corner, np.sqrt(8 / 15)),
    "orientation_rad": (corner, -np.pi / 4),
    "extent": (corner, 12 / 16),
    "solidity": (corner, 12 / 14),
    "convexity": (corner, (12 + np.sqrt(8)) / 16),
    "circularity": (corner, 4 * np.pi * 12 / 16**2),
    "feret_max_um": (corner, np.sqrt(32)),
    "feret_min_um": (corner, 4),
    "radius_mean_um": (square, SQUARE_RADIUS),
    "radius_sd_um": (square, np.sqrt(4 / 3 - SQUARE_RADIUS**2)),
    "h_mean": (two_tones, 0.5),
    "h_sd": (two_tones, 0.4 * np.sqrt(3) / 4),
    "h_q10": (two_tones, 0.4),
    "h_median": (two_tones, 0.4),
    "h_q90": (two_tones, 0.8),
    "h_total_um2": (slide, 0.6 * 20),
    "h_ring_mean": (two_tones, 0.2),
    "h_ring_sd": (two_tones, 0.1),
    "h_contrast": (two_tones, 0.3),
    "e_mean": (two_tones, 1.0),
    "e_sd": (two_tones, 0.8 * np.sqrt(3) / 4),
    "e_ring_mean": (two_tones, 0.4),
    "e_ring_sd": (two_tones, 0.2),
    "e_contrast": (two_tones, 0.6),
    "gradient_mean": (ramp, 0.2 * 4.5 / 8),
    "gradient_sd": (ramp, 0.2 * np.sqrt(4.25 / 8 - (4.5 / 8) ** 2)),
    "skewness": (two_tones, 2 / np.sqrt(3)),
    "kurtosis": (two_tones, -2 / 3),
    "glcm_contrast": (two_tones, 16 * MIXED),
    "glcm_dissimilarity": (two_tones, 4 * MIXED),
    "glcm_homogeneity": (two_tones, 1 - MIXED + MIXED / 17),
    "glcm_asm": (two_tones, EVEN**2 + 2 * (MIXED / 2) ** 2 + DARK**2),
    "glcm_entropy_bits": (two_tones, bits(EVEN, MIXED / 2, MIXED / 2, DARK)),
    "glcm_correlation": (two_tones, (DARK - DARK_ENDS**2) / (DARK_ENDS * (1 - DARK_ENDS))),
    "od_clipped_share": (dark, 1 / 4),
    "edge_sharpness": (edge, 0.05),
    "edge_sharpness_sd": (edge, 0.15),
    "edge_fall_share": (edge, 0.5),
    "neighbour_1_um": (cross, 10),
    "neighbour_3_um": (cross, 30),
    "neighbour_5_um": (cross, 60),
    "neighbours_within_100um": (cross, 5),
    "delaunay_degree": (cross, 4),
    "delaunay_edge_mean_um": (cross, 25),
    "delaunay_edge_sd_um": (cross, np.sqrt(125)),
    "count_25um": (cross, 2),
    "entropy_25um_bits": (cross, 1),
    f"share_25um_{FIRST}": (cross, 1 / 2),
    f"share_25um_{SECOND}": (cross, 1 / 2),
    "count_50um": (cross, 4),
    "entropy_50um_bits": (cross, bits(1 / 4, 3 / 4)),
    f"share_50um_{FIRST}": (cross, 1 / 4),
    f"share_50um_{SECOND}": (cross, 3 / 4),
    "border_um": (corner_of_tissue, 20),
    "near_border_50um": (corner_of_tissue, 1),
    "inside_25um": (corner_of_tissue, inside_corner(25, 20)),
    "count_25um_corrected": (corner_of_tissue, 1 / inside_corner(25, 20)),
    "inside_50um": (corner_of_tissue, inside_corner(50, 20)),
    "count_50um_corrected": (corner_of_tissue, 1 / inside_corner(50, 20)),
    "dab_mean": (brown, 0.6),
    "dab_max": (brown, 1.2),
}
# Here grey levels are rounded to 8 bits, or areas to cells of a micron.
ROUNDED = (slide, corner_of_tissue, brown)


@cache
def columns_of(scene: Callable[[], Columns]) -> Columns:
    return scene()


def test_every_feature_has_a_row() -> None:
    """Apart from embeddings, whose numbers have no meaning each, and from the shares of further classes."""
    assert list(KNOWN) == [feature.name for feature in features_of((FIRST, SECOND), dab=True)]


@pytest.mark.parametrize("name", KNOWN)
def test_a_feature_is_what_is_known_in_this_row(name: str) -> None:
    scene, value = KNOWN[name]
    assert value != 0
    assert columns_of(scene)[name][0] == pytest.approx(value, rel=0.02 if scene in ROUNDED else 1e-6)
