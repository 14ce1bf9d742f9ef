"""Outputs that are not finite are an error of the tile, whichever head of whichever family gave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.compact_nets import batch_of, noise, tiny_model, tiny_net
from tests.models.looking import embed, segment
from tests.models.nets import random_batch, stir, tiny_settings
from tests.models.tiles import one_tile, scene
from wsi_nuc.errors import SlideError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.classical import build as classical
from wsi_nuc.models.classical.look import build
from wsi_nuc.models.classical.settings import Parameters
from wsi_nuc.models.finite import finite
from wsi_nuc.models.promptnucseg.build import assemble, build_net, spec_of
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.types import Box, Prompts, TileBatch

BAD = (float("nan"), float("inf"), -float("inf"))
COMPACT = [(head, float("nan")) for head in ("point_head", "class_head", "mask_head", "decoder.weights",
                                             "decoder.quality.2")] + [("point_head", -3e38)]  # fmt: skip
PROMPTER_HEADS = ("deform_layer", "reg_head", "cls_head")
MASKS = "output_hypernetworks_mlps.0"
# Each way of using the segmentor has its own call of the decoder, which gives the outputs of all heads.
SEGMENTOR = [(MASKS, {}), ("iou_prediction_head", {}), ("cls_head", {}), (MASKS, {"tta": True}),
             (MASKS, {"mode": "parity"})]  # fmt: skip


@dataclass(frozen=True)
class _Record:
    numbers: Any
    indices: Any
    words: str = "not a number"


@given(st.integers(0, 59), st.sampled_from(BAD), st.sampled_from(["numpy", "float32", "bfloat16"]), st.booleans())
def test_one_bad_number_among_many_is_found(place: int, bad: float, kind: str, nested: bool) -> None:
    numbers = np.linspace(-1e30, 1e30, 60, dtype=np.float32)
    whole = np.ones(3, np.int64)

    def given_as(values: np.ndarray[Any, Any]) -> Any:
        array = values if kind == "numpy" else torch.from_numpy(values).to(getattr(torch, kind))
        return _Record((array.reshape(6, 10), None), whole) if nested else array

    outputs = given_as(numbers)
    assert finite(outputs) is outputs
    numbers[place] = bad
    with pytest.raises(SlideError, match="not finite"):
        finite(given_as(numbers))


def assert_refused(model: NucleiModel, batch: TileBatch) -> None:
    with pytest.raises(SlideError, match="not finite") as caught:
        predict(model, batch)
    assert caught.value.exit_code == 3
    assert caught.value.remedy


def spoil(module: torch.nn.Module, name: str, value: float) -> None:
    """Make the first number of a head's last bias bad."""
    *_, last = module.get_submodule(name).parameters()
    with torch.no_grad():
        last[0] = value


@pytest.mark.parametrize(("head", "value"), COMPACT)
def test_every_head_of_the_compact_network_is_looked_at(head: str, value: float) -> None:
    net = tiny_net()
    spoil(net, head, value)
    assert_refused(tiny_model(net), batch_of(noise(1, 64, 64)))


def test_only_a_tile_that_overflows_is_bad() -> None:
    """Only white pixels make this network overflow."""
    net = tiny_net()

    def overflow(_: object, pixels: tuple[torch.Tensor], maps: list[torch.Tensor]) -> list[torch.Tensor]:
        return [values * torch.where(pixels[0].amin() > 2, float("inf"), 1.0) for values in maps]

    net.encoder.register_forward_hook(overflow)
    model, white = tiny_model(net), np.full((64, 64, 3), 255, np.uint8)
    assert len(predict(model, batch_of(noise(1, 64, 64)))[0]) > 0
    assert_refused(model, batch_of(white))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return stir(PromptNucSegNet(tiny_settings(class_token=True))).state_dict()


def _promptnucseg(state: dict[str, torch.Tensor], change: Callable[[PromptNucSegNet], None], **use: Any) -> Any:
    settings = tiny_settings(class_token=True, **({"windows": 1} | use))
    net = build_net(settings, {name: tensor.clone() for name, tensor in state.items()})
    change(net)
    return assemble(net, settings, "cpu", spec_of(settings, "0" * 64))


@pytest.mark.parametrize(("head", "use"), SEGMENTOR, ids=str)
def test_every_head_of_the_segmentor_is_looked_at(
    state: dict[str, torch.Tensor], head: str, use: dict[str, Any]
) -> None:
    batch, points = random_batch(1, 256), np.float32([[40, 50], [120, 200]])
    prompts = Prompts(points, np.ones(2, np.float32), np.full((2, 2), 0.5, np.float32), np.zeros(2, np.int64))
    sound = _promptnucseg(state, lambda net: None, **use)
    segment(sound, batch, prompts, [0, 1])
    model = _promptnucseg(state, lambda net: spoil(net, f"segmentor.mask_decoder.{head}", float("nan")), **use)
    with pytest.raises(SlideError, match="not finite"):
        segment(model, batch, prompts, [0, 1])


@pytest.mark.parametrize("head", [*PROMPTER_HEADS, "mask_head.3"])
def test_every_head_of_the_prompter_is_looked_at(state: dict[str, torch.Tensor], head: str) -> None:
    model = _promptnucseg(state, lambda net: spoil(net, f"prompter.{head}", float("nan")), mask_filter=True)
    assert_refused(model, random_batch(1, 64))


def test_constants_of_the_classical_model_that_overflow_are_refused() -> None:
    batch = one_tile(scene(2, 200), Box(20, 20, 180, 180), 20)
    assert len(predict(build(Parameters(), classical.spec({})), batch)[0]) > 0
    with np.errstate(over="ignore"):
        assert_refused(build(Parameters(share=1e308), classical.spec({})), batch)


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    net = tiny_net()
    spoil(net, "decoder.embed.0", float("nan"))
    model, xy = tiny_model(net), np.float32([[40, 50]])
    with pytest.raises(SlideError, match="not finite"):
        embed(model, batch_of(noise(1)), xy, np.zeros(1, np.int64))
