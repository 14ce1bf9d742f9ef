"""Prompts and masks are the same as segment-anything's, computed for many prompts of an image at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.nets import official_sam, prompt_encoder_at_256, stir
from wsi_nuc.models.sam import decoder
from wsi_nuc.models.sam.decoder import decode, embed_points
from wsi_nuc.models.sam.model import Sam
from wsi_nuc.models.torch_ops import load

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any, Sam]:
    """segment-anything's decoder and prompt encoder, and ours with the same weights."""
    official = official_sam("vit_mini")
    ours = Sam("vit_mini")
    for part in ("prompt_encoder", "mask_decoder"):
        getattr(ours, part).load_state_dict(getattr(official, part).state_dict())
    return official.mask_decoder, prompt_encoder_at_256(official), ours.eval()


def _reference(official: Any, encoder: Any, embedding: torch.Tensor, xy: torch.Tensor, label: torch.Tensor) -> Any:
    sparse, dense = encoder(points=(xy - 0.5, label), boxes=None, masks=None)
    return official(
        image_embeddings=embedding[None],
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )


@settings(deadline=None, max_examples=8)
@given(data=st.data(), prompts=st.integers(1, 5), negatives=st.integers(0, 3), seed=st.integers(0, 999))
def test_every_prompt_of_every_image_gets_the_official_mask(
    pair: tuple[Any, Any, Sam], data: st.DataObject, prompts: int, negatives: int, seed: int
) -> None:
    official, encoder, ours = pair
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(2, 256, 16, 16, generator=generator)
    xy = torch.rand(2, prompts, 1 + negatives, 2, generator=generator) * 256
    kinds = data.draw(st.lists(st.sampled_from([0, -1]), min_size=negatives, max_size=negatives))
    label = torch.tensor([1, *kinds]).expand(2, prompts, -1)
    with torch.inference_mode():
        decoded = decode(ours, embedding, embed_points(ours.prompt_encoder, xy, label))
        for image in range(2):
            logits, iou = _reference(official, encoder, embedding[image], xy[image], label[image])
            actual = decoder.full_logits(ours.mask_decoder, decoded.image[image], decoded.filters[image])
            assert (actual - logits[:, 0]).abs().max() <= TOLERANCE
            assert (decoded.predicted_iou[image] - iou[:, 0]).abs().max() <= TOLERANCE


@settings(deadline=None, max_examples=8)
@given(side=st.integers(1, 16), seed=st.integers(0, 999))
def test_a_neighbourhood_is_a_part_of_the_whole(pair: tuple[Any, Any, Sam], side: int, seed: int) -> None:
    _, _, ours = pair
    generator = torch.Generator().manual_seed(seed)
    image, filters = torch.randn(4, 256, 256, generator=generator), torch.randn(4, 32, generator=generator)
    xy = torch.rand(4, 2, generator=generator) * 256
    first = decoder.first_tokens(xy, 16, side)
    with torch.inference_mode():
        near = decoder.near_logits(ours.mask_decoder, image, filters, first, side)
        whole = decoder.full_logits(ours.mask_decoder, image, filters)
    for i, (x, y) in enumerate((first * 4).tolist()):
        assert torch.allclose(near[i], whole[i, y : y + 4 * side, x : x + 4 * side], atol=1e-4)
    assert bool(((xy >= first * 16) & (xy < (first + side) * 16)).all())


@pytest.mark.parametrize("edge", ["left", "right", "top", "bottom"])
def test_only_edges_inside_the_input_ask_for_the_whole_decode(edge: str) -> None:
    logits = torch.full((2, 20, 20), -1.0)
    part = slice(5, 10)
    line = {"left": (part, 0), "right": (part, 19), "top": (0, part), "bottom": (19, part)}[edge]
    logits[(slice(None), *line)] = 1.0
    at_edge = {"left": [0, 5], "right": [11, 5], "top": [5, 0], "bottom": [5, 11]}[edge]
    first = torch.tensor([[5, 5], at_edge])
    assert decoder.touches_edge(logits, first, 16).tolist() == [True, False]
    assert not decoder.touches_edge(torch.full((2, 20, 20), -1.0), first, 16).any()


def test_a_prompt_does_not_feel_the_other_prompts(pair: tuple[Any, Any, Sam]) -> None:
    _, _, ours = pair
    embedding, xy = torch.randn(1, 256, 16, 16), torch.rand(1, 6, 2, 2) * 256
    label = torch.tensor([1, 0]).expand(1, 6, 2)
    with torch.inference_mode():
        together = decode(ours, embedding, embed_points(ours.prompt_encoder, xy, label)).filters
        xy[:, 1:] = 3.0
        other_company = decode(ours, embedding, embed_points(ours.prompt_encoder, xy, label)).filters
    assert torch.equal(together[:, 0], other_company[:, 0])
    assert not torch.allclose(together[:, 1], other_company[:, 1])


def test_the_class_token_is_decoded_with_the_others_and_trained_through() -> None:
    sam = stir(Sam("vit_mini", class_count=3))
    embedding, xy = torch.randn(1, 256, 16, 16), torch.rand(1, 4, 1, 2) * 256
    decoded = decode(sam, embedding, embed_points(sam.prompt_encoder, xy, torch.ones(1, 4, 1)))
    assert decoded.class_logits is not None
    assert decoded.class_logits.shape == (1, 4, 3)
    decoded.class_logits.sum().backward()
    token: Any = sam.mask_decoder.cls_token
    assert token.weight.grad.abs().max() > 0


def test_a_negative_point_changes_the_mask_and_a_missing_one_is_padding(pair: tuple[Any, Any, Sam]) -> None:
    _, _, ours = pair
    embedding, xy = torch.randn(1, 256, 16, 16), torch.rand(1, 1, 2, 2) * 256
    with torch.inference_mode():
        filters = [
            decode(ours, embedding, embed_points(ours.prompt_encoder, xy, torch.tensor([[label]]))).filters
            for label in ([1, 0], [1, -1])
        ]
        moved = xy.clone()
        moved[..., 1, :] = 7.0
        padding = decode(ours, embedding, embed_points(ours.prompt_encoder, moved, torch.tensor([[[1, -1]]])))
    assert not torch.allclose(filters[0], filters[1])
    assert torch.equal(padding.filters, filters[1])


def test_the_stand_in_for_torchvisions_nms_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], dtype=torch.float32)
    nms = load("torchvision.ops").nms
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist() == [1, 2]
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.9).tolist() == [1, 2, 0]


def test_half_precision_leaves_places_exact(pair: tuple[Any, Any, Sam]) -> None:
    _, _, ours = pair
    xy, label = torch.rand(1, 9, 2, 2) * 256, torch.ones(1, 9, 2)
    exact = embed_points(ours.prompt_encoder, xy, label), ours.image_pe()
    with torch.autocast("cpu", torch.bfloat16):
        half = embed_points(ours.prompt_encoder, xy, label), ours.image_pe()
    assert all(torch.equal(expected, actual) for expected, actual in zip(exact, half, strict=True))
