"""The compact model: what its parts promise each other and the pipeline."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.compact_nets import CLASSES, NET, batch_of, noise, tiny_model, tiny_net, tiny_settings
from tests.models.looking import embed, propose
from wsi_nuc.errors import ModelError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import check_geometry
from wsi_nuc.models.compact.build import save_net
from wsi_nuc.models.compact.net import Asked, CompactNet, PooledClasses, sample
from wsi_nuc.models.compact.network import Network, fused
from wsi_nuc.models.compact.prompter import smoothed
from wsi_nuc.models.compact.segmentor import calibrated, mean_over_masks, nearest_others
from wsi_nuc.models.compact.settings import NetSettings, Settings, UseSettings
from wsi_nuc.models.device import Device
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.types import Box, Tile, TileBatch


def _pixels(seed: int = 0) -> torch.Tensor:
    return normalise(torch.from_numpy(noise(seed))[None])


def test_folded_norms_change_no_map() -> None:
    net = tiny_net()
    with torch.no_grad():
        whole, folded = net(_pixels()), fused(net)(_pixels())
    for name in ("heat", "offset", "classes", "region", "masks"):
        assert torch.allclose(getattr(whole, name), getattr(folded, name), atol=1e-4), name


def test_a_window_holds_what_its_pixels_give_one_by_one() -> None:
    net = tiny_net()
    asked = Asked(torch.zeros(3, dtype=torch.int64), torch.tensor([[40.0, 60.0], [128.5, 90.2], [3.0, 250.0]]),
                  torch.tensor([[50.0, 60.0], [float("nan")] * 2, [9.0, 240.0]]))  # fmt: skip
    with torch.no_grad():
        maps = net(_pixels())
        embedding = net.decoder.embedding(maps.context, asked)
        logits, origin = net.decoder.window(embedding, maps.masks, asked, 16)
        for i in range(3):
            x, y = (origin[i] + torch.tensor([9, 5])).tolist()
            if not (0 <= x < 128 and 0 <= y < 128):
                continue
            prompt = asked.select(torch.tensor([i]))
            pixel = torch.tensor([[[2 * x + 1.0, 2 * y + 1.0]]])
            alone = net.decoder.at(embedding[i : i + 1], maps.masks[0, :, y, x][None, None], pixel, prompt)
            assert torch.allclose(alone[0, 0], logits[i, 5, 9], atol=1e-5)


def test_cells_outside_the_image_are_in_no_mask() -> None:
    net = tiny_net()
    asked = Asked(torch.zeros(1, dtype=torch.int64), torch.tensor([[1.0, 1.0]]), torch.full((1, 2), float("nan")))
    with torch.no_grad():
        maps = net(_pixels())
        logits, origin = net.decoder.window(net.decoder.embedding(maps.context, asked), maps.masks, asked, 16)
    assert origin.tolist() == [[-8, -8]]
    assert (logits[0, :8] < -10).all()
    assert (logits[0, :, :8] < -10).all()


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_sampling_is_bilinear(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.normal(size=(2, 3, 9, 7)).astype(np.float32))
    row = torch.from_numpy(rng.integers(0, 2, 5))
    xy = torch.from_numpy(rng.uniform(0.5, 6.5, (5, 2)).astype(np.float32))
    grid = (2 * xy / torch.tensor([7.0, 9.0]) - 1)[:, None, None]
    wanted = torch.nn.functional.grid_sample(features[row], grid, align_corners=False)[:, :, 0, 0]
    assert torch.allclose(sample(features, row, xy), wanted, atol=1e-5)


@given(seed=st.integers(0, 2**31), count=st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_the_negative_is_the_nearest_other_point(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 100, (count, 2)).astype(np.float32)
    prompts = np.flatnonzero(rng.random(count) < 0.5)
    negative = nearest_others(xy, prompts, np.arange(count))
    for row, i in enumerate(prompts):
        others = np.delete(xy, i, axis=0)
        if not len(others):
            assert np.isnan(negative[row]).all()
            continue
        nearest = np.sqrt(((others - xy[i]) ** 2).sum(1)).min()
        assert np.sqrt(((negative[row] - xy[i]) ** 2).sum()) == pytest.approx(nearest, abs=1e-3)


def test_a_tile_is_predicted_the_same_in_any_company() -> None:
    model = tiny_model(batch=2)
    alone, _ = predict(model, batch_of(noise(1)))
    beside, _ = predict(model, batch_of(noise(2), noise(1)))
    second = beside.select(beside.tile == 1)
    assert len(alone) > 0
    for name in ("xy", "score", "class_probs", "prompt_xy"):
        assert np.array_equal(getattr(alone, name), getattr(second, name)), name


POOLED = replace(NET, class_hidden=5)
ABOUT = {"training_data": [], "metrics": {}}


def saved(file: Path, net: CompactNet, sizes: NetSettings) -> str:
    save_net(file, net, replace(tiny_settings(batch=2), net=sizes), ABOUT)
    return str(file)


def pooled_net(classes: int = len(CLASSES)) -> CompactNet:
    net = tiny_net()
    net.class_head = PooledClasses(POOLED, classes)
    return net


def test_pooled_classes_are_those_of_the_mean_over_the_mask(tmp_path: Path) -> None:
    """The same as when each cell at stride 2 is weighted with the mask on its own."""
    torch.manual_seed(1)
    cells, logits = torch.randn(5, 16, 20), torch.randn(7, 24, 24)
    origin = torch.tensor([[0, 0], [-3, 4], [5, 7], [28, 20], [-12, -11], [1, 0], [4, 3]])
    steps = torch.arange(24)
    x, y = ((origin[:, i, None] + steps) for i in (0, 1))
    outside = ((y < 0) | (y >= 32))[:, :, None] | ((x < 0) | (x >= 40))[:, None, :]
    logits = logits.masked_fill(outside, -20.0)
    near = cells[:, (y // 2).clamp(0, 15)[:, :, None], (x // 2).clamp(0, 19)[:, None, :]]
    weight = logits.sigmoid()
    wanted = (near * weight).sum((2, 3)) / weight.sum((1, 2))
    assert torch.allclose(mean_over_masks(cells, logits, origin), wanted.T, atol=1e-5)


def test_a_file_with_pooled_classes_runs_and_changes_no_nucleus(tmp_path: Path) -> None:
    plain_model = load_model(saved(tmp_path / "plain.safetensors", tiny_net(), NET))
    pooled = load_model(saved(tmp_path / "pooled.safetensors", pooled_net(), POOLED))
    plain, _ = predict(plain_model, batch_of(noise(1)))
    alone, _ = predict(pooled, batch_of(noise(1)))
    beside, _ = predict(pooled, batch_of(noise(2), noise(1)))
    second = beside.select(beside.tile == 1)
    assert len(alone) > 0
    for name in ("xy", "score", "prompt_xy"):
        assert np.array_equal(getattr(alone, name), getattr(plain, name)), name
        assert np.array_equal(getattr(alone, name), getattr(second, name)), name
    assert np.array_equal(alone.class_probs, second.class_probs)
    assert np.allclose(alone.class_probs.sum(1), 1, atol=1e-5)
    assert not np.allclose(alone.class_probs, plain.class_probs)


def test_pooled_classes_of_another_number_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "wrong.safetensors", pooled_net(len(CLASSES) + 1), POOLED)
    with pytest.raises(ModelError, match="4 classes"):
        load_model(file)


def test_masks_stay_within_reach_of_their_points() -> None:
    model = tiny_model()
    nuclei, _ = predict(model, batch_of(noise(3)))
    assert len(nuclei) > 0
    distance = np.abs(nuclei.xy - np.repeat(nuclei.prompt_xy, nuclei.ring_lengths, axis=0)).max()
    assert distance <= model.spec.reach_px
    bounds = nuclei.bounds()
    assert (bounds[:, 2:] - bounds[:, :2]).max() <= model.spec.largest_nucleus_px
    assert np.allclose(nuclei.class_probs.sum(1), 1, atol=1e-4)


def test_points_of_one_nucleus_leave_the_best() -> None:
    """If masks hold everything, any two points within reach lie in each other's mask."""
    net = tiny_net()
    with torch.no_grad():
        last = net.decoder.shapes[-1]
        net.decoder.weights.weight.zero_()
        net.decoder.weights.bias.zero_()
        net.decoder.weights.bias[-last[1] :] = 5.0
    xy = propose(tiny_model(net), batch_of(noise(4))).xy_tile
    assert len(xy) > 1
    apart = np.sqrt(((xy[:, None] - xy[None]) ** 2).sum(2)) + np.eye(len(xy)) * 1e6
    assert apart.min() > UseSettings().window_px / 2


@settings(max_examples=30, deadline=None)
@given(x=st.floats(4, 5), y=st.floats(4, 5), spread=st.floats(0.8, 1.5))
def test_where_a_centre_lies_in_its_cell_matters_less_once_smoothed(x: float, y: float, spread: float) -> None:
    """A round spot centred at (x, y): its hottest cell, relative to that of a spot in the middle of a cell."""

    def hottest(x: float, y: float, smooth: bool) -> float:
        v, u = torch.meshgrid(torch.arange(10) + 0.5, torch.arange(10) + 0.5, indexing="ij")
        heat = torch.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * spread**2))[None]
        return float((smoothed(heat) if smooth else heat[0]).max())

    raw, smooth = (hottest(x, y, how) / hottest(4.5, 4.5, how) for how in (False, True))
    assert raw - 1e-6 <= smooth <= 1 + 1e-6


def test_smoothing_keeps_the_heat_and_its_level() -> None:
    heat = torch.rand(1, 7, 9)
    level = torch.full((1, 5, 5), 0.3)
    assert torch.allclose(smoothed(level), level[0])
    assert smoothed(heat).shape == (7, 9)
    assert 0 <= float(smoothed(heat).min()) <= float(smoothed(heat).max()) <= 1


def test_an_embedding_is_that_of_its_point_whoever_else_is_asked_for() -> None:
    model, batch = tiny_model(), batch_of(noise(1), noise(2))
    rng = np.random.default_rng(0)
    xy, row = rng.uniform(0, 256, (150, 2)).astype(np.float32), rng.integers(0, 2, 150)
    embedding = embed(model, batch, xy, row)
    assert embedding.shape == (150, NET.prompt_channels)
    assert embedding.std(axis=0).max() > 0
    order = rng.permutation(150)[:80]
    assert np.array_equal(embed(model, batch, xy[order], row[order]), embedding[order])
    assert embed(model, batch, xy[:0], row[:0]).shape == (0, NET.prompt_channels)


def test_a_blank_tile_has_no_nuclei() -> None:
    nuclei, own = predict(tiny_model(threshold=0.9), batch_of(np.full((256, 256, 3), 255, np.uint8)))
    assert len(nuclei) == len(own) == 0


def test_images_of_any_size_are_looked_at() -> None:
    network = Network.of(tiny_net(), Device.of("cpu", "fp32"), UseSettings())
    for height, width in ((5, 7), (33, 40), (100, 257)):
        maps = network.maps(noise(0, height, width)).outputs
        assert maps.heat.shape[2] >= -(-height // 4)
        assert maps.heat.shape[3] >= -(-width // 4)


def test_a_point_beyond_the_core_keeps_its_whole_mask() -> None:
    spec = tiny_model().spec
    check_geometry(spec)
    with pytest.raises(ModelError, match="halo"):
        check_geometry(replace(spec, halo_px=spec.reach_px + spec.margin_px - 1))


def test_calibration_is_a_monotone_probability() -> None:
    score = np.linspace(0, 1, 11).astype(np.float32)
    probability = calibrated(score, np.full(11, 0.7, np.float32), (2.0, 0.5, -0.3))
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (np.diff(probability) > 0).all()


def test_a_file_gives_the_same_nuclei_back(tmp_path: Path) -> None:
    net, file = tiny_net(), tmp_path / "tiny.safetensors"
    net.half().float()  # the file keeps the weights in half precision
    about = {"training_data": [], "metrics": {"pq": 0.5}}
    chosen = replace(tiny_settings(), domain={"density": (0.1, 0.4)})
    save_net(file, net, chosen, about)
    spec, model = model_spec(str(file)), load_model(str(file))
    assert spec == model.spec
    assert spec.domain == {"density": (0.1, 0.4)}
    before, _ = predict(tiny_model(net), batch_of(noise(5)))
    after, _ = predict(model, batch_of(noise(5)))
    assert np.array_equal(before.xy, after.xy)


@pytest.mark.parametrize("fault", ["classes", "width", "nan"])
def test_a_file_that_does_not_fit_is_refused_with_the_difference(tmp_path: Path, fault: str) -> None:
    net, file, header = tiny_net(), tmp_path / "bad.safetensors", tiny_settings()
    words = {"classes": "names 2", "width": "another shape", "nan": "NaN"}
    if fault == "classes":
        header = replace(header, classes=CLASSES[:2])
    if fault == "width":
        header = replace(header, net=replace(NET, hidden=8))
    if fault == "nan":
        net.class_head.weight.data[0] = float("nan")

    def saved_and_loaded() -> None:
        save_net(file, net, header, {"training_data": [], "metrics": {}})
        load_model(str(file))

    with pytest.raises(ModelError, match=words[fault]):
        saved_and_loaded()


@pytest.mark.parametrize(("net", "words"), [({"widht": 3}, "unknown key"), ({"stem": 8}, "16 channels")])
def test_settings_that_make_no_network_are_refused(net: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Settings.from_header({"classes": ["a"], "mpp": 0.25, "net": net})


def test_settings_survive_the_header() -> None:
    chosen = tiny_settings(calibration=(1.5, 0.2, -0.1))
    again = Settings.from_header({**chosen.to_header(), "architecture": "compact"})
    assert {f.name: getattr(again, f.name) for f in fields(again)} == {
        f.name: getattr(chosen, f.name) for f in fields(chosen)
    }


def test_what_lies_beyond_core_and_halo_is_not_looked_at() -> None:
    """A core at the end of a slide has the same nuclei, whatever the rest of its tile holds."""
    model = tiny_model()
    core, read = Box(64, 64, 120, 150), Box(0, 0, 256, 256)
    pixels = noise(5)
    changed = pixels.copy()
    changed[150 + 64 + 32 :] = changed[:, 120 + 64 + 32 :] = 0
    before, after = (predict(model, TileBatch(rgb[None], (Tile(0, core, read),)))[0] for rgb in (pixels, changed))
    assert len(before) > 0
    for column in (f.name for f in fields(before)):
        assert np.array_equal(getattr(before, column), getattr(after, column)), column
