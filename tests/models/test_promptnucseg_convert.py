"""Generated checkpoints in the formats of SAM, timm and the authors become native files, or are refused with a
list of what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

from tests.models.looking import propose, segment
from tests.models.nets import official_sam, random_batch, stir
from wsi_nuc.errors import ModelError
from wsi_nuc.models.promptnucseg.build import PART, load_file
from wsi_nuc.models.promptnucseg.convert import Target, convert
from wsi_nuc.models.promptnucseg.net import PrompterNet
from wsi_nuc.models.promptnucseg.settings import PrompterSettings
from wsi_nuc.models.registry import model_spec
from wsi_nuc.models.torch_ops import load
from wsi_nuc.models.weights import open_checkpoint, read_info

CLASSES = ("a", "b", "c", "d", "e")
FIVE = Target(CLASSES, 0.25)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sam.pth as published (tables for 1024 px), prompter.pth as the authors save it, convnext.pth as timm
    does."""
    folder = tmp_path_factory.mktemp("foreign")
    torch.save(official_sam("vit_mini").state_dict(), folder / "sam.pth")
    torch.manual_seed(0)
    prompter = PrompterNet(PrompterSettings("convnext_atto", channels=32), 5)
    stir(prompter)
    metrics = {"mPQ": np.float64(0.5), "epochs": 3, "f1": np.float32(0.25)}
    extras = {"optimizer": {"state": {}, "param_groups": []}, "epoch": 3, "metrics": metrics}
    torch.save({"model": prompter.state_dict(), **extras}, folder / "prompter.pth")
    torch.save(load("timm").create_model("convnext_atto").state_dict(), folder / "convnext.pth")
    return folder


def test_a_prompter_and_a_segmentor_make_a_model_that_runs(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole.safetensors"
    info = convert([files / "prompter.pth", files / "sam.pth"], out, FIVE)
    assert info.architecture == "promptnucseg"
    assert info.details["prompter"]["backbone"] == "convnext_atto"
    assert info.details["prompter"]["space_px"] == 8
    assert info.details["segmentor"]["size"] == "vit_mini"
    assert info.details["use"]["negatives"] == 0
    model, batch = load_file(open_checkpoint(out), "cpu", {}), random_batch(1, 256)
    prompts = propose(model, batch)
    assert prompts.class_probs.shape[1] == 5
    assert len(list(segment(model, batch, prompts, [0]))) >= 1


def test_values_are_carried_over_unchanged_and_only_tables_are_resized(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.safetensors"
    info = convert([files / "sam.pth"], out, FIVE)
    assert info.architecture == PART
    with pytest.raises(ModelError, match=r"only parts of a model \(segmentor\)"):
        model_spec(str(out))
    before, after = torch.load(files / "sam.pth", weights_only=True), load_tensors(out)
    assert {f"segmentor.{name}" for name in before} == set(after)
    resized = {name for name, tensor in before.items() if not torch.equal(tensor, after[f"segmentor.{name}"])}
    assert resized == {"image_encoder.pos_embed", *(f"image_encoder.blocks.1.attn.rel_pos_{x}" for x in "hw")}


def test_a_timm_backbone_loses_its_classifier_and_keeps_the_rest(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "start.safetensors"
    info = convert([files / "convnext.pth", files / "sam.pth"], out, FIVE)
    assert info.architecture == PART
    assert info.details["prompter"]["backbone"] == "convnext_atto"
    names = {
        name.removeprefix("prompter.backbone.backbone.") for name in info.shapes if name.startswith("prompter")
    }
    timm_names = set(torch.load(files / "convnext.pth", weights_only=True))
    assert names == {name for name in timm_names if not name.startswith("head.")}


def test_foreign_safetensors_and_torchrun_prefixes_are_read_too(files: Path, tmp_path: Path) -> None:
    state = torch.load(files / "prompter.pth", weights_only=False)["model"]
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "prompter.safetensors")
    info = convert([tmp_path / "prompter.safetensors"], tmp_path / "out.safetensors", FIVE)
    assert "prompter.cls_head.layers.3.weight" in info.shapes


def _changed(files: Path, tmp_path: Path, change: Any) -> Path:
    state = torch.load(files / "sam.pth", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("mask_decoder.iou_token.weight"), "1 missing: segmentor.mask_decoder.iou_token"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 unexpected: segmentor.extra"),
        (
            lambda state: state.update({"mask_decoder.iou_token.weight": torch.zeros(2, 256)}),
            r"iou_token.weight \(2, 256\) instead of \(1, 256\)",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_differences_are_listed_and_nothing_is_written(
    files: Path, tmp_path: Path, change: Any, words: str
) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(ModelError, match=words):
        convert([_changed(files, tmp_path, change)], out, FIVE)
    assert not out.exists()


def test_the_number_of_classes_must_be_the_checkpoints(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="for 5 classes, its header names 2"):
        convert([files / "prompter.pth"], tmp_path / "out.safetensors", Target(("a", "b")))


def test_a_file_of_another_kind_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"fc\.weight"):
        convert([tmp_path / "other.pth"], tmp_path / "out.safetensors", FIVE)


@pytest.mark.slow
def test_the_official_vit_b_and_the_published_prompter_convert(tmp_path: Path) -> None:
    torch.save(official_sam("vit_b").state_dict(), tmp_path / "sam_vit_b.pth")
    torch.save({"model": PrompterNet(PrompterSettings(), 5).state_dict()}, tmp_path / "best.pth")
    info = convert([tmp_path / "sam_vit_b.pth", tmp_path / "best.pth"], tmp_path / "out.safetensors", FIVE)
    assert info.architecture == "promptnucseg"
    assert (info.details["segmentor"]["size"], info.details["prompter"]["backbone"]) == ("vit_b", "convnext_small")
    assert read_info(tmp_path / "out.safetensors").sha256 == info.sha256
