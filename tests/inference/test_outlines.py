"""What holds for the polygon of any mask."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.inference.blobs import as_crops, largest_filled, noise_masks, random_blobs
from wsi_nuc.inference.outlines import MIN_AREA_PX, Traced, outlines, trace
from wsi_nuc.types import Float64, MaskCrops, UInt8

seeds = st.integers(0, 2**32 - 1)


def rings(traced: Traced) -> list[Float64]:
    return [traced.rings_tile.ring(row) for row in range(len(traced.rings_tile))]


def iou_with_mask(ring: Float64, mask: UInt8) -> float:
    """Against the mask's own pixels, each of which covers [i, i + 1)."""
    fine = 8
    middle = (np.arange(mask.shape[0] * fine) + 0.5) / fine
    x, y = np.meshgrid(middle, middle)
    inside = shapely.contains_xy(shapely.Polygon(ring), x.ravel(), y.ravel()).reshape(x.shape)
    pixels = np.kron(mask, np.ones((fine, fine), np.uint8)).astype(bool)
    return float((inside & pixels).sum() / (inside | pixels).sum())


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_every_kept_ring_is_valid_anticlockwise_and_large_enough(seed: int) -> None:
    masks = np.concatenate([noise_masks(seed, 40, 48), random_blobs(seed, 10)])
    traced = trace(as_crops(masks))
    assert len(traced.rings_tile.offsets) == traced.kept.sum() + 1
    polygons = [shapely.Polygon(ring) for ring in rings(traced)] if traced.kept.any() else []
    assert all(shapely.is_valid(polygons))
    assert (traced.rings_tile.signed_areas() >= MIN_AREA_PX - 1e-9).all()
    assert not (traced.repaired & ~traced.kept).any()


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_area_is_the_pixel_count_of_the_largest_filled_part(seed: int) -> None:
    masks = np.concatenate([noise_masks(seed, 30, 48), random_blobs(seed, 10)])
    traced = trace(as_crops(masks))
    plain = np.flatnonzero(traced.kept & ~traced.repaired)
    areas = np.zeros(len(masks))
    areas[traced.kept] = traced.rings_tile.signed_areas()
    expected = [largest_filled(masks[i]).sum() for i in plain]
    assert areas[plain] == pytest.approx(np.array(expected), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_crack_sums_give_the_exact_area_of_each_outline(seed: int) -> None:
    masks = noise_masks(seed, 30)
    rings_of_masks = outlines(masks)
    clean = ~np.isin(np.arange(len(masks)), rings_of_masks.mask[rings_of_masks.pinched])
    total = np.bincount(rings_of_masks.mask, rings_of_masks.area_px, minlength=len(masks))
    for i in np.flatnonzero(clean):
        assert total[i] == ndimage.binary_fill_holes(masks[i], np.ones((3, 3))).sum()


def test_outlines_of_nuclei_fit_their_masks() -> None:
    masks = np.stack([largest_filled(mask) for mask in random_blobs(3, 120, roughness=0.01)])
    masks = masks[masks.sum(axis=(1, 2)) > 600]
    traced = trace(as_crops(masks))
    assert traced.kept.all()
    fit = [iou_with_mask(ring, mask) for ring, mask in zip(rings(traced), masks, strict=True)]
    assert np.mean(fit) >= 0.97
    assert np.min(fit) >= 0.95
    assert 18 <= np.mean(np.diff(traced.rings_tile.offsets)) <= 36


def test_a_ring_lies_where_its_mask_lies() -> None:
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 4:20, 10:26] = 1  # y 4..20, x 10..26
    traced = trace(as_crops(mask, origin=(100, 50)))
    assert traced.rings_tile.xy.mean(axis=0) == pytest.approx([118, 62], abs=0.1)
    assert traced.rings_tile.xy.min(axis=0) == pytest.approx([110, 54], abs=0.4)


@settings(max_examples=25, deadline=None)
@given(seeds, st.permutations(range(30)), st.integers(1, 30))
def test_a_ring_does_not_depend_on_company_or_order(seed: int, order: list[int], taken: int) -> None:
    masks = np.concatenate([noise_masks(seed, 20, 48), random_blobs(seed, 10)])
    everyone = trace(as_crops(masks))
    place = np.cumsum(everyone.kept) - 1
    part = trace(as_crops(masks[order[:taken]]))
    got = iter(rings(part))
    for i, kept, repaired in zip(order, part.kept, part.repaired, strict=False):
        assert (kept, repaired) == (everyone.kept[i], everyone.repaired[i])
        if kept:
            assert np.array_equal(next(got), rings(everyone)[place[i]])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_empty_and_tiny_masks_are_dropped_and_named(size: int) -> None:
    mask = np.zeros((3, 16, 16), np.uint8)
    mask[1, 3 : 3 + size, 3 : 3 + size] = 1
    mask[2, 2:12, 2:12] = 1
    traced = trace(as_crops(mask))
    assert traced.kept.tolist() == [False, False, True]
    assert len(traced.rings_tile.offsets) == 2


def test_a_mask_that_hangs_together_by_a_corner_keeps_its_larger_part_and_counts() -> None:
    mask = np.zeros((1, 24, 24), np.uint8)
    mask[0, 2:8, 2:8] = 1
    mask[0, 8:20, 8:20] = 1
    traced = trace(as_crops(mask))
    assert traced.repaired.tolist() == [True]
    assert traced.rings_tile.signed_areas() == pytest.approx([144])


def test_no_masks_and_only_empty_masks_give_no_rings() -> None:
    for count in (0, 5):
        traced = trace(as_crops(np.zeros((count, 8, 8), np.uint8)))
        assert traced.rings_tile.xy.shape == (0, 2)
        assert traced.rings_tile.offsets.tolist() == [0]
        assert not traced.kept.any()


def test_many_chunks_equal_one() -> None:
    mask = random_blobs(1, 60, 48)
    many: MaskCrops = as_crops(np.concatenate([mask] * 40))
    whole, once = trace(many), trace(as_crops(mask))
    assert np.array_equal(np.diff(whole.rings_tile.offsets), np.tile(np.diff(once.rings_tile.offsets), 40))
    assert np.array_equal(whole.rings_tile.xy, np.tile(once.rings_tile.xy, (40, 1)))
