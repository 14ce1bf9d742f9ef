"""Networks whose answers are averaged, and mirrored views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.compact_nets import CLASSES, NET, batch_of, noise, tiny_net, tiny_settings
from wsi_nuc.errors import ModelError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.compact.build import assemble, net_of, save_net
from wsi_nuc.models.compact.net import Asked, CompactNet, PooledClasses
from wsi_nuc.models.compact.packaged import single_checkpoint_of
from wsi_nuc.models.compact.settings import VIEWS, NetSettings, spec_of
from wsi_nuc.models.compact.team import AnyNet, Team
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.weights import open_checkpoint

POOLED = replace(NET, class_hidden=5)
WIDER = replace(NET, pyramid=(24, 16, 16), mask_channels=6, prompt_channels=24)


def pooled_net(seed: int) -> CompactNet:
    torch.manual_seed(seed)
    net = tiny_net(seed)
    net.class_head = PooledClasses(POOLED, len(CLASSES))
    return net


def wider_net() -> CompactNet:
    torch.manual_seed(3)
    return CompactNet(WIDER, len(CLASSES)).eval()


def nuclei(net: AnyNet, *rgb: np.ndarray, **use: object) -> object:
    settings = tiny_settings(**use)
    table, _ = predict(assemble(net, settings, "cpu", spec_of(settings, "a" * 64)), batch_of(*rgb))
    return table


@pytest.mark.parametrize("net", [tiny_net(), pooled_net(0)], ids=["cells", "pooled"])
def test_a_team_of_the_same_network_twice_answers_as_one_does(net: CompactNet) -> None:
    alone, twice = nuclei(net, noise(1, 128, 128)), nuclei(Team([net, net]), noise(1, 128, 128))
    assert len(alone) > 0  # type: ignore[arg-type]
    for name in ("score", "class_probs", "prompt_xy", "xy"):
        assert np.allclose(getattr(alone, name), getattr(twice, name), atol=1e-3), name


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize("net", [tiny_net(), pooled_net(0), Team([tiny_net(), wider_net()])],
                         ids=["cells", "pooled", "team"])  # fmt: skip
def test_a_mirrored_tile_has_mirrored_answers(net: AnyNet, views: int) -> None:
    """Without views it has not, since strides begin at one side."""
    team = Team(net.members if isinstance(net, Team) else [net], views).eval()
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 64, 96)
    xy = torch.tensor([[30.3, 20.1], [61.0, 40.7]])
    with torch.no_grad():
        for side in VIEWS[views][1:]:
            turned = [dim for dim, step in ((3, side[0]), (2, side[1])) if step < 0]
            way = torch.tensor(side, dtype=torch.float32)
            there = torch.where(way < 0, torch.tensor([96.0, 64.0]) - xy, xy)
            here, mirrored = team(pixels), team(pixels.flip(turned))
            for name in ("heat", "region") if isinstance(team.class_head, PooledClasses) else ("heat", "classes"):
                assert torch.allclose(getattr(mirrored, name).flip(turned), getattr(here, name), atol=1e-4)
            assert torch.allclose(mirrored.offset.flip(turned) * way[:, None, None], here.offset, atol=1e-4)
            drawn = []
            for maps, points in ((here, xy), (mirrored, there)):
                asked = Asked(torch.zeros(2, dtype=torch.int64), points, points.flip(0))
                embedding = team.decoder.embedding(maps.context, asked)
                features = maps.masks[0, :, 5:6, 7:8].flatten(1).T[None].expand(2, -1, -1)
                middle = torch.tensor([[[15.0, 11.0]]]).expand(2, 1, 2)
                if maps is mirrored:
                    features = maps.masks.flip(turned)[0, :, 5:6, 7:8].flatten(1).T[None].expand(2, -1, -1)
                    middle = torch.where(way < 0, torch.tensor([96.0, 64.0]) - middle, middle)
                drawn.append(team.decoder.at(embedding, features, middle, asked))
            assert torch.allclose(drawn[0], drawn[1], atol=1e-3)


def test_more_views_change_what_one_view_says() -> None:
    plain, mirrored = nuclei(tiny_net(), noise(1, 128, 128)), nuclei(tiny_net(), noise(1, 128, 128), views=4)
    assert not np.array_equal(plain.score, mirrored.score)  # type: ignore[attr-defined]


def team_file(file: Path, second: NetSettings = WIDER) -> Path:
    settings = replace(tiny_settings(), beside=(second,))
    save_net(file, Team([tiny_net(), wider_net()]), settings, {"training_data": [], "metrics": {}})
    return file


def test_a_file_of_several_networks_runs_in_any_company_and_cannot_be_trained_on(tmp_path: Path) -> None:
    file = team_file(tmp_path / "team.safetensors")
    model = load_model(str(file))
    assert model.spec.embedding == NET.prompt_channels + WIDER.prompt_channels
    alone, _ = predict(model, batch_of(noise(1, 128, 128)))
    beside, _ = predict(model, batch_of(noise(2, 128, 128), noise(1, 128, 128)))
    second = beside.select(beside.tile == 1)
    assert len(alone) > 0
    for name in ("xy", "score", "class_probs"):
        assert np.array_equal(getattr(alone, name), getattr(second, name)), name
    assert isinstance(net_of(open_checkpoint(file)), Team)
    for name in (str(file), "large"):
        with pytest.raises(ModelError, match="holds 2 networks"):
            single_checkpoint_of(name)


def test_a_team_whose_tensors_do_not_fit_its_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nets\.1"):
        load_model(str(team_file(tmp_path / "team.safetensors", NET)))


def test_unknown_numbers_of_views_are_refused() -> None:
    with pytest.raises(ModelError, match="views"):
        tiny_settings(views=3)
