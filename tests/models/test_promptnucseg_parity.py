"""Parity mode finds the instances of the published loop, written plainly in `published.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import published
from tests.models.looking import propose, segment
from tests.models.nets import random_batch, tiny_settings
from tests.models.published import Instances, published_instances, published_points, published_starts
from tests.models.sensible import sensible_net
from wsi_nuc.models.base import NucleiModel, check_geometry
from wsi_nuc.models.promptnucseg.build import assemble, spec_of
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.parity import best_of_each, box_nms, near_inner_edge
from wsi_nuc.models.promptnucseg.settings import Settings
from wsi_nuc.models.promptnucseg.windows import window_starts
from wsi_nuc.types import Bool, MaskCrops

NMS_PX = 24.0


def _settings(**use: Any) -> Settings:
    return tiny_settings(mode="parity", nms_radius_px=NMS_PX, **use)


def _model(net: PromptNucSegNet, used: Settings) -> NucleiModel:
    return assemble(net, used, "cpu", spec_of(used, "0" * 64))


@pytest.fixture(scope="module")
def net() -> PromptNucSegNet:
    return sensible_net(tiny_settings())


def _full(crops: list[MaskCrops], size: tuple[int, int]) -> dict[int, Bool]:
    masks = {}
    for group in crops:
        for mask, (x, y), prompt in zip(group.mask, group.origin_tile, group.prompt, strict=True):
            canvas = np.zeros((size[0] + 256, size[1] + 256), np.bool_)
            canvas[y : y + len(mask), x : x + len(mask)] = mask
            masks[int(prompt)] = canvas[: size[0], : size[1]]
    return masks


def _both(net: PromptNucSegNet, used: Settings, side: int) -> tuple[dict[int, Bool], Instances]:
    batch, model = random_batch(1, side, seed=3), _model(net, used)
    prompts = propose(model, batch)
    points = published_points(net, batch.rgb[0], used.use)
    assert np.allclose(prompts.xy_tile - 0.5, points, atol=1e-3)
    ours = _full(list(segment(model, batch, prompts, range(len(prompts)))), batch.rgb.shape[1:3])
    return ours, published_instances(net, batch.rgb[0], points, used.use)


@pytest.mark.parametrize(
    ("use", "side"),
    [
        ({"negatives": 1, "box_iou": 0.2}, 300),
        ({"negatives": 0, "overlap_px": 96, "box_iou": 0.3}, 300),
        ({"negatives": 2}, 256),
        ({"negatives": 1, "tta": True}, 256),
        ({"negatives": 1, "mask_filter": True}, 256),
    ],
    ids=["K=1, limit 0.2", "K=0, overlap 96, Kumar's limit", "K=2, one window", "six views", "mask filter"],
)
def test_the_instances_are_those_of_the_published_loop(
    net: PromptNucSegNet, use: dict[str, Any], side: int
) -> None:
    ours, theirs = _both(net, _settings(**use), side)
    assert len(theirs.mask) > 8
    assert sorted(ours) == sorted(theirs.point.tolist())
    for mask, point in zip(theirs.mask, theirs.point.tolist(), strict=True):
        assert (ours[point] & mask).sum() >= 0.99 * (ours[point] | mask).sum()


def test_every_rule_of_the_published_loop_decides_something(
    net: PromptNucSegNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the comparison above would not notice that a rule is missing."""
    rgb = random_batch(1, 300, seed=3).rgb[0]
    use = _settings(negatives=1, box_iou=0.2).use
    points = published_points(net, rgb, use)
    with_rules = published_instances(net, rgb, points, use)
    assert len(published_instances(net, rgb, points, replace(use, box_iou=1.0)).mask) > len(with_rules.mask)
    without = published_instances(net, rgb, points, replace(use, negatives=0))
    assert not set(with_rules.iou) <= set(without.iou)
    monkeypatch.setattr(published, "EDGE_PX", 0)
    assert not set(published_instances(net, rgb, points, use).iou) <= set(with_rules.iou)


def test_only_what_is_asked_for_comes_back_and_neighbours_still_count(net: PromptNucSegNet) -> None:
    batch, model = random_batch(1, 300, seed=3), _model(net, _settings())
    prompts = propose(model, batch)
    every = _full(list(segment(model, batch, prompts, range(len(prompts)))), (300, 300))
    wanted = list(range(0, len(prompts), 3))
    chosen = _full(list(segment(model, batch, prompts, wanted)), (300, 300))
    assert sorted(chosen) == sorted(set(every) & set(wanted))
    assert all(np.array_equal(chosen[i], every[i]) for i in chosen)


def test_a_tile_of_the_pipeline_has_room_for_masks_as_large_as_a_window() -> None:
    spec = spec_of(_settings(), "0" * 64)
    check_geometry(spec)
    assert spec.largest_nucleus_px == 256


@given(length=st.integers(256, 3000), overlap=st.integers(0, 128))
def test_windows_start_where_the_published_ones_do(length: int, overlap: int) -> None:
    assert window_starts(length, 0, overlap).tolist() == published_starts(length, overlap)


@given(
    box=st.lists(st.integers(0, 255), min_size=4, max_size=4),
    x0=st.sampled_from([0, 100, 244]),
    y0=st.sampled_from([0, 90, 144]),
)
def test_the_edge_rule_is_that_of_segment_anything(box: list[int], x0: int, y0: int) -> None:
    from wsi_nuc.models.torch_ops import load

    amg, size = load("segment_anything.utils.amg"), (400, 500)
    xs, ys = sorted(box[:2]), sorted(box[2:])
    inside = torch.tensor([[xs[0], ys[0], xs[1], ys[1]]])
    crop = [x0, y0, x0 + 256, y0 + 256]
    expected = amg.is_box_near_crop_edge(inside, crop, [0, 0, size[1], size[0]], atol=7.0)
    start = np.array([[x0, y0]])
    assert near_inner_edge(inside.numpy() + np.tile(start, 2), start, size, size).tolist() == expected.tolist()


@settings(deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(0, 30), limit=st.floats(0, 1))
def test_suppression_is_the_greedy_loop_over_boxes(seed: int, count: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 30, (count, 2))
    box = np.hstack([low, low + rng.integers(0, 20, (count, 2))])
    score = rng.permutation(count).astype(np.float32)
    kept: list[int] = []
    for i in np.argsort(-score):
        if all(_iou(box[i], box[j]) <= limit for j in kept):
            kept.append(int(i))
    assert box_nms(box, score, limit).tolist() == kept


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    common = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common
    return float(common / union) if union else 0.0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=20))
def test_of_each_prompt_the_best_first_mask_stays(rows: list[tuple[int, int]]) -> None:
    prompt = np.array([row[0] for row in rows], np.int64)
    iou = np.array([row[1] for row in rows], np.float32)
    expected = [max(np.flatnonzero(prompt == index), key=lambda i: (iou[i], -i)) for index in np.unique(prompt)]
    assert best_of_each(prompt, iou).tolist() == expected
