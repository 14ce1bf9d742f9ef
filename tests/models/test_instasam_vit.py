"""InstaSAM over SAM: the adapters against the paper's formula, and the masks and maps against segment-anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.models.nets import stir
from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.net import Asked
from wsi_nuc.models.instasam.build import network
from wsi_nuc.models.instasam.encoder import high_frequencies
from wsi_nuc.models.instasam.settings import MAPS, VIT, Settings
from wsi_nuc.models.instasam.vit import NucleiDecoder, VitNet, VitSeen, mixed, prompts_of
from wsi_nuc.models.promptnucseg.windows import Window
from wsi_nuc.models.sam.decoder import NEGATIVE, NO_POINT, POSITIVE
from wsi_nuc.models.sam.model import SIZES, encode

CLASSES = ("round", "long")


def settings(**changes: Any) -> Settings:
    return Settings(CLASSES, 0.25, **{"encoder": "vit_mini", **changes})


def net_of(**changes: Any) -> VitNet:
    """SAM with random weights, in which each matters."""
    torch.manual_seed(0)
    net = VitNet(settings(**changes))
    stir(net.sam, scale=0.1)
    net.start_nuclei_decoder()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def net() -> VitNet:
    return net_of(window_px=256)


@pytest.fixture(scope="module")
def adapted() -> VitNet:
    made = net_of()
    stir(made.adapters, seed=1)
    torch.nn.init.normal_(made.adapters.up.weight, std=0.3)
    return made


def pixels(height: int, width: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    coarse = torch.randn(batch, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, scale_factor=16.0, mode="bilinear")


def asked(*xy: tuple[float, float], row: int = 0) -> Asked:
    points = torch.tensor(xy, dtype=torch.float32)
    return Asked(torch.full((len(xy),), row), points, torch.full_like(points, torch.nan))


DOTS = ((30.0, 40.0), (200.5, 60.0), (128.0, 128.0), (90.0, 220.0), (140.0, 30.0), (10.0, 250.0))


def test_sizes_are_those_of_sam() -> None:
    assert set(VIT) == set(SIZES)


def test_new_adapters_change_nothing(net: VitNet) -> None:
    image = pixels(256, 256)
    with_them, without = net(image), net(image, adapted=False)
    assert torch.equal(with_them.coarse, without.coarse)
    assert torch.equal(net.masks(with_them, asked(*DOTS))[0], net.masks(without, asked(*DOTS))[0])


def test_adapters_are_equation_1_before_each_block_of_segment_anything(adapted: VitNet) -> None:
    image, encoder, parts = pixels(256, 256), adapted.sam.image_encoder, adapted.adapters
    f_pe = parts.embed(encoder.patch_embed(image))  # type: ignore[operator]
    f_hfc = parts.high(high_frequencies(image, 0.25)).permute(0, 2, 3, 1)
    hooks = []
    for block, tune in zip(encoder.blocks, parts.tune, strict=True):  # type: ignore[arg-type]
        added = F.linear(F.gelu(tune(f_hfc + f_pe)), parts.up.weight, parts.up.bias)
        hooks.append(block.register_forward_pre_hook(lambda _, tokens, a=added: (tokens[0] + a,)))
    expected = encoder(image)
    for hook in hooks:
        hook.remove()
    assert torch.allclose(adapted(image).embedding, expected, atol=1e-4)
    assert torch.allclose(encode(encoder, image), adapted(image, adapted=False).embedding)
    assert not torch.allclose(encode(encoder, image), expected, atol=1e-2)


def test_one_tuning_layer_per_block_and_one_shared_projection(net: VitNet) -> None:
    names = [name for name, _ in net.adapters.named_parameters() if name.endswith("weight")]
    assert sorted(names) == ["embed.weight", "high.weight", "tune.0.weight", "tune.1.weight", "up.weight"]
    assert net.adapters.tune[0].weight.shape == (32, 32)
    assert net.adapters.up.weight.shape == (SIZES["vit_mini"].width, 32)


def test_negatives_are_four_other_dots(net: VitNet) -> None:
    rng = np.random.default_rng(3)
    xy = rng.uniform(0, 256, (12, 2)).astype(np.float32)
    own, others = np.arange(2, 9), np.arange(12)
    points, label = prompts_of(xy, own, others)
    assert (label == [POSITIVE] + [NEGATIVE] * 4).all()
    assert np.array_equal(points[:, 0], xy[own])
    for row in points:
        assert len(np.unique(row, axis=0)) == 5
        assert all((xy == point).all(1).any() for point in row)
    assert len(np.unique(points[:, 1:].reshape(-1, 2), axis=0)) > 6
    again, _ = prompts_of(xy, own, others)
    assert np.array_equal(points, again)


def test_missing_negatives_are_no_points() -> None:
    xy = np.array([[5, 5], [50, 60]], np.float32)
    points, label = prompts_of(xy, np.array([0]), np.array([0, 1]))
    assert label.tolist() == [[POSITIVE, NEGATIVE, NO_POINT, NO_POINT, NO_POINT]]
    assert points[0, 1].tolist() == [50, 60]
    assert prompts_of(xy, np.array([0]), np.array([0]))[1].tolist() == [[POSITIVE] + [NO_POINT] * 4]


def test_masks_are_those_of_segment_anything(net: VitNet) -> None:
    image = pixels(256, 256)
    seen = net(image)
    logits, origin = net.masks(seen, asked(*DOTS))
    xy, own = np.array(DOTS, np.float32), np.arange(len(DOTS))
    points, label = prompts_of(xy, own, own)
    sam: Any = net.sam
    sparse, dense = sam.prompt_encoder(
        points=(torch.from_numpy(points) - 0.5, torch.from_numpy(label)), boxes=None, masks=None
    )
    low, _ = sam.mask_decoder(
        image_embeddings=seen.embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    expected = F.interpolate(low, (256, 256), mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(logits, expected, atol=1e-4)
    assert expected.std() > 0.05
    assert origin.tolist() == [[0, 0]] * len(DOTS)
    assert torch.allclose(net.masks(seen, asked(*DOTS), at_once=2)[0], logits, atol=1e-4)


def test_a_smaller_neighbourhood_shows_the_same_mask(net: VitNet, adapted: VitNet) -> None:
    near = net_of(window_px=128)
    near.load_state_dict(net.state_dict())
    image = pixels(256, 256)
    whole, _ = net.masks(net(image), asked(*DOTS))
    logits, origin = near.masks(near(image), asked(*DOTS))
    for n, (x, y) in enumerate(origin.tolist()):
        inside = DOTS[n][0] - x, DOTS[n][1] - y
        assert all(0 <= place < 128 for place in inside)
        # The outermost logits of the neighbourhood have no neighbours to be mixed with.
        expected = whole[n, y + 2 : y + 126, x + 2 : x + 126]
        assert torch.allclose(logits[n, 2:126, 2:126], expected, atol=1e-4)


def test_the_nuclei_decoder_starts_with_sams_weights(net: VitNet) -> None:
    sam, own = net.sam.mask_decoder.state_dict(), net.nuclei.state_dict()
    for name in own:
        if name.startswith(("transformer.", "output_upscaling.")):
            assert torch.equal(own[name], sam[name])
    assert torch.equal(own["map_tokens"][0], sam["mask_tokens.weight"][0])
    maps = net(pixels(256, 256)).maps
    assert maps[:, 0].std() > 0
    assert not maps[:, 1:].any()


@pytest.mark.parametrize(("decoder", "trained"), [("all", None), ("tokens", ("map_", "class_"))])
def test_what_is_trained(decoder: str, trained: tuple[str, ...] | None) -> None:
    net = VitNet(settings(decoder=decoder))
    names = {name for name, _ in net.named_parameters() if not name.startswith("sam.")}
    if trained is not None:
        parts = tuple(f"nuclei.{part}" for part in trained)
        names = {name for name in names if name.startswith(("adapters.", *parts))}
        assert {name.split(".")[1] for name in names if name.startswith("nuclei.")} == {
            "map_tokens", "map_mlps", "class_tokens", "class_mlps",
        }  # fmt: skip
    assert set(net.trained()) == names


@pytest.mark.parametrize(("decoder", "count"), [("all", 4_012_704), ("tokens", 647_488)])
def test_few_weights_of_vit_b_are_trained(decoder: str, count: int) -> None:
    """4.2 % and 0.7 %."""
    with torch.device("meta"):
        net = network(Settings(("nucleus",), 0.25, encoder="vit_b", decoder=decoder))
    assert sum(weight.numel() for weight in net.trained().values()) == count
    assert sum(weight.numel() for weight in net.parameters()) == 94_749_904


def trained_look(net: VitNet) -> VitNet:
    """With maps that differ from place to place."""
    made = net_of()
    made.load_state_dict(net.state_dict())
    for mlp in (*made.nuclei.map_mlps, *made.nuclei.class_mlps):
        torch.nn.init.normal_(mlp.layers[-1].weight, std=0.3)  # type: ignore[union-attr,index]
    return made


def test_larger_images_are_seen_in_windows(adapted: VitNet) -> None:
    net = trained_look(adapted)
    image = pixels(256, 448)
    seen, left, right = net(image), net(image[..., :256]), net(image[..., 192:])
    assert [(w.x0, w.y0) for w in seen.windows] == [(0, 0), (192, 0)]
    assert seen.maps.shape == (1, MAPS, 256, 448)
    assert seen.classes.shape == (1, len(CLASSES), 64, 112)
    near = {"atol": 1e-5}
    assert torch.allclose(seen.coarse[..., :48], left.coarse[..., :48], **near)
    assert torch.allclose(seen.coarse[..., 64:], right.coarse[..., 16:], **near)
    # In the overlap, 16 cells wide, the weights rise evenly.
    share = (torch.arange(16) + 0.5) / 16
    expected = left.coarse[..., 48:] * (1 - share) + right.coarse[..., :16] * share
    assert torch.allclose(seen.coarse[..., 48:64], expected, **near)


def test_equal_windows_mix_to_the_same_everywhere() -> None:
    windows = [Window(0, y, x) for y in (0, 192, 224) for x in (0, 160)]
    out = mixed(torch.full((6, 1, 64, 64), 3.0), windows, (1, 120, 104))
    assert torch.allclose(out, torch.tensor(3.0))


def test_a_mask_is_made_where_its_dot_is_most_central(net: VitNet) -> None:
    image = pixels(256, 448)
    dots = ((100.0, 90.0), (223.0, 50.0), (225.0, 60.0), (300.0, 200.0), (430.0, 10.0))
    logits, origin = net.masks(net(image), asked(*dots))
    assert origin[:, 0].tolist() == [0, 0, 192, 192, 192]
    # The second dot belongs to the left window, and negatives of the right one are drawn from it too.
    xy = np.array([(x - 192, y) for x, y in dots], np.float32)
    points, label = prompts_of(xy, np.array([2, 3, 4]), np.array([1, 2, 3, 4]))
    expected, _ = net._decoded(net(image[..., 192:]).embedding[0], points, label)
    assert torch.allclose(logits[2:], expected, atol=1e-4)


def test_rows_of_a_batch_keep_their_dots(net: VitNet) -> None:
    two = torch.cat([pixels(256, 256, seed=1), pixels(256, 256, seed=2)])
    both = Asked(torch.tensor([1, 0] * 3), torch.tensor(DOTS), torch.full((6, 2), torch.nan))
    logits, _ = net.masks(net(two), both)
    for row in (0, 1):
        chosen = torch.nonzero(both.row == row)[:, 0]
        alone = Asked(torch.zeros(3, dtype=torch.int64), both.xy[chosen], both.negative[chosen])
        expected, _ = net.masks(net(two[row : row + 1]), alone)
        assert torch.allclose(logits[chosen], expected, atol=1e-4)


def test_smaller_images_are_continued_to_a_window(net: VitNet) -> None:
    seen: VitSeen = net(pixels(128, 160))
    assert seen.maps.shape == (1, MAPS, 128, 160)
    wide = net(F.pad(pixels(128, 160), (0, 96, 0, 128), mode="replicate"))
    assert torch.allclose(seen.coarse, wide.coarse[:, :, :32, :40], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "none"}, "cannot be trained alone"),
        ({"encoder": "compact", "decoder": "tokens"}, "cannot be trained alone"),
        ({"window_px": 100}, "out of range"),
        ({"window_px": 512}, "out of range"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        settings(**changes)


def test_the_decoder_copies_and_does_not_share(net: VitNet) -> None:
    made = NucleiDecoder(net.sam.mask_decoder, 1)
    own = {tensor.data_ptr() for tensor in made.parameters()}
    assert not own & {tensor.data_ptr() for tensor in net.sam.parameters()}


def test_the_mask_of_a_dot_does_not_depend_on_which_others_are_wanted(net: VitNet) -> None:
    """Negative points come from all dots, so leaving out the masks of some changes nothing for the others."""
    dots = asked(*[(20.0 + 41 * i % 230, 30.0 + 67 * i % 220) for i in range(9)])
    wanted = torch.tensor([1, 2, 6])
    seen = net(pixels(256, 256))
    every, first = net.masks(seen, dots)
    chosen, first_of_chosen = net.masks(seen, dots, wanted=wanted)
    assert torch.allclose(chosen, every[wanted], atol=1e-3)
    assert not torch.allclose(chosen, net.masks(seen, dots.select(wanted))[0], atol=1e-3)
    assert torch.equal(first_of_chosen, first[wanted])
