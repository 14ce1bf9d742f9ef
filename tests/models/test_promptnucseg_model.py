"""PromptNucSeg as a model of the pipeline: masks lie where they belong, and a result depends on its tile alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.looking import propose, segment
from tests.models.nets import random_batch, stir, tiny_settings
from wsi_nuc.errors import ModelError, UsageError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import NucleiModel, check_geometry
from wsi_nuc.models.promptnucseg.build import assemble, build_net, load_file, save_net, spec_of, spec_of_file
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet, expected_shapes
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import Settings, UseSettings
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.sam import decoder
from wsi_nuc.models.sam.decoder import Decoded, decode, embed_points
from wsi_nuc.models.sam.model import encode
from wsi_nuc.models.torch_ops import chunks, normalise
from wsi_nuc.models.weights import open_checkpoint, read_info
from wsi_nuc.types import Bool, Box, MaskCrops, Prompts, Tile, TileBatch


def _net(settings: Settings) -> PromptNucSegNet:
    torch.manual_seed(0)
    net = PromptNucSegNet(settings)
    stir(net)
    return net


def _model(settings: Settings, net: PromptNucSegNet | None = None) -> NucleiModel:
    return assemble(net or _net(settings), settings, "cpu", spec_of(settings, "0" * 64))


def _prompts(batch: TileBatch, count: int, seed: int = 0) -> Prompts:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, batch.rgb.shape[1], (count, 2)).astype(np.float32)
    rows = np.sort(rng.integers(0, len(batch.rgb), count))
    return Prompts(xy, rng.uniform(size=count).astype(np.float32), np.full((count, 2), 0.5, np.float32), rows)


def _whole_tile(crops: list[MaskCrops], side: int) -> dict[int, Bool]:
    """The mask of each prompt on its whole tile."""
    masks = {}
    for group in crops:
        for mask, (x, y), prompt in zip(group.mask, group.origin_tile, group.prompt, strict=True):
            masks[int(prompt)] = np.zeros((side + 256, side + 256), np.bool_)
            masks[int(prompt)][y : y + len(mask), x : x + len(mask)] = mask
    return masks


@pytest.fixture(scope="module")
def net() -> PromptNucSegNet:
    return _net(tiny_settings())


def _decoded(net: PromptNucSegNet, batch: TileBatch, prompts: Prompts) -> Decoded:
    """All prompts on the first tile by plain calls."""
    embedding = encode(net.segmentor.image_encoder, normalise(torch.from_numpy(batch.rgb)))
    xy, label = torch.from_numpy(prompts.xy_tile)[None, :, None], torch.ones(1, len(prompts), 1)
    return decode(net.segmentor, embedding, embed_points(net.segmentor.prompt_encoder, xy, label))


def _with_small_masks(net: PromptNucSegNet, batch: TileBatch, prompts: Prompts) -> PromptNucSegNet:
    """A random network's mask is the whole image or nothing; a fixed filter with an offset leaves a pixel in
    200."""
    net = build_net(tiny_settings(), {name: tensor.clone() for name, tensor in net.state_dict().items()})
    last = net.segmentor.mask_decoder.output_hypernetworks_mlps[0].layers[2]
    last.weight.zero_()
    with torch.inference_mode():
        image = _decoded(net, batch, prompts).image[0]
        filters = last.bias.expand(len(prompts), -1)
        level = decoder.full_logits(net.segmentor.mask_decoder, image, torch.ones_like(filters))
        logits = decoder.full_logits(net.segmentor.mask_decoder, image, filters)
        offset = (logits / level)[level > 0.1].quantile(0.995)
    last.bias.sub_(offset)
    return net


def test_the_plain_computation_gives_the_same_masks(net: PromptNucSegNet) -> None:
    """In one window, every part is called plainly and in full, and compared with the planned, cropped and batched
    way."""
    batch = random_batch(1, 256)
    prompts = _prompts(batch, 20)
    net = _with_small_masks(net, batch, prompts)
    settings = tiny_settings(largest_nucleus_px=256, negatives=0)
    crops = list(segment(_model(settings, net), batch, prompts, range(20)))
    with torch.inference_mode():
        decoded = _decoded(net, batch, prompts)
        logits = decoder.full_logits(net.segmentor.mask_decoder, decoded.image[0], decoded.filters[0])
        plain = (decoder.enlarge(logits) > 0).numpy()
    assert sorted(prompt for group in crops for prompt in group.prompt) == list(range(20))
    sizes = {group.mask.shape[1]: group.mask.any((1, 2)).sum() for group in crops}
    assert sizes[80] > 1
    assert sizes[256] > 1
    for group in crops:
        for mask, (x, y), prompt in zip(group.mask, group.origin_tile, group.prompt, strict=True):
            side = len(mask)
            # The two pixels at the edge of a neighbourhood are interpolated towards logits that it does not have.
            inner = slice(0, side) if side == 256 else slice(2, side - 2)
            expected = plain[prompt][y : y + side, x : x + side][inner, inner]
            assert np.mean(mask[inner, inner] == expected) > 0.9999
        iou = decoded.predicted_iou[0].numpy()[group.prompt]
        assert np.allclose(group.predicted_iou, iou, atol=1e-4)
        assert np.allclose(group.score, prompts.score[group.prompt] * np.clip(iou, 0, 1), atol=1e-4)


def test_a_tile_gets_the_same_result_alone_in_company_and_for_any_choice_of_prompts(net: PromptNucSegNet) -> None:
    model = _model(tiny_settings(), net)
    batch = random_batch(3, 300)
    prompts = propose(model, batch)
    thinned = prompts.select(np.arange(0, len(prompts), 80))
    together = _whole_tile(list(segment(model, batch, thinned, range(len(thinned)))), 300)
    for row in range(3):
        alone = TileBatch(batch.rgb[row : row + 1], batch.tiles[row : row + 1])
        own = propose(model, alone)
        expected = prompts.select(prompts.row == row)
        assert np.array_equal(own.xy_tile, expected.xy_tile)
        assert np.array_equal(own.score, expected.score)
        picked = np.flatnonzero(thinned.row == row)
        here = thinned.select(picked)
        here = Prompts(here.xy_tile, here.score, here.class_probs, np.zeros_like(here.row))
        wanted = list(range(0, len(here), 2))
        masks_alone = _whole_tile(list(segment(model, alone, here, wanted)), 300)
        for i in wanted:
            assert np.array_equal(masks_alone[i], together[int(picked[i])])


def test_no_mask_is_larger_than_promised_and_all_lie_around_their_prompts(net: PromptNucSegNet) -> None:
    batch = random_batch(1, 400)
    prompts = _prompts(batch, 30)
    for limit in (40, 96):
        for group in segment(_model(tiny_settings(largest_nucleus_px=limit), net), batch, prompts, range(30)):
            assert group.mask.shape[1] <= limit
            inside = prompts.xy_tile[group.prompt] - group.origin_tile
            assert bool(((inside >= 0) & (inside <= group.mask.shape[1])).all())
            assert set(np.unique(group.mask)) <= {0, 1}


def test_a_mask_beyond_its_neighbourhood_is_decoded_whole(net: PromptNucSegNet) -> None:
    batch = random_batch(1, 256)
    prompts = _prompts(batch, 16)
    settings = [tiny_settings(largest_nucleus_px=256, neighbourhood_tokens=n) for n in (3, 16)]
    small, full = (_whole_tile(list(segment(_model(s, net), batch, prompts, range(16))), 256) for s in settings)
    outside = [i for i in range(16) if np.ptp(np.flatnonzero(small[i].any(0)), axis=0) > 48 if small[i].any()]
    assert len(outside) > 3
    assert all(np.array_equal(small[i], full[i]) for i in outside)


def test_nothing_wanted_is_nothing_decoded(net: PromptNucSegNet) -> None:
    batch = random_batch(1, 256)
    assert list(segment(_model(tiny_settings(), net), batch, _prompts(batch, 5), [])) == []


def test_a_shared_encoder_proposes_in_all_windows_once_and_serves_the_segmentor() -> None:
    settings = tiny_settings(shared=True, class_token=True)
    net = _net(settings)
    calls = []
    net.segmentor.image_encoder.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    model = _model(settings, net)
    batch = random_batch(1, 400)
    look = model.look(batch)
    prompts = look.prompts.get()
    assert bool(((prompts.xy_tile >= 0) & (prompts.xy_tile <= 400)).all())
    assert len(calls) == 4
    crops = list(look.prompted(prompts).masks(range(0, len(prompts), 100)).get())
    assert len(calls) == 4
    for group in crops:
        assert np.allclose(group.class_probs.sum(1), 1, atol=1e-5)
        assert not np.allclose(group.class_probs, prompts.class_probs[group.prompt])


def test_the_prompter_and_the_encoder_learn_from_both_ends_where_shared() -> None:
    net = _net(tiny_settings(shared=True))
    embedding = encode(net.segmentor.image_encoder, torch.randn(1, 3, 256, 256))
    net.prompter(embedding, (256, 256)).logits.sum().backward()
    weight = net.segmentor.image_encoder.patch_embed.proj.weight
    assert weight.grad.abs().max() > 0


def test_an_image_smaller_than_a_window_is_filled_up(net: PromptNucSegNet) -> None:
    batch = random_batch(1, 100)
    model = _model(tiny_settings(), net)
    prompts = propose(model, batch)
    assert len(prompts) > 0
    assert prompts.xy_tile.max() <= 100
    crops = list(segment(model, batch, prompts, range(0, len(prompts), 20)))
    assert sum(len(group.prompt) for group in crops) == len(range(0, len(prompts), 20))


def test_half_precision_changes_little(net: PromptNucSegNet) -> None:
    batch = random_batch(1, 256)
    prompts = _prompts(batch, 16)
    single, half = (
        _whole_tile(list(segment(_model(tiny_settings(precision=p), net), batch, prompts, range(16))), 256)
        for p in ("fp32", "bf16")
    )
    agree = [np.mean(single[i] == half[i]) for i in range(16)]
    assert np.median(agree) > 0.98


def test_a_saved_model_loads_to_the_same_result(net: PromptNucSegNet, tmp_path: Path) -> None:
    settings, path = tiny_settings(), tmp_path / "tiny.safetensors"
    save_net(path, net, settings, {"training_data": "noise", "metrics": {"pq": 0.5}})
    info = read_info(path)
    assert info.details["metrics"] == {"pq": 0.5}
    assert dict(info.shapes) == expected_shapes(settings)
    spec = spec_of_file(info, {})
    check_geometry(spec)
    assert (spec.classes, spec.mpp, spec.weights_sha256) == (("round", "long"), 0.25, info.sha256)
    loaded, batch = load_file(open_checkpoint(path), "cpu", {}), random_batch(1, 256)
    expected, actual = propose(_model(settings, net), batch), propose(loaded, batch)
    assert np.array_equal(expected.xy_tile, actual.xy_tile)
    for before, after in zip(
        segment(_model(settings, net), batch, expected, [0, 5]),
        segment(loaded, batch, expected, [0, 5]),
        strict=True,
    ):
        assert np.array_equal(before.mask, after.mask)


def test_weights_that_do_not_fit_are_listed_before_a_tensor_is_read(net: PromptNucSegNet, tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    lacking = build_net(tiny_settings(), net.state_dict())
    del lacking.prompter.reg_head
    save_net(path, lacking, tiny_settings())
    with pytest.raises(ModelError, match=r"missing: prompter\.reg_head"):
        spec_of_file(read_info(path), {})
    three = Settings(("a", "b", "c"), 0.25, tiny_settings().prompter, tiny_settings().segmentor)
    save_net(path, net, three)
    with pytest.raises(ModelError, match="for 2 classes, its header names 3"):
        spec_of_file(read_info(path), {})


def test_another_normalisation_of_the_pixels_is_refused(net: PromptNucSegNet, tmp_path: Path) -> None:
    save_net(tmp_path / "net.safetensors", net, tiny_settings())
    info = read_info(tmp_path / "net.safetensors")
    changed = replace(info, details={**info.details, "normalisation": {"mean": [0, 0, 0], "std": [255, 255, 255]}})
    with pytest.raises(ModelError, match="its pixels are normalised by"):
        spec_of_file(changed, {})
    assert spec_of_file(info, {}).mpp == tiny_settings().mpp


def test_nan_weights_are_named(net: PromptNucSegNet, tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    broken = build_net(tiny_settings(), {name: t.clone() for name, t in net.state_dict().items()})
    broken.prompter.conv.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"prompter\.conv\.bias"):
        save_net(path, broken, tiny_settings())


def test_a_missing_device_is_a_usage_error() -> None:
    if torch.cuda.is_available():
        assert Runner.on("cuda", UseSettings()).device.bf16
    else:
        with pytest.raises(UsageError, match="cuda"):
            Runner.on("cuda", UseSettings())


def test_calls_are_always_full() -> None:
    parts = list(chunks(list(range(7)), 3))
    assert [len(part) for part, _ in parts] == [3, 3, 3]
    assert [item for part, real in parts for item in part[:real]] == list(range(7))


def test_a_file_runs_through_the_registry_and_the_pipelines_prediction(
    net: PromptNucSegNet, tmp_path: Path
) -> None:
    path, settings = tmp_path / "tiny.safetensors", tiny_settings(windows=1)
    save_net(path, net, settings)
    model = load_model(str(path))
    halo, core = model.spec.halo_px, model.spec.core_px
    side = core + 2 * halo
    rgb, read = random_batch(1, side).rgb, Box(0, 0, side, side)
    batch = TileBatch(rgb, (Tile(7, Box(halo, halo, side - halo, side - halo), read),))
    nuclei, own = predict(model, batch)
    assert len(nuclei) == len(own)
    assert len(nuclei) > 0
    assert set(nuclei.tile.tolist()) == {7}
    near = model.spec.margin_px
    assert bool(((nuclei.prompt_xy >= halo - near) & (nuclei.prompt_xy < side - halo + near)).all())
