"""Generated checkpoints in the formats of SAM, timm and the authors become native files, or are refused with a
list of what does not fit."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.models.looking import propose, segment
from tests.models.nets import official_sam, random_batch, stir
from tests.models.sensible import sensible_net
from wsi_nuc.cli import app
from wsi_nuc.errors import ModelError, WsiNucError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.promptnucseg.build import PART, assemble, load_file, spec_of
from wsi_nuc.models.promptnucseg.convert import Target, convert
from wsi_nuc.models.promptnucseg.net import PrompterNet, PromptNucSegNet
from wsi_nuc.models.promptnucseg.settings import (
    PRESETS,
    PrompterSettings,
    SegmentorSettings,
    Settings,
    UseSettings,
)
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


def _as_saved(folder: Path, net: PromptNucSegNet, data_set: str) -> list[Path]:
    """`latest.pth` of both networks, with the entries that the authors' two programs save (both main.py)."""
    optimizer = torch.optim.AdamW(net.prompter.parameters(), lr=1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[100], gamma=0.1)
    args = Namespace(
        config=f"{data_set}.py", seed=42, clip_grad=0.1, run_name=None, opts=["a", ("b", 1)], amp=False
    )
    extras = {"optimizer": optimizer.state_dict(), "epoch": 3}
    metrics = {"mPQ" if data_set == "pannuke123" else "AJI": np.float64(0.5)}
    contents = {
        "prompter": {"model": net.prompter.state_dict(), "f1": 0, "args": args, **extras},
        "segmentor": {"model": net.segmentor.state_dict(), "scheduler": scheduler.state_dict(), "metrics": metrics,
                      "args": Namespace(config=f"{data_set}_b.py"), **extras},
    }  # fmt: skip
    for part, content in contents.items():
        (folder / part).mkdir(parents=True)
        torch.save(content, folder / part / "latest.pth")
    best = {name: contents["segmentor"][name] for name in ("model", "epoch", "metrics")}
    torch.save(best, folder / "segmentor" / "best.pth")
    best = {"model": net.prompter.state_dict(), "metrics": "+---+", "f1": np.float32(50.25), "epoch": 2}
    torch.save(best, folder / "prompter" / "best.pth")
    return [folder / part / "latest.pth" for part in contents]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[PromptNucSegNet, Path]]:
    """By preset: networks of its shapes, and a folder with the files as the authors save them."""
    made = {}
    for name, data_set in (("pannuke", "pannuke123"), ("kumar", "kumar"), ("cpm17", "cpm17")):
        preset, folder = PRESETS[name], tmp_path_factory.mktemp(name)
        prompter = PrompterSettings("convnext_atto", preset.levels, 32, preset.space_px)
        settings = Settings(preset.classes, 0.25, prompter, SegmentorSettings("vit_mini"))
        net = sensible_net(settings) if name == "kumar" else PromptNucSegNet(settings)
        _as_saved(folder, net, data_set)
        made[name] = net, folder
    return made


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("file", ["latest.pth", "best.pth"])
def test_files_as_the_authors_save_them_become_the_networks_in_memory(
    saved: dict[str, tuple[PromptNucSegNet, Path]], preset: str, file: str, tmp_path: Path
) -> None:
    (net, folder), out = saved[preset], tmp_path / "out.safetensors"
    info = convert([folder / "prompter" / file, folder / "segmentor" / file], out, Target(preset=preset))
    settings = Settings.from_header(info.details)
    assert settings.classes == PRESETS[preset].classes
    assert (settings.prompter.levels, settings.prompter.space_px) == {"pannuke": (3, 8)}.get(preset, (4, 16))
    tensors, mine = open_checkpoint(out).tensors(), net.state_dict()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in tensors.items())
    assert len(mine) - len(tensors) == sum(name.endswith("num_batches_tracked") for name in mine)


def test_a_file_of_the_authors_gives_the_same_nuclei_as_the_networks_in_memory(
    saved: dict[str, tuple[PromptNucSegNet, Path]], tmp_path: Path
) -> None:
    (net, folder), out = saved["kumar"], tmp_path / "out.safetensors"
    files = [folder / part / "latest.pth" for part in ("prompter", "segmentor")]
    settings = Settings.from_header(convert(files, out, Target(preset="kumar")).details)
    models = assemble(net, settings, "cpu", spec_of(settings, "")), load_file(open_checkpoint(out), "cpu", {})
    here, there = (predict(model, random_batch(1, 256))[0] for model in models)
    assert len(here) > 5
    for column in ("xy", "offsets", "score", "class_probs"):
        assert np.array_equal(getattr(here, column), getattr(there, column))


@pytest.mark.parametrize(
    ("preset", "size", "expected"),
    [
        ("pannuke", "vit_h", (12.0, False, 0.5, 0, 1)),
        ("kumar", "vit_b", (11.0, True, 0.3, 0, 16)),
        ("kumar", "vit_l", (11.0, True, 0.3, 0, 1)),
        ("cpm17", "vit_b", (12.0, True, 0.5, 0, 1)),
        ("cpm17", "vit_h", (12.0, True, 0.5, 1, 1)),
        ("cpm17", "vit_mini", (12.0, True, 0.5, 0, 1)),
    ],
)
def test_a_preset_sets_what_the_released_configuration_of_its_size_says(
    preset: str, size: str, expected: tuple[object, ...]
) -> None:
    use = UseSettings(**PRESETS[preset].use(size))
    assert (use.nms_radius_px, use.mask_filter, use.box_iou, use.negatives, use.multiple_px) == expected


def test_the_command_takes_a_preset_and_set_changes_it(
    saved: dict[str, tuple[PromptNucSegNet, Path]], tmp_path: Path
) -> None:
    folder, out = saved["kumar"][1], str(tmp_path / "kumar.safetensors")
    files = [str(folder / part / "best.pth") for part in ("prompter", "segmentor")]
    done = _command(*files, "--preset", "kumar", "--set", "negatives=1", "--out", out)
    assert done.exit_code == 0
    use = read_info(out).details["use"]
    assert (use["nms_radius_px"], use["box_iou"], use["negatives"], use["multiple_px"]) == (11.0, 0.3, 1, 16)
    listed = CliRunner().invoke(app, ["models", "presets"]).output
    assert "vit_b: nms_radius_px=11.0, mask_filter=true, box_iou=0.3, negatives=0, multiple_px=16" in listed
    unknown = _command(*files, "--preset", "kuma", "--out", out)
    assert (unknown.exit_code, "Did you mean kumar" in str(unknown.exception)) == (2, True)


def _command(*arguments: str) -> Any:
    done = CliRunner().invoke(app, ["models", "convert", *arguments])
    error = done.exception
    done.exit_code = error.exit_code if isinstance(error, WsiNucError) else done.exit_code
    return done


@pytest.mark.parametrize(
    ("files", "preset", "said"),
    [
        (["pannuke/prompter/latest", "kumar/segmentor/latest"], "", r"pannuke123.py\); .*kumar_b.py"),
        (["kumar/prompter/best", "pannuke/segmentor/best"], "", r"4 levels\); .*its metrics are mPQ"),
        (["cpm17/prompter/latest", "cpm17/segmentor/latest"], "kumar", "is of cpm17 .*trained with cpm17.py"),
        (["pannuke/prompter/best"], "kumar", "is of pannuke .its pyramid has 3 levels"),
        (["kumar/prompter/best"], "pannuke", "its pyramid has 4 levels"),
        (["kumar/prompter/best", "kumar/prompter/latest"], "", "another file holds the same part"),
    ],
)
def test_parts_of_different_data_sets_and_another_preset_are_refused(
    saved: dict[str, tuple[PromptNucSegNet, Path]], files: list[str], preset: str, said: str, tmp_path: Path
) -> None:
    paths = [saved[name.partition("/")[0]][1] / f"{name.partition('/')[2]}.pth" for name in files]
    with pytest.raises(ModelError, match=said) as caught:
        convert(paths, tmp_path / "out.safetensors", Target(preset=preset))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out.safetensors").exists()


def test_a_checkpoint_of_another_size_is_refused(files: Path, tmp_path: Path) -> None:
    def one_block_less(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith("image_encoder.blocks.1.")]:
            state.pop(name)

    with pytest.raises(ModelError, match=r"is 64 wide and 1 deep.*Use one of vit_h, vit_l, vit_b"):
        convert([_changed(files, tmp_path, one_block_less)], tmp_path / "out.safetensors", FIVE)
    state = torch.load(files / "prompter.pth", weights_only=False)["model"]
    state = {name: tensor for name, tensor in state.items() if ".stages.2.blocks.5." not in name}
    torch.save({"model": state}, tmp_path / "prompter.pth")
    with pytest.raises(ModelError, match=r"missing: prompter.backbone.backbone.stages.2.blocks.5"):
        convert([tmp_path / "prompter.pth"], tmp_path / "out.safetensors", FIVE)
    assert not (tmp_path / "out.safetensors").exists()


class _Gadget:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("part", ["prompter", "segmentor"])
def test_a_gadget_inside_the_namespace_is_named_and_not_executed(
    saved: dict[str, tuple[PromptNucSegNet, Path]], part: str, tmp_path: Path
) -> None:
    marker, file, out = tmp_path / "executed", tmp_path / "latest.pth", tmp_path / "out.safetensors"
    net = getattr(saved["kumar"][0], part)
    torch.save({"model": net.state_dict(), "args": Namespace(config="kumar.py", hook=_Gadget(marker))}, file)
    done = _command(str(file), "--preset", "kumar", "--out", str(out))
    assert done.exit_code == 4
    assert "mkdir); nothing in it was executed" in str(done.exception)
    assert not marker.exists()
    assert not out.exists()
    torch.load(file, weights_only=False)  # the gadget works
    assert marker.exists()


@pytest.mark.slow
def test_the_official_vit_b_and_the_published_prompter_convert(tmp_path: Path) -> None:
    torch.save(official_sam("vit_b").state_dict(), tmp_path / "sam_vit_b.pth")
    torch.save({"model": PrompterNet(PrompterSettings(), 5).state_dict()}, tmp_path / "best.pth")
    info = convert([tmp_path / "sam_vit_b.pth", tmp_path / "best.pth"], tmp_path / "out.safetensors", FIVE)
    assert info.architecture == "promptnucseg"
    assert (info.details["segmentor"]["size"], info.details["prompter"]["backbone"]) == ("vit_b", "convnext_small")
    assert read_info(tmp_path / "out.safetensors").sha256 == info.sha256
