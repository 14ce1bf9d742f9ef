"""Crops for the compact network: labels, points and targets stay on the pixels to which they belong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.training.compact.config import CropConfig
from wsi_nuc.training.compact.crops import Crops, collate, point_targets
from wsi_nuc.training.compact.losses import windows_of
from wsi_nuc.training.compact.scene import moments, scene_of, vary, warp

CONFIG = CropConfig(size_px=128, colour=0.0)


def disks(seed: int = 0, size: int = 320, count: int = 25) -> LabelledImage:
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    for i in range(1, count + 1):
        x, y = rng.integers(15, size - 15, 2).tolist()
        cv2.ellipse(labels, (x, y), (int(rng.integers(5, 12)), 6), float(rng.integers(0, 180)), 0, 360, i, -1)
    ids = np.unique(labels)[1:]
    labels = np.searchsorted(ids, labels).astype(np.int32) + (labels > 0)
    rgb = np.where(labels[..., None] > 0, (90, 60, 140), (230, 200, 220)).astype(np.uint8)
    return LabelledImage(
        f"d{seed}", rgb, labels.astype(np.int32), rng.integers(0, 2, len(ids)), classes=("a", "b")
    )


@given(angle=st.floats(0, 6.28), scale=st.floats(0.75, 1.35), mirrored=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_moved_nucleus_takes_its_centre_and_spread_along(angle: float, scale: float, mirrored: bool) -> None:
    scene = scene_of(disks(), 320)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn * [-1.0 if mirrored else 1.0, 1.0]
    made = warp(scene, matrix, 128 - matrix @ np.array([160.0, 160.0]), 256)
    assert made.instances is not None
    assert made.xy is not None
    assert made.spread is not None
    xy, spread = moments(made.instances, len(made.xy))
    inside = ((made.xy > 25) & (made.xy < 231)).all(1) & (
        np.bincount(made.instances.ravel(), minlength=len(xy) + 1)[1:] > 60
    )
    assert inside.sum() > 3
    assert np.abs(xy - made.xy)[inside].max() < 0.5
    assert np.abs(spread - made.spread)[inside].max() < 0.15 * np.abs(made.spread).max() + 1


def test_a_centre_has_the_greatest_heat_and_its_offset_leads_back_to_it() -> None:
    scene = scene_of(disks(3), 320)
    made = warp(scene, np.eye(2), np.zeros(2), 320)
    assert made.xy is not None
    heat, offset, near = point_targets(made, 80)
    column, row = (made.xy / 4).astype(int).T
    assert (heat[row, column] == 1).all()
    assert (near[row, column] == 1).all()
    assert heat.max() == 1
    assert heat.min() >= 0
    alone = [i for i in range(len(row)) if ((row == row[i]) & (column == column[i])).sum() == 1]
    back = np.stack([column + 0.5 + offset[0, row, column], row + 0.5 + offset[1, row, column]], 1) * 4
    assert np.abs(back - made.xy)[alone].max() < 1e-3


def test_a_crop_follows_from_its_number_alone() -> None:
    crops = Crops([[disks(0), disks(1)]], [1.0], CropConfig(size_px=128), 7)
    crop, again, next_crop = crops[5], crops[5], crops[6]
    assert all(
        np.array_equal(getattr(crop, n), getattr(again, n), equal_nan=n == "negative") for n in crop.__slots__
    )
    assert not np.array_equal(crop.rgb, next_crop.rgb)


def test_prompts_lie_on_their_nuclei_and_negatives_on_others() -> None:
    crops = Crops([[disks(2)]], [1.0], CONFIG, 0)
    seen = 0
    for number in range(10):
        crop = crops[number]
        x, y = crop.prompt_xy.astype(int).T
        assert (crop.instances[y, x] == crop.prompt_id).all()
        given = ~np.isnan(crop.negative).any(1)
        assert (np.abs(crop.negative[given] - crop.prompt_xy[given]).max(1) > 0).all()
        seen += len(crop.prompt_id)
    assert seen > 20


@pytest.mark.parametrize("kind", ["masks", "points", "foreground"])
def test_each_head_learns_only_from_what_is_known(kind: str) -> None:
    image = disks(4)
    xy = np.array([[100.0, 120.0], [200.0, 60.0]])
    if kind == "points":
        image = LabelledImage("p", image.rgb, points_xy=xy, point_types=np.array([1, 0]), point_classes=("a", "b"))
    if kind == "foreground":
        assert image.instances is not None
        image = LabelledImage("f", image.rgb, foreground=image.instances > 0)
    for number in range(6):
        crop = Crops([[image]], [1.0], CONFIG, 1)[number]
        masks, points = kind == "masks", kind != "foreground"
        assert (crop.region_weight.max() == 1) == (kind != "points")
        assert (len(crop.prompt_id) > 0) <= masks
        assert (crop.towards_weight.max() > 0) <= masks
        assert (crop.kind_weight.max() > 0) <= points
        if kind == "foreground":
            assert crop.heat.max() == 0
            inside = crop.region.reshape(32, 2, 32, 2).max((1, 3)) > 0
            assert crop.heat_weight[inside].max(initial=0) == 0
        else:
            assert crop.heat_weight.min() == 1


def test_images_smaller_than_a_crop_are_reflected_with_nuclei_of_their_own() -> None:
    image = disks(5, size=100, count=6)
    scene = scene_of(image, 250)
    assert scene.rgb.shape[:2] == (250, 250)
    assert scene.instances is not None
    assert scene.xy is not None
    assert scene.instances.max() == len(scene.xy) > 6
    assert scene.kind is not None
    assert set(scene.kind) <= {0, 1}


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_windows_hold_the_mask_of_their_nucleus(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instances = torch.from_numpy(rng.integers(0, 4, (2, 32, 32)).astype(np.int32))
    row, ids = torch.from_numpy(rng.integers(0, 2, 5)), torch.from_numpy(rng.integers(0, 4, 5))
    origin = torch.from_numpy(rng.integers(-4, 14, (5, 2)))
    truth, seen = windows_of(instances, row, ids, origin, 4)
    for i in range(5):
        for v in range(8):
            for u in range(8):
                x, y = 2 * int(origin[i, 0]) + u, 2 * int(origin[i, 1]) + v
                inside = 0 <= x < 32 and 0 <= y < 32
                assert bool(seen[i, v, u]) == inside
                wanted = inside and ids[i] > 0 and instances[row[i], y, x] == ids[i]
                assert bool(truth[i, v, u]) == bool(wanted)


def test_colour_varies_but_nothing_moves() -> None:
    image = disks(6)
    rng = np.random.default_rng(0)
    varied = [vary(image.rgb, rng) for _ in range(8)]
    assert all(rgb.shape == image.rgb.shape and rgb.dtype == np.uint8 for rgb in varied)
    assert len({rgb.tobytes() for rgb in varied}) == 8
    assert vary(image.rgb, rng, 0.0) is image.rgb
    assert image.instances is not None
    nuclei = image.instances > 0
    darker = [rgb[nuclei].mean() < rgb[~nuclei].mean() for rgb in varied]
    assert sum(darker) >= 7


def test_batches_keep_prompts_with_their_crops() -> None:
    crops = Crops([[disks(7)]], [1.0], CONFIG, 3)
    first = [crops[i] for i in range(3)]
    batch = collate(first)
    assert batch.rgb.shape == (3, 128, 128, 3)
    for i, crop in enumerate(first):
        assert np.array_equal(batch.prompt_xy[batch.prompt_row == i].numpy(), crop.prompt_xy)
