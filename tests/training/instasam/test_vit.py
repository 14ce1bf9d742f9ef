"""InstaSAM trained over an official SAM file: what is frozen stays as it was, and the trained file runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.nets import official_sam
from tests.models.tiles import scene
from tests.training.tiny import draw
from wsi_nuc.errors import ModelError
from wsi_nuc.models.hv import HvMaps, decode
from wsi_nuc.models.instasam.build import net_of
from wsi_nuc.models.instasam.look import hv_settings
from wsi_nuc.models.instasam.settings import UseSettings
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.sam.model import resize_tables
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.events import Event, Noted, StepDone
from wsi_nuc.training.instasam.config import InstaSamConfig, PseudoConfig
from wsi_nuc.training.instasam.first import pseudo_labels
from wsi_nuc.training.instasam.start import prompted_net, settings_of
from wsi_nuc.training.registry import load_train_config, train
from wsi_nuc.types import Box, Tile, TileBatch

SAM = "sam."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vit")
    torch.save(official_sam("vit_mini").state_dict(), made / "sam.pth")
    draw(made / "data", images=2)
    return made


def config(folder: Path, out: Path, **changes: Any) -> InstaSamConfig:
    sources = {"train": [{"path": folder / "data"}], "validation": []}
    given = {
        "out": out, "classes": ["nucleus"], "data": sources, "workers": 0, "frozen": str(folder / "sam.pth"),
        "first": "frozen", "steps": 4, "batch": 2, "report_every": 2, "lr": 1e-3, "ema": 0.9, "precision": "fp32",
        "pseudo": {"entropy": "off"}, "device": "cpu", "threads": 1,
        "use": {"tile_px": 512, "precision": "fp32"},
    }  # fmt: skip
    made = load_train_config("instasam", [], given | changes)
    assert isinstance(made, InstaSamConfig)
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> tuple[Path, list[str]]:
    """The trained file, and what was noted on the way."""
    notes: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Noted):
            notes.append(event.message)

    return train(config(folder, folder / "all"), note), notes


def official(folder: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the SAM file, with tables for windows of 256 px."""
    given = torch.load(folder / "sam.pth", weights_only=True)
    shapes = {name.removeprefix(SAM): tuple(t.shape) for name, t in tensors.items() if name.startswith(SAM)}
    return resize_tables(given, shapes)


def test_sam_keeps_every_bit_and_the_rest_is_trained(folder: Path, trained: tuple[Path, list[str]]) -> None:
    tensors = open_checkpoint(trained[0]).tensors()
    given = official(folder, tensors)
    assert {SAM + name for name in given} == {name for name in tensors if name.startswith(SAM)}
    for name, tensor in given.items():
        assert tensors[SAM + name].dtype == tensor.dtype
        assert torch.equal(tensors[SAM + name], tensor)
    assert tensors["adapters.up.weight"].any()
    start = given["mask_decoder.transformer.layers.0.mlp.lin1.weight"]
    assert not torch.allclose(tensors["nuclei.transformer.layers.0.mlp.lin1.weight"].float(), start, atol=1e-4)


def test_the_share_of_trained_weights_is_told(trained: tuple[Path, list[str]]) -> None:
    assert any("of the network's weights are trained" in note for note in trained[1])


def test_the_trained_file_runs(trained: tuple[Path, list[str]]) -> None:
    """A few steps teach it nothing, so the threshold is set to what four tenths of the pixels exceed."""
    rgb, box = scene(3, 320), Box(0, 0, 320, 320)
    net = net_of(open_checkpoint(trained[0])).eval()
    with torch.inference_mode():
        seen = net(normalise(torch.from_numpy(rgb[None])))
    foreground, hv = seen.maps[0, 0].sigmoid().numpy(), seen.maps[0, 1:].numpy()
    use = UseSettings(foreground=float(np.quantile(foreground, 0.6)), least_area_px=1)
    expected = decode([HvMaps(foreground, hv, seen.classes[0].softmax(0).numpy())], hv_settings(use))
    options = {"foreground": use.foreground, "least_area_px": 1}
    model = load_model(str(trained[0]), "cpu", options)
    prompts = model.look(TileBatch(rgb[None], (Tile(0, box, box),))).prompts.get()
    assert len(prompts) == pytest.approx(expected.labels.max(), abs=3)
    assert len(prompts) > 50
    assert model.spec.classes == ("nucleus",)
    assert model.spec.cpu_tile_s == pytest.approx(9 * 0.1)


class Killed(BaseException):
    """Nothing catches this, so it acts like a kill."""


def test_a_stopped_training_goes_on_to_the_same_bytes(
    folder: Path, trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(config(folder, tmp_path), kill)
    torch.rand(7)
    again, whole = (
        open_checkpoint(train(config(folder, tmp_path))).tensors(),
        open_checkpoint(trained[0]).tensors(),
    )
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_tokens_and_mlps_can_be_trained_alone(folder: Path, tmp_path: Path) -> None:
    file = train(config(folder, tmp_path, decoder="tokens", steps=2))
    tensors = open_checkpoint(file).tensors()
    given = official(folder, tensors)
    for name, tensor in tensors.items():
        if name.startswith(("nuclei.transformer.", "nuclei.output_upscaling.")):
            assert torch.equal(tensor, given[name.replace("nuclei.", "mask_decoder.")])
    assert tensors["nuclei.map_mlps.1.layers.2.bias"].any()


def test_a_trained_file_is_a_start_for_other_classes(
    folder: Path, trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    again = config(folder, tmp_path, frozen=str(trained[0]), first="voronoi", classes=["a", "b"])
    settings = settings_of(again, ("a", "b"))
    assert (settings.encoder, settings.window_px) == ("vit_mini", 128)
    tensors = open_checkpoint(train(again)).tensors()
    before = open_checkpoint(trained[0]).tensors()
    assert tensors["nuclei.class_tokens"].shape[0] == 2
    assert all(torch.equal(tensors[name], before[name]) for name in before if name.startswith(SAM))


def test_first_labels_come_from_the_file_itself(folder: Path) -> None:
    rgb = scene(3, 320)
    xy = np.array([[30, 40], [200, 100], [300, 310], [160.5, 20]])
    net = prompted_net(str(folder / "sam.pth"))
    with torch.inference_mode():
        net.sam.mask_decoder.output_hypernetworks_mlps[0].layers[2].bias += 50
    labels = pseudo_labels(net, rgb, xy, PseudoConfig(entropy="off", overlap=False)).labels
    assert labels.shape == (1, 320, 320)
    assert set(labels.unique().tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("content", ["other", "deep", "nan", "short"])
def test_files_that_are_not_sam_are_refused(content: str, folder: Path, tmp_path: Path) -> None:
    state = torch.load(folder / "sam.pth", weights_only=True)
    match content:
        case "other":
            state, message = {"fc.weight": torch.zeros(2, 2)}, "not a SAM checkpoint"
        case "deep":
            state["image_encoder.blocks.2.norm1.weight"], message = torch.zeros(64), "64 wide and 3 deep"
        case "nan":
            state["mask_decoder.iou_token.weight"][0, 0], message = torch.nan, "NaN"
        case _:
            del state["mask_decoder.iou_token.weight"]
            message = "1 missing: mask_decoder.iou_token.weight"
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match=message):
        prompted_net(str(tmp_path / "bad.pth"))


def test_convolutional_decoders_have_no_tokens(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be trained alone"):
        train(config(folder, tmp_path, frozen="default", first="voronoi", decoder="tokens"))
