"""The image encoder gives the same as segment-anything's, with and without padded windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.nets import official_encoder_at_256, official_sam, reference_norm, stir
from wsi_nuc.models.sam.attention import attend
from wsi_nuc.models.sam.model import Sam, encode, resize_tables
from wsi_nuc.models.torch_ops import load, normalise

TOLERANCE = 1e-4


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    window=st.integers(2, 6),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_sink_is_the_padded_softmax(height: int, width: int, window: int, batch: int, seed: int) -> None:
    image_encoder = load("segment_anything.modeling.image_encoder")
    block = image_encoder.Block(8, 2, norm_layer=reference_norm, use_rel_pos=True, window_size=window)
    stir(block, seed, scale=1.0)
    tokens = torch.randn(batch, height, width, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        actual = tokens + attend(block.attn, block.norm1(tokens), window)
        actual = actual + block.mlp(block.norm2(actual))
        assert torch.allclose(actual, block(tokens), atol=1e-5)


@pytest.mark.parametrize(
    "size",
    [
        "vit_mini",
        pytest.param("vit_b", marks=pytest.mark.slow),
        pytest.param("vit_l", marks=pytest.mark.slow),
        pytest.param("vit_h", marks=pytest.mark.slow),
    ],
)
def test_official_weights_give_the_official_embedding(size: str) -> None:
    official = official_sam(size)
    ours = Sam(size)
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    state = resize_tables(official.state_dict(), shapes)
    ours.load_state_dict(state, strict=True)
    reference = official_encoder_at_256(official, state["image_encoder.pos_embed"])
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = reference(pixels)
        actual = encode(ours.image_encoder, pixels)
    assert expected.abs().max() > 0.5
    assert (actual - expected).abs().max() <= TOLERANCE


def test_images_of_a_batch_do_not_mix() -> None:
    encoder = stir(Sam("vit_mini").image_encoder)
    pixels = torch.randn(3, 3, 256, 256)
    with torch.inference_mode():
        together = encode(encoder, pixels)
        alone = torch.cat([encode(encoder, pixel[None]) for pixel in pixels])
    assert torch.allclose(together, alone, atol=1e-5)


def test_gradients_reach_every_parameter_of_the_encoder() -> None:
    encoder = stir(Sam("vit_mini").image_encoder)
    encode(encoder, torch.randn(1, 3, 256, 256)).square().sum().backward()
    without = [
        name for name, p in encoder.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert without == []


def test_tables_of_the_right_size_pass_through_and_others_keep_their_mean_level() -> None:
    state = {
        "image_encoder.pos_embed": torch.full((1, 64, 64, 5), 3.0),
        "image_encoder.blocks.0.attn.rel_pos_h": torch.full((127, 5), 2.0),
        "image_encoder.blocks.1.attn.rel_pos_w": torch.randn(27, 5),
        "image_encoder.neck.0.weight": torch.randn(4, 5, 1, 1),
    }
    shapes = {
        "image_encoder.pos_embed": (1, 16, 16, 5),
        "image_encoder.blocks.0.attn.rel_pos_h": (31, 5),
        "image_encoder.blocks.1.attn.rel_pos_w": (27, 5),
        "image_encoder.neck.0.weight": (4, 6, 1, 1),
    }
    resized = resize_tables(state, shapes)
    assert torch.allclose(resized["image_encoder.pos_embed"], torch.full((1, 16, 16, 5), 3.0), atol=1e-5)
    assert torch.allclose(resized["image_encoder.blocks.0.attn.rel_pos_h"], torch.full((31, 5), 2.0))
    for untouched in ("image_encoder.blocks.1.attn.rel_pos_w", "image_encoder.neck.0.weight"):
        assert resized[untouched] is state[untouched]


def test_normalised_pixels_are_channels_first_with_imagenet_statistics() -> None:
    rgb = torch.tensor([124, 116, 104], dtype=torch.uint8).expand(2, 4, 6, 3)
    pixels = normalise(rgb)
    assert pixels.shape == (2, 3, 4, 6)
    assert pixels.abs().max() < 0.01
