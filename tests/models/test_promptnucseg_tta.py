"""Six views and their average, calls that halve, and the options that a run may give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.looking import propose, segment
from tests.models.nets import random_batch, tiny_settings
from tests.models.sensible import sensible_net
from wsi_nuc.config import RunConfig
from wsi_nuc.configuring import load_config
from wsi_nuc.errors import ModelError, SlideError, UsageError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.promptnucseg import runner, segmentor, windows
from wsi_nuc.models.promptnucseg.build import assemble, save_net, spec_of
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import Settings
from wsi_nuc.models.promptnucseg.views import SIX_VIEWS, View
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.models.torch_ops import in_calls
from wsi_nuc.types import Level, MaskCrops, Prompts, SlideInfo, TileBatch

SPARSE = {"nms_radius_px": 26.0}


@pytest.fixture(scope="module")
def net() -> PromptNucSegNet:
    return sensible_net(tiny_settings())


def _model(net: PromptNucSegNet, **use: Any) -> NucleiModel:
    used: Settings = tiny_settings(**(SPARSE | use))
    return assemble(net, used, "cpu", spec_of(used, "0" * 64))


@given(
    view=st.sampled_from(SIX_VIEWS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    at=st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
def test_a_point_moves_with_its_pixel_and_back(view: View, height: int, width: int, at: tuple[int, int]) -> None:
    x, y = at[0] % width, at[1] % height
    image = torch.zeros(1, height, width)
    image[0, y, x] = 1
    seen = view.apply(image)
    assert tuple(seen.shape[1:]) == view.size((height, width))
    assert torch.equal(view.undo(seen), image)
    point = torch.tensor([x + 0.5, y + 0.5])
    moved = view.points(point, (height, width))
    assert seen[0, int(moved[1]), int(moved[0])] == 1
    assert torch.equal(view.undo_points(moved, (height, width)), point)


def test_the_six_views_are_different() -> None:
    image = torch.arange(6.0).view(1, 2, 3)
    shown = {tuple(view.apply(image).flatten().tolist()) for view in SIX_VIEWS}
    assert len(shown) == 6


def _masks(crops: list[MaskCrops], side: int) -> dict[int, torch.Tensor]:
    masks = {}
    for group in crops:
        for mask, (x, y), prompt in zip(group.mask, group.origin_tile, group.prompt, strict=True):
            canvas = torch.zeros(side + 256, side + 256, dtype=torch.bool)
            canvas[y : y + len(mask), x : x + len(mask)] = torch.from_numpy(mask) > 0
            masks[int(prompt)] = canvas[:side, :side]
    return masks


def _turned(batch: TileBatch, prompts: Prompts) -> tuple[TileBatch, Prompts]:
    """Both turned by half a turn. The six views of the turned batch are the same as before, in another order."""
    xy_tile = np.float32(batch.rgb.shape[1]) - prompts.xy_tile
    return replace(batch, rgb=np.ascontiguousarray(batch.rgb[:, ::-1, ::-1])), replace(prompts, xy_tile=xy_tile)


def test_averaging_makes_masks_and_points_independent_of_a_half_turn(net: PromptNucSegNet) -> None:
    """A half turn maps the six views onto each other, so only rounding may differ. A single view does differ."""
    batch = random_batch(1, 256, seed=3)
    agree = {}
    for tta in (False, True):
        model = _model(net, tta=tta, negatives=1, largest_nucleus_px=256)
        prompts = propose(model, batch)
        turned, turned_prompts = _turned(batch, prompts)
        xy = propose(model, turned).xy_tile
        near = np.abs(xy[:, None] - turned_prompts.xy_tile[None]).max(2).min(1)
        first, second = (
            _masks(list(segment(model, *pair, range(len(prompts)))), 256)
            for pair in ((batch, prompts), (turned, turned_prompts))
        )
        same = np.mean([bool((first[i] == second[i].flip(0, 1)).float().mean() > 0.9999) for i in first])
        agree[tta] = (float(np.mean(near < 1e-2)), float(same))
    assert agree[True] == (1.0, 1.0)
    assert max(agree[False]) < 0.7


def test_a_shared_encoder_is_averaged_over_its_views_too() -> None:
    settings = tiny_settings(shared=True, tta=True)
    torch.manual_seed(0)
    net, batch = PromptNucSegNet(settings).eval(), random_batch(1, 256)
    model = assemble(net, settings, "cpu", spec_of(settings, "0" * 64))
    single_view = assemble(net, tiny_settings(shared=True), "cpu", spec_of(settings, "0" * 64))
    xy = propose(model, batch).xy_tile
    assert len(xy) > 0
    assert not np.array_equal(xy, propose(single_view, batch).xy_tile)
    turned = replace(batch, rgb=np.ascontiguousarray(batch.rgb[:, ::-1, ::-1]))
    turned_back = 256 - propose(model, turned).xy_tile
    assert len(turned_back) == len(xy)
    assert np.abs(xy[:, None] - turned_back[None]).max(2).min(1).max() < 1e-2


class _Scarce:
    """Memory for at most `limit` items per call."""

    def __init__(self, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failed = 0
        for name, place in (("embed_pixels", windows.__name__), ("decode", segmentor.__name__)):
            monkeypatch.setattr(f"{place}.{name}", self._limited(f"{place}.{name}", limit))

    def _limited(self, target: str, limit: int) -> Any:
        module, _, name = target.rpartition(".")
        real = getattr(__import__(module, fromlist=[name]), name)

        def call(*given: Any) -> Any:
            if len(given[1]) > limit:
                self.failed += 1
                raise torch.cuda.OutOfMemoryError("no room")
            return real(*given)

        return call


@pytest.fixture
def large_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: many windows and prompts per call."""
    on = Runner.on.__func__  # type: ignore[attr-defined]
    large = classmethod(lambda cls, name, use: replace(on(cls, name, use), tiles=2, windows=4, prompts=64))
    monkeypatch.setattr(runner.Runner, "on", large)


@pytest.mark.usefixtures("large_calls")
def test_where_memory_runs_out_calls_halve_and_the_result_stays(
    net: PromptNucSegNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = random_batch(1, 400, seed=3)
    plenty = _model(net)
    prompts = propose(plenty, batch)
    expected = _masks(list(segment(plenty, batch, prompts, range(len(prompts)))), 400)
    scarce = _Scarce(1, monkeypatch)
    actual = _masks(list(segment(_model(net), batch, prompts, range(len(prompts)))), 400)
    assert scarce.failed >= 3
    assert sorted(actual) == sorted(expected)
    assert all((actual[i] == expected[i]).float().mean() > 0.9999 for i in actual)


def test_a_tile_that_does_not_fit_alone_is_named(net: PromptNucSegNet, monkeypatch: pytest.MonkeyPatch) -> None:
    _Scarce(0, monkeypatch)
    with pytest.raises(SlideError, match=r"tile 0.*out of memory"):
        predict(_model(net), random_batch(1, 256, seed=3))


@given(count=st.integers(0, 30), size=st.integers(1, 16), room=st.integers(1, 16))
def test_every_item_is_computed_once_however_little_fits(count: int, size: int, room: int) -> None:
    def call(part: list[int], real: int) -> list[int]:
        if len(part) > room:
            raise MemoryError
        return part[:real]

    parts = list(in_calls(list(range(count)), size, call))
    assert [item for part in parts for item in part] == list(range(count))
    assert all(len(part) > min(size, room) / 2 for part in parts[:-1])


def test_options_change_the_way_a_file_is_used_and_nothing_else(net: PromptNucSegNet, tmp_path: Path) -> None:
    path = str(tmp_path / "tiny.safetensors")
    save_net(path, net, tiny_settings())
    plain, spec = model_spec(path), model_spec(path, {"mode": "parity", "overlap_px": 32})
    assert spec == load_model(path, "cpu", {"mode": "parity", "overlap_px": 32}).spec
    assert (plain.largest_nucleus_px, spec.largest_nucleus_px) == (96, 256)
    assert spec.weights_sha256 == plain.weights_sha256
    assert model_spec(path, {}) == plain
    with pytest.raises(ModelError, match="overlap_px"):
        model_spec(path, {"overlap_px": 300})
    with pytest.raises(UsageError, match=r"inference\.negative.*Did you mean negatives"):
        model_spec(path, {"negative": 2})
    with pytest.raises(UsageError, match=r"inference\.tta.*valid boolean"):
        model_spec(path, {"tta": "sometimes"})


def test_a_model_without_networks_says_that_it_has_no_options() -> None:
    for ask in (model_spec, lambda name, options: load_model(name, "cpu", options)):
        with pytest.raises(UsageError, match="inference"):
            ask("classical", {"tta": True})


def test_only_what_was_given_is_an_option() -> None:
    assert RunConfig(out=Path("x")).inference == {}
    given_ = load_config(None, ["inference.tta=true", "inference.mode=null"], {"out": "x"}).inference
    assert given_ == {"tta": True}


def test_another_way_of_use_is_another_result_and_the_same_is_not() -> None:
    from wsi_nuc.run.job import _result_config

    info = SlideInfo("image", "", 10, 10, (Level(10, 10, 1.0),), 0.25, "header")
    spec = model_spec("classical")
    configs = [RunConfig(out=Path("x"), inference=use) for use in ({}, {"tta": True}, {"tta": None})]
    plain, averaged, unsaid = (_result_config(config, info, 0.25, spec, "cpu", {}) for config in configs)
    assert plain == unsaid
    assert plain != averaged
