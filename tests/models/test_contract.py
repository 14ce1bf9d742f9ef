"""What every model family promises. A new family is one more row here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import compact_nets, instasam_nets
from tests.models.nets import stir, tiny_settings
from tests.models.sensible import sensible_net
from tests.models.tiles import scene
from wsi_nuc.errors import ModelError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import NucleiModel, check_geometry
from wsi_nuc.models.instances import InstancesLook
from wsi_nuc.models.options import used
from wsi_nuc.models.promptnucseg.build import assemble, spec_of
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.settings import SegmentorSettings
from wsi_nuc.models.registry import load_model
from wsi_nuc.nuclei import TileNuclei
from wsi_nuc.types import Box, MaskCrops, Prompts, Tile, TileBatch

EXAMPLE = Path(__file__).parent / "example_family"
SIZE_PX = 256
FOREGROUND = 0.03  # of all anchors; six views of each prompt are decoded


def promptnucseg(**use: object) -> Callable[[], NucleiModel]:
    def made() -> NucleiModel:
        torch.set_num_threads(1)
        settings = used(tiny_settings(), {"precision": "fp32", **use})
        return assemble(sensible_net(settings, FOREGROUND), settings, "cpu", spec_of(settings, "0" * 64))

    return made


def shared_encoder(conv: bool = False) -> NucleiModel:
    settings = tiny_settings(shared=True, precision="fp32", mask_logit=0.1 if conv else 0.0, nms_radius_px=30.0)
    if conv:
        settings = replace(settings, segmentor=SegmentorSettings("conv"), net=compact_nets.NET)
    torch.manual_seed(0)
    net = stir(PromptNucSegNet(settings), scale=0.1)
    with torch.no_grad():
        net.prompter.cls_head.layers[3].bias[-1] -= 1.0  # type: ignore[union-attr, index, operator]
    return assemble(net, settings, "cpu", spec_of(settings, "0" * 64))


def example() -> NucleiModel:
    return load_model("example-labelmaps")


FAMILIES: dict[str, Callable[[], NucleiModel]] = {
    "classical": lambda: load_model("classical"),
    "compact": compact_nets.tiny_model,
    "instasam": instasam_nets.tiny_model,
    "promptnucseg": promptnucseg(),
    "promptnucseg, six views": promptnucseg(tta=True),
    "promptnucseg, as published": promptnucseg(mode="parity"),
    "promptnucseg, shared encoder": shared_encoder,
    "promptnucseg, convolutional encoder": lambda: shared_encoder(conv=True),
    "example-labelmaps": example,
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> NucleiModel:
    if str(EXAMPLE) not in sys.path:
        sys.path.insert(0, str(EXAMPLE))
    return FAMILIES[request.param]()


def batch_of(*seeds: int) -> TileBatch:
    box = Box(0, 0, SIZE_PX, SIZE_PX)
    return TileBatch(
        np.stack([scene(seed, SIZE_PX, spacing_px=32) for seed in seeds]), tuple(Tile(i, box, box) for i in seeds)
    )


@pytest.fixture(scope="module")
def seen(model: NucleiModel) -> tuple[TileBatch, Prompts, list[MaskCrops]]:
    batch = batch_of(1, 2)
    look = model.look(batch)
    prompts = look.prompts.get()
    return batch, prompts, list(look.masks(range(len(prompts))).get())


def pixels(crops: list[MaskCrops]) -> dict[int, tuple[int, int, bytes]]:
    """Size and place of each prompt's mask, whatever the sizes of the crops."""
    masks = {}
    for group in crops:
        for mask, (x, y), prompt in zip(group.mask, group.origin_tile, group.prompt, strict=True):
            rows, columns = np.nonzero(mask)
            place = np.stack([columns + x, rows + y], 1)
            masks[int(prompt)] = (len(place), int(place.sum()), place.tobytes())
    return masks


def test_its_geometry_holds(model: NucleiModel) -> None:
    check_geometry(model.spec)


def test_every_nucleus_has_a_point_a_mask_scores_and_classes(
    model: NucleiModel, seen: tuple[TileBatch, Prompts, list[MaskCrops]]
) -> None:
    _, prompts, crops = seen
    assert len(prompts) > 5, "the scene must show the family something"
    assert ((prompts.xy_tile >= 0) & (prompts.xy_tile < SIZE_PX)).all()
    assert set(prompts.row.tolist()) <= {0, 1}
    assert prompts.class_probs.shape == (len(prompts), len(model.spec.classes))
    assert np.allclose(prompts.class_probs.sum(1), 1, atol=1e-4)
    named = np.concatenate([group.prompt for group in crops])
    assert len(set(named.tolist())) == len(named) > 0
    for group in crops:
        assert group.mask.dtype == np.uint8
        assert set(np.unique(group.mask).tolist()) <= {0, 1}
        assert ((group.score >= 0) & (group.score <= 1)).all()
        assert np.allclose(group.class_probs.sum(1), 1, atol=1e-4)


def test_two_looks_at_once_do_not_disturb_each_other(model: NucleiModel) -> None:
    """The answers of the first look are asked for after the second look, and from other threads."""
    first, second = batch_of(1), batch_of(2)
    expected = []
    for batch in (first, second):
        look = model.look(batch)
        prompts = look.prompts.get()
        expected.append((prompts, pixels(list(look.masks(range(len(prompts))).get()))))
    looks = [model.look(first), model.look(second)]
    handles = [look.prompts for look in reversed(looks)]
    got = [handle.get() for handle in handles][::-1]
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(look.masks(range(len(p))).get) for look, p in zip(looks, got, strict=True)]
        masks = [pixels(list(task.result())) for task in tasks]
    for (prompts, expected_masks), points, actual_masks in zip(expected, got, masks, strict=True):
        assert np.array_equal(prompts.xy_tile, points.xy_tile)
        assert actual_masks == expected_masks


def test_a_look_can_be_asked_again_and_in_any_order(model: NucleiModel) -> None:
    look = model.look(batch_of(3))
    prompts = look.prompts.get()
    wanted = list(range(0, len(prompts), 2))
    handle = look.masks(wanted)
    first, again = pixels(list(handle.get())), pixels(list(handle.get()))
    assert first == again == pixels(list(look.masks(wanted).get()))
    assert set(first) <= set(wanted)
    assert np.array_equal(look.prompts.get().xy_tile, prompts.xy_tile)


def test_nothing_wanted_gives_nothing(model: NucleiModel) -> None:
    assert sum(len(group.prompt) for group in model.look(batch_of(1)).masks([]).get()) == 0


def test_given_points_take_the_place_of_its_own_or_label_maps_refuse_them(model: NucleiModel) -> None:
    look = model.look(batch_of(1))
    own = look.prompts.get()
    if isinstance(look, InstancesLook):
        with pytest.raises(ModelError, match="without points"):
            look.prompted(own)
        return
    every = pixels(list(look.masks(range(len(own))).get()))
    assert pixels(list(look.prompted(own).masks(range(len(own))).get())) == every
    fewer = own.select(np.arange(0, len(own), 3))
    thinned = look.prompted(fewer)
    assert len(thinned.prompts.get()) == len(fewer)
    assert {i for group in thinned.masks(range(len(fewer))).get() for i in group.prompt} <= set(range(len(fewer)))
    assert np.array_equal(look.prompts.get().xy_tile, own.xy_tile)


def test_an_embedding_has_the_promised_size_or_is_refused(model: NucleiModel) -> None:
    look, xy = model.look(batch_of(1, 2)), np.array([[100, 100], [30, 60], [100, 100]], np.float32)
    row = np.array([1, 0, 1])
    if not model.spec.embedding:
        with pytest.raises(ModelError, match="no embedding"):
            look.embed(xy, row).get()
        return
    embedding = look.embed(xy, row).get()
    assert embedding.shape == (3, model.spec.embedding)
    assert np.array_equal(embedding[0], embedding[2])
    assert not np.array_equal(embedding[0], embedding[1])


def rows(nuclei: TileNuclei, tile: int) -> list[tuple[bytes, float, bytes]]:
    of_tile = nuclei.select(nuclei.tile == tile)
    rings = np.split(of_tile.xy, of_tile.offsets[1:-1])
    return sorted(
        (ring.tobytes(), float(score), probs.tobytes())
        for ring, score, probs in zip(rings, of_tile.score, of_tile.class_probs, strict=True)
    )


def test_a_tile_has_the_same_nuclei_whatever_is_beside_it(model: NucleiModel) -> None:
    pair = replace(model, spec=replace(model.spec, batch=2))
    together, _ = predict(pair, batch_of(1, 2))
    swapped, _ = predict(pair, batch_of(2, 1))
    alone, _ = predict(pair, batch_of(2))
    assert len(alone) > 0
    assert rows(together, 2) == rows(swapped, 2) == rows(alone, 2)


def test_a_blank_tile_beside_others_costs_none_of_their_nuclei(model: NucleiModel) -> None:
    batch = batch_of(1, 2)
    rgb = batch.rgb.copy()
    rgb[1] = 255
    look = model.look(TileBatch(rgb, batch.tiles))
    prompts = look.prompts.get()
    assert (prompts.row == 0).sum() > 0
    assert sum(len(group.prompt) for group in look.masks(np.flatnonzero(prompts.row == 0).tolist()).get()) > 0
