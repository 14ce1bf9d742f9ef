"""Training of PromptNucSeg: it names faults, and learns from every kind of label, in several processes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from tests.models.nets import official_sam
from tests.training.tiny import draw, foreground_only, points_only, tiny_config
from wsi_nuc.datasets.images import load_images
from wsi_nuc.errors import MODEL, ModelError, UsageError
from wsi_nuc.models.promptnucseg.net import PrompterNet
from wsi_nuc.models.promptnucseg.settings import PrompterSettings
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.events import EpochDone, Event, Noted, StepDone
from wsi_nuc.training.loop import TrainingError
from wsi_nuc.training.promptnucseg import batches as batches_module
from wsi_nuc.training.promptnucseg.losses import Losses
from wsi_nuc.training.promptnucseg.start import LossNet, starting_net
from wsi_nuc.training.registry import train


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = open_checkpoint(path).tensors()
    return state


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_loss_that_is_not_finite_names_step_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = LossNet.forward, [0]

    def broken(self: LossNet, batch: batches_module.Batch) -> Losses:
        calls[0] += 1
        losses = forward(self, batch)
        return losses | {"dice": losses["dice"] * float("nan")} if calls[0] == 2 else losses

    monkeypatch.setattr(LossNet, "forward", broken)
    config = tiny_config(tmp_path / "out", draw(tmp_path / "data"), data={"crops_per_image": 2})
    with pytest.raises(TrainingError, match=r"step 1: .*dice nan.*0_[01], 0_[01]") as caught:
        train(config)
    assert caught.value.exit_code == MODEL


@pytest.mark.parametrize("nuclei", [0, 1])
def test_images_with_zero_or_one_nucleus_train_and_evaluate(tmp_path: Path, nuclei: int) -> None:
    data = draw(tmp_path / "data", images=2, nuclei=nuclei)
    path = train(tiny_config(tmp_path / "out", data, validate=True, stages=["segmentor", "prompter"]))
    assert load_model(str(path)).spec.classes == ("nucleus",)


def test_masks_points_and_foreground_train_in_one_batch(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "out",
        draw(tmp_path / "a", images=1),
        points_only(tmp_path / "b", [(30.5, 40.5), (100.5, 90.5)]),
        foreground_only(tmp_path / "c"),
        train={"together": {"batch": 3, "epochs": 1}},
    )
    seen: list[Event] = []
    train(config, seen.append)
    last = [event.row for event in seen if isinstance(event, EpochDone)][-1]
    assert {"loss_dice", "loss_class", "loss_regression", "loss_mask"} <= set(last)
    assert all(last[name] > 0 for name in ("loss_dice", "loss_class", "loss_mask"))


def test_points_alone_train_a_prompter(tmp_path: Path) -> None:
    data = points_only(tmp_path / "b", [(30.5, 40.5), (100.5, 90.5)])
    path = train(tiny_config(tmp_path / "out", data, validate=True, stages=["prompter"]))
    assert not any(name.startswith("segmentor.") for name in tensors(path))
    assert open_checkpoint(path).info.details["metrics"]["f1"] >= 0


def test_shared_encoder_and_class_token_train_end_to_end(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "out",
        draw(tmp_path / "data"),
        validate=True,
        prompter={"backbone": "convnext_atto", "channels": 16, "space_px": 16, "shared_encoder": True},
        segmentor={"size": "vit_mini", "class_token": True},
    )
    before = LossNet  # the class itself, which the training must not replace
    path = train(config)
    assert before is LossNet
    assert load_model(str(path)).spec.classes == ("nucleus",)


@pytest.mark.slow
def test_the_second_stage_starts_from_the_first_and_keeps_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = train(tiny_config(out, draw(tmp_path / "data"), validate=True, stages=["segmentor", "prompter"]))
    whole, first = tensors(path), tensors(out / "segmentor" / "best.safetensors")
    assert all(torch.equal(whole[name], first[name]) for name in first)
    assert (out / "prompter" / "curves.png").stat().st_size > 1000


@pytest.mark.slow
def test_training_goes_on_from_a_file_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = draw(tmp_path / "data")
    first = train(tiny_config(tmp_path / "one", data))
    slow = {"together": {"batch": 2, "epochs": 1, "lr": 1e-12}}
    second = train(tiny_config(tmp_path / "two", data, init=[first], train=slow, seed=5))
    before, after = tensors(first), tensors(second)
    assert all(torch.allclose(before[n], after[n], atol=1e-4) for n in before if "running" not in n)
    with pytest.raises(ModelError, match="of its tensors do not fit this model"):
        train(tiny_config(tmp_path / "three", data, init=[first], segmentor={"size": "vit_tiny"}))


GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch's SyncBatchNorm needs two GPUs here")


@pytest.mark.slow
@pytest.mark.parametrize(("device", "mask"), [("cpu", 0), pytest.param("cuda", 1, marks=GPUS)])
def test_two_processes_train_as_one(device: str, mask: int, tmp_path: Path) -> None:
    """The batch and its gradient are the same; only the order of sums differs. The region mask has a batch norm,
    which on CPUs sees only the share of its process."""
    data = draw(tmp_path / "data", images=4)
    lines = tiny_config(tmp_path / "x", data, validate=True, device=device).model_dump_json()
    file = tmp_path / "config.yaml"
    file.write_text(lines)
    command = [sys.executable, "-m", "wsi_nuc", "train", str(file), "-q", "--set", "threads=1"]
    command += ["--set", "train.together.lr=1e-6", "--set", f"loss.mask={mask}"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | (
        {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    )
    for name, prefix in (("one", []), ("two", launch)):
        full = (
            [*prefix, *command[1:], "--out", str(tmp_path / name)]
            if prefix
            else [*command, "--out", str(tmp_path / name)]
        )
        done = subprocess.run(full, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
    of_one, of_two = (rows(tmp_path / name / "together") for name in ("one", "two"))
    for loss in ["loss_dice"] + ["loss_mask"] * mask:
        expected = [float(row[loss]) for row in of_one]
        assert [float(row[loss]) for row in of_two] == pytest.approx(expected, rel=0.02)
    assert len(of_one) == len(of_two) == 2


def test_the_files_of_a_training_are_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    path = train(tiny_config(tmp_path / "out", draw(tmp_path / "data"), stages=["prompter"]))
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_training_starts_from_an_official_file(tmp_path: Path) -> None:
    sam = official_sam("vit_mini")
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    slow = {"segmentor": {"batch": 2, "epochs": 1, "lr": 1e-12}}
    config = tiny_config(
        tmp_path / "out", draw(tmp_path / "data"), stages=["segmentor"], init=[tmp_path / "sam.pth"], train=slow
    )
    trained = tensors(train(config))
    name = "mask_decoder.output_upscaling.0.weight"
    assert torch.allclose(trained[f"segmentor.{name}"], sam.state_dict()[name], atol=1e-6)
    with pytest.raises(ModelError, match="there is no such file"):
        train(tiny_config(tmp_path / "x", tmp_path / "data", init=[tmp_path / "gone.pth"]))


def test_two_foreign_files_of_one_name_are_both_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    sam, prompter = official_sam("vit_mini"), PrompterNet(PrompterSettings("convnext_atto", 4, 16, 16), 1)
    for folder, network in (("a", sam), ("b", prompter)):
        (tmp_path / folder).mkdir()
        torch.save({"model": network.state_dict()}, tmp_path / folder / "best.pth")
    config = tiny_config(
        tmp_path / "out",
        draw(tmp_path / "data"),
        init=[tmp_path / "a" / "best.pth", tmp_path / "b" / "best.pth"],
        prompter={"backbone": "convnext_atto", "channels": 16, "space_px": 16, "levels": 4},
    )
    net, known = starting_net(config, "together")
    assert known == {"segmentor", "prompter"}
    state = net.state_dict()
    assert torch.equal(state["prompter.conv.weight"], prompter.state_dict()["conv.weight"])
    upscaling = "mask_decoder.output_upscaling.0.weight"
    assert torch.equal(state[f"segmentor.{upscaling}"], sam.state_dict()[upscaling])


def test_repaired_labels_and_unused_images_are_reported(tmp_path: Path) -> None:
    masks, points = draw(tmp_path / "a"), points_only(tmp_path / "b", [(30.5, 40.5), (300.5, 9.5)])
    file = masks / "labels" / "0_0.png"
    labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    labels[labels == 3] = 0
    cv2.imwrite(str(file), labels)
    config = tiny_config(tmp_path / "out", masks, points, stages=["segmentor"], validate=True)
    seen: list[Event] = []
    train(config, seen.append)
    messages = [event.message for event in seen if isinstance(event, Noted)]
    assert "training images: images with non-consecutive ids: 1" in messages
    assert "validation images: points outside the image (dropped): 1" in messages
    assert "segmentor: 1 of 3 training images are not used, they lack masks" in messages
    assert "segmentor: 1 of 3 validation images are not used, they lack masks" in messages


@pytest.mark.parametrize(
    ("stage", "lacking"), [("segmentor", "masks"), ("together", "masks"), ("prompter", "masks or points")]
)
def test_a_stage_without_the_labels_that_it_needs_is_refused(tmp_path: Path, stage: str, lacking: str) -> None:
    data = foreground_only(tmp_path / "c")
    with pytest.raises(UsageError, match=f"none of 1 images has {lacking}, which the stage {stage}"):
        train(tiny_config(tmp_path / "out", data, stages=[stage]))


def test_worker_processes_make_the_same_batches(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "out", draw(tmp_path / "data", images=3), data={"augment": True})
    images = load_images(config.data.train, config.classes, config.mpp).images
    order = batches_module.Order(len(images), 2, seed=0)
    alone, helped = (
        list(batches_module.batches(batches_module.Crops(images, config, "together"), order, 1, 4, workers))
        for workers in (0, 1)
    )
    assert len(alone) == len(helped) == 3
    for expected, actual in zip(alone, helped, strict=True):
        assert expected.ids == actual.ids
        assert torch.equal(expected.rgb, actual.rgb)
        assert torch.equal(expected.prompt_xy, actual.prompt_xy)


def test_half_precision_trains(tmp_path: Path) -> None:
    seen: list[Event] = []
    train(tiny_config(tmp_path / "out", draw(tmp_path / "data"), precision="bf16"), seen.append)
    losses = [event.loss for event in seen if isinstance(event, StepDone)]
    assert losses
    assert all(0 < loss < 10 for loss in losses)
