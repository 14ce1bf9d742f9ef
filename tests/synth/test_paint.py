"""Blocks: independent of one another, cheap if they are blank, and dark where the truth has nuclei."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely

from wsi_nuc.synth.paint import BLOCK_PX, GLASS, Painter
from wsi_nuc.synth.spec import SynthSpec
from wsi_nuc.types import Box

SPEC = SynthSpec(size=2 * BLOCK_PX, seed=11, tissue=0.8, pen=True)


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return Painter(SPEC).region(Box(0, 0, 2 * BLOCK_PX, 2 * BLOCK_PX))


@pytest.mark.parametrize("box", [Box(1000, 900, 1100, 1200), Box(1020, 0, 1030, 40), Box(5, 1500, 300, 1700)])
def test_a_region_drawn_alone_is_the_crop_of_the_whole(whole, box):
    alone = Painter(SPEC).region(box)
    assert (alone == whole[box.y0 : box.y1, box.x0 : box.x1]).all()


def test_no_seam_shows_between_blocks(whole):
    grey = whole.mean(axis=2)
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    assert steps[BLOCK_PX - 1] < 1.3 * steps[BLOCK_PX - 20 : BLOCK_PX + 20].mean()


def test_the_share_of_tissue_is_the_asked_one():
    spec = SynthSpec(size=2 * BLOCK_PX, mpp=0.5, seed=2, tissue=0.5, density=0)
    seen = (Painter(spec).region(Box(0, 0, spec.size, spec.size)) != GLASS).any(axis=2)
    seen = cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((40, 40), np.uint8))
    assert 0.42 < seen.mean() < 0.58


def test_blank_means_glass_only_and_ink_remains():
    assert Painter(SynthSpec(size=2048, blank=True)).block(0, 0).rgb is None
    inked = Painter(SynthSpec(size=2048, blank=True, pen=True)).region(Box(0, 0, 2048, 2048))
    assert 0.01 < (inked != GLASS).any(axis=2).mean() < 0.3


def test_nuclei_keep_clear_of_ink():
    painter = Painter(SPEC)
    polygons = np.concatenate([painter.block(c, r).polygon for c in range(2) for r in range(2)])
    for line, width_um in painter.anatomy.ink:
        line_l0 = shapely.transform(line, lambda xy: xy / SPEC.mpp)
        assert shapely.distance(polygons, line_l0).min() * SPEC.mpp > width_um / 2


def test_the_same_tissue_at_half_the_resolution():
    fine, coarse = (Painter(SynthSpec(size=512 * s, mpp=0.25 * 2 / s, seed=4, tissue=1.0)) for s in (2, 1))
    many, same = fine.block(0, 0).polygon, coarse.block(0, 0).polygon
    assert abs(len(many) - len(same)) <= 0.02 * len(many)
    tree = shapely.STRtree(shapely.transform(shapely.centroid(many), lambda xy: xy / 2))
    _, distance = tree.query_nearest(shapely.centroid(same), return_distance=True, all_matches=False)
    assert (distance < 0.5).mean() > 0.97


def test_nuclei_are_darker_than_what_surrounds_them():
    spec = SynthSpec(size=2048, seed=8, tissue=1.0)
    painter = Painter(spec)
    red = painter.region(Box(0, 0, 1024, 1024))[..., 0].astype(float)
    labels = np.zeros((1024, 1024), np.int32)
    for number, polygon in enumerate(painter.block(0, 0).polygon, start=1):
        points = (shapely.get_coordinates(polygon) - 0.5).round().astype(np.int32)
        cv2.fillPoly(labels, [points], number)
    darker = []
    for number, polygon in enumerate(painter.block(0, 0).polygon, start=1):
        x0, y0, x1, y1 = (max(0, int(side)) for side in polygon.bounds)
        window = np.s_[max(0, y0 - 16) : y1 + 16, max(0, x0 - 16) : x1 + 16]
        near, value = labels[window], red[window]
        darker.append(value[near == number].mean() < value[near == 0].mean() - 25)
    assert len(darker) > 200
    assert np.mean(darker) > 0.98
