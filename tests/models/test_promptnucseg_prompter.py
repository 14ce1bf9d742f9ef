"""The prompter: its anchors, its parameter names, and how its output becomes one point per nucleus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.nets import stir
from wsi_nuc.errors import ModelError
from wsi_nuc.models.nms import point_nms
from wsi_nuc.models.promptnucseg.crops import DecodingRule, decode_points
from wsi_nuc.models.promptnucseg.net import PrompterNet, Proposed, anchor_grid
from wsi_nuc.models.promptnucseg.pyramid import FeaturePyramid
from wsi_nuc.models.promptnucseg.settings import PrompterSettings, UseSettings

TINY = PrompterSettings("convnext_atto", channels=32)
RULE = DecodingRule(nms_radius_px=0, mask_filter=False)


def _prompter(settings_: PrompterSettings = TINY, classes: int = 2) -> PrompterNet:
    torch.manual_seed(0)
    net = PrompterNet(settings_, classes)
    stir(net)
    return net


@given(height=st.integers(1, 90), width=st.integers(1, 90), space=st.integers(1, 20))
def test_anchors_cover_the_image_evenly_and_lie_inside(height: int, width: int, space: int) -> None:
    grid = anchor_grid((height, width), space, torch.device("cpu"))
    assert grid.shape == (-(-height // space), -(-width // space), 2)
    for axis, length in ((0, width), (1, height)):
        line = grid[..., axis].unique()
        assert 0 < line[0] <= space / 2
        assert line[-1] < length
        assert bool((line.diff() == space).all())


def test_parameters_have_the_names_of_the_released_checkpoints() -> None:
    names = set(_prompter().state_dict())
    known = {
        "backbone.backbone.stem.0.weight",
        "backbone.backbone.stages.3.blocks.1.mlp.fc2.bias",
        "backbone.neck.lateral_convs.3.conv.weight",
        "backbone.neck.fpn_convs.2.conv.bias",
        "backbone.neck1.lateral_convs.3.conv.weight",
        "backbone.neck1.fpn_convs.0.conv.weight",
        "conv.weight",
        *(f"{head}_head.layers.{i}.weight" for head in ("reg", "cls") for i in (0, 3)),
        *(f"deform_layer.layers.{i}.bias" for i in (0, 3)),
        *(f"mask_head.{i}.weight" for i in (0, 1, 3)),
        "mask_head.1.running_var",
    }
    assert known <= names
    tops = {name.split(".")[0] for name in names}
    assert tops == {"backbone", "deform_layer", "reg_head", "cls_head", "conv", "mask_head"}
    assert not any("head" in name or "norm_pre" in name for name in names if name.startswith("backbone"))


@pytest.mark.parametrize(("levels", "space"), [(3, 8), (4, 16), (5, 16), (6, 32)])
def test_any_pyramid_gives_one_proposal_per_anchor(levels: int, space: int) -> None:
    net = _prompter(PrompterSettings("convnext_atto", levels=levels, channels=32, space_px=space))
    with torch.inference_mode():
        out = net(torch.randn(2, 3, 96, 160), (96, 160))
    count = (96 // space) * (160 // space)
    assert out.xy.shape == (2, count, 2)
    assert out.logits.shape == (2, count, 3)
    assert out.mask_logits is not None
    assert out.mask_logits.shape == (2, 1, 26, 42)  # stride 4, plus the frame that the last convolution adds


def test_levels_beyond_the_backbone_are_strided_convolutions_of_its_last_map() -> None:
    torch.manual_seed(0)
    pyramid = FeaturePyramid([2, 3], channels=4, levels=4)
    maps = [torch.randn(1, 2, 8, 8), torch.randn(1, 3, 4, 4)]
    out = pyramid(maps)
    assert [tuple(level.shape[2:]) for level in out] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    third = pyramid.fpn_convs[2](maps[1])
    assert torch.equal(out[2], third)
    assert torch.equal(out[3], pyramid.fpn_convs[3](third))


def test_without_offsets_the_points_are_the_anchors() -> None:
    net = _prompter()
    with torch.no_grad():
        for head in (net.deform_layer, net.reg_head):
            for parameter in head.layers[3].parameters():
                parameter.zero_()
        out = net(torch.randn(1, 3, 64, 64), (64, 64), with_mask=False)
    assert torch.equal(out.xy[0], anchor_grid((64, 64), 8, torch.device("cpu")).flatten(0, 1))
    assert out.mask_logits is None


def test_all_levels_are_sampled_at_the_deformed_anchor() -> None:
    """If every anchor moves by exactly one step, each sees what its neighbour saw."""
    net = _prompter()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        last = net.deform_layer.layers[3]
        last.weight.zero_()
        last.bias.zero_()
        still = net(pixels, (64, 64)).logits.view(8, 8, 3)
        last.bias.copy_(torch.tensor([8.0, 0.0]))
        moved = net(pixels, (64, 64)).logits.view(8, 8, 3)
    # The 3 x 3 convolution over the anchors mixes neighbouring columns, so only those away from both sides agree.
    assert torch.allclose(moved[:, 1:6], still[:, 2:7], atol=1e-4)
    assert not torch.allclose(moved[:, 1:6], still[:, 1:6], atol=1e-2)


@pytest.mark.parametrize("name", ["no_such_net", "vit_tiny_patch16_224"])
def test_a_backbone_that_cannot_serve_is_refused_by_name(name: str) -> None:
    with pytest.raises(ModelError, match=name):
        PrompterNet(PrompterSettings(name), 2)


def _proposed(xy: list[list[float]], probs: list[list[float]], mask: torch.Tensor | None = None) -> Proposed:
    return Proposed(torch.tensor([xy]), torch.tensor([probs]).log(), mask, (20, 30))


def test_background_is_dropped_and_points_stay_in_the_image() -> None:
    proposed = _proposed(
        [[-4.0, 3.0], [99.0, 99.0], [5.0, 5.0]], [[0.6, 0.2, 0.2], [0.3, 0.5, 0.2], [0.2, 0.2, 0.6]]
    )
    prompts = decode_points(proposed, (20, 30), RULE)
    assert sorted(map(tuple, prompts.xy_tile.tolist())) == [(0.5, 3.5), (29.5, 19.5)]
    assert prompts.score.tolist() == pytest.approx([0.6, 0.5])
    assert prompts.class_probs[0].tolist() == pytest.approx([0.75, 0.25])


def test_the_mask_filter_drops_points_on_background_and_only_when_asked_for() -> None:
    mask = torch.full((1, 1, 20, 30), -1.0)
    mask[..., 15:] = 1.0
    proposed = _proposed([[4.0, 4.0], [25.0, 4.0]], [[0.9, 0.1], [0.8, 0.2]], mask)
    assert len(decode_points(proposed, (20, 30), RULE)) == 2
    kept = decode_points(proposed, (20, 30), DecodingRule(0, mask_filter=True))
    assert kept.xy_tile.tolist() == [[25.5, 4.5]]


@settings(deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=40),
    radius=st.floats(0.5, 20),
)
def test_point_nms_is_the_greedy_loop(points: list[tuple[int, int]], radius: float) -> None:
    xy = np.array(points, np.float32).reshape(-1, 2)
    kept: list[int] = []
    for i, point in enumerate(xy):
        if all(np.hypot(*(point - xy[j])) > radius for j in kept):
            kept.append(i)
    assert point_nms(xy, radius).tolist() == kept


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), images=st.integers(1, 3))
def test_points_of_an_image_do_not_depend_on_the_other_images(seed: int, images: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    xy, logits = (
        torch.rand(images, 30, 2, generator=generator) * 20,
        torch.randn(images, 30, 3, generator=generator),
    )
    rule = DecodingRule(4.0, mask_filter=False)
    together = decode_points(Proposed(xy, logits, None, (20, 20)), (20, 20), rule)
    for i in range(images):
        alone = decode_points(Proposed(xy[i : i + 1], logits[i : i + 1], None, (20, 20)), (20, 20), rule)
        of_image = together.select(together.row == i)
        assert np.array_equal(of_image.xy_tile, alone.xy_tile)
        assert np.array_equal(of_image.class_probs, alone.class_probs)


def test_a_threshold_takes_points_that_background_outweighs_and_parity_never_has_one() -> None:
    logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.4, 0.6], [0.0, 0.0, 3.0]]])
    proposed = Proposed(torch.tensor([[[10.0, 10.0], [40.0, 40.0], [70.0, 70.0]]]), logits, None, (96, 96))
    use = UseSettings(mask_filter=False, threshold=0.5)
    counts = {
        len(decode_points(proposed, (96, 96), DecodingRule.of(use))),
        len(decode_points(proposed, (96, 96), DecodingRule.of(replace(use, threshold=0.95)))),
    }
    assert counts == {2, 0}
    for argmax in (replace(use, mode="parity"), replace(use, threshold=None)):
        assert decode_points(proposed, (96, 96), DecodingRule.of(argmax)).xy_tile.tolist() == [[10.5, 10.5]]
