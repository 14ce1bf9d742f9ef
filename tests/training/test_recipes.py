"""`recipe` and `preset`: what they stand for, that each key can still be changed, and what the keys do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

from tests.training.tiny import draw, tiny_config
from wsi_nuc.cli import app
from wsi_nuc.datasets.images import load_images
from wsi_nuc.datasets.overlaps import compact
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.detection import Detection
from wsi_nuc.evaluation.evaluate import evaluate_images
from wsi_nuc.evaluation.metrics import Panoptic
from wsi_nuc.evaluation.protocol import ImageScore, image_means
from wsi_nuc.models.promptnucseg.build import assemble, spec_of
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.events import EpochDone, Event
from wsi_nuc.training.loop import Stage
from wsi_nuc.training.pieces import centre_of_contour
from wsi_nuc.training.promptnucseg.augment import RELEASED, TABLE_S1, Augmentation, Sample, Truth, make_sample
from wsi_nuc.training.promptnucseg.batches import Crops, collate
from wsi_nuc.training.promptnucseg.config import Part, StageConfig, TrainConfig
from wsi_nuc.training.promptnucseg.recipe import Data, _rate, by_class, stage_of
from wsi_nuc.training.ranks import Ranks, synchronised
from wsi_nuc.training.registry import load_train_config, train
from wsi_nuc.training.state import Ema
from wsi_nuc.types import Box, Tile, TileBatch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


CONFIGS = Path(__file__).parents[2] / "configs"

# Dotted key, then its value by the paper and by the released code.
DIFFERENCES: dict[str, list[tuple[str, Any, Any]]] = {
    "all": [
        ("loss.focal_alpha", 0.25, None),
        ("loss.dice", "mask", "batch"),
        ("loss.iou", "hard", "soft"),
        ("loss.class_mean", "anchors", "weights"),
        ("loss.regression", "l2", "squared"),
        ("data.augment", True, "released"),
        ("data.cut_nuclei", "apart", "whole"),
        ("data.points", "mass", "contour"),
        ("data.mirrored_points", True, False),
        ("train.prompter.ema_after", 0, 5),
        ("prompts.negatives", 1, 0),
        ("use.negatives", 1, 0),
        ("train.segmentor.weight_decay", 0.0, 1e-4),
        ("train.segmentor.schedule", "constant", "steps"),
        ("train.segmentor.clip", 0.0, 0.0),
        ("train.prompter.optimizer", "adam", "adamw"),
        ("train.prompter.weight_decay", 0.0, 1e-4),
        ("train.prompter.clip", 0.0, 0.1),
        ("train.prompter.ema", 0.0, 0.99),
    ],
    "kumar": [
        ("train.segmentor.milestones", [], [200]),
        ("train.segmentor.optimizer", "adam", "adamw"),
        ("train.prompter.crop_px", 256, 1000),
        ("train.prompter.lr", 1e-4, 1e-4),
        ("prompts.nuclei", 25, 25),
        ("use.mask_filter", True, True),
        ("train.segmentor.batch", 16, 16),
        ("train.prompter.epochs", 600, 600),
        ("use.box_iou", 0.3, 0.3),
    ],
    "cpm17": [
        ("train.segmentor.milestones", [], [300]),
        ("train.segmentor.optimizer", "adam", "adam"),
        ("train.prompter.crop_px", 256, 500),
        ("train.segmentor.batch", 32, 32),
        ("train.segmentor.epochs", 400, 400),
    ],
    "pannuke": [
        ("train.segmentor.milestones", [], [100]),
        ("train.prompter.crop_px", 256, 256),
        ("train.prompter.lr", 1e-4, 2e-4),
        ("prompts.nuclei", 25, 20),
        ("use.mask_filter", True, False),
        ("train.segmentor.batch", 64, 64),
        ("train.prompter.batch", 16, 16),
    ],
}
FILES = {"kumar": "kumar", "cpm17": "cpm17", "pannuke": "pannuke-213"}


def at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def loaded(preset: str, *assignments: str) -> dict[str, Any]:
    config = load_train_config(CONFIGS / f"{FILES[preset]}.yaml", assignments, {})
    values: dict[str, Any] = config.model_dump(mode="json")
    return values


@pytest.mark.parametrize("preset", list(FILES))
def test_a_recipe_stands_for_these_values(preset: str) -> None:
    wanted = DIFFERENCES["all"] + DIFFERENCES[preset]
    for recipe, column in (("paper", 1), ("released", 2)):
        values = loaded(preset, f"recipe={recipe}")
        assert {row[0]: at(values, row[0]) for row in wanted} == {row[0]: row[column] for row in wanted}


def test_the_largest_segmentor_of_cpm17_has_a_negative_in_the_released_code() -> None:
    values = loaded("cpm17", "recipe=released", "segmentor.size=vit_h")
    assert (values["prompts"]["negatives"], values["use"]["negatives"]) == (1, 1)
    assert values["train"]["segmentor"]["optimizer"] == "adamw"


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_each_key_that_a_recipe_sets_can_be_changed_alone(recipe: str) -> None:
    plain = loaded("kumar", f"recipe={recipe}")
    rows = DIFFERENCES["all"] + DIFFERENCES["kumar"]
    for key, paper, released in rows:
        other = released if recipe == "paper" else paper
        changed = loaded("kumar", f"recipe={recipe}", f"{key}={json.dumps(other)}")
        assert {k: at(changed, k) for k, *_ in rows} == {k: at(plain, k) for k, *_ in rows} | {key: other}


def test_keys_of_the_file_win_over_the_recipe_and_set_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "{recipe: released, out: o, classes: [a], data: {train: [{path: d}]},"
        " loss: {dice: mask}, train: {prompter: {clip: 3.0}}}"
    )
    values = load_train_config(file, ["train.prompter.clip=5"], {}).model_dump()
    assert (values["loss"]["dice"], values["loss"]["iou"]) == ("mask", "soft")
    assert (values["train"]["prompter"]["clip"], values["train"]["prompter"]["ema"]) == (5.0, 0.99)


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_show_prints_a_file_that_says_the_same_without_a_recipe(recipe: str, tmp_path: Path) -> None:
    call = ["train", str(CONFIGS / "kumar.yaml"), "--show", "--set", f"recipe={recipe}"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    shown = yaml.safe_load(done.stdout)
    assert shown.pop("recipe") == recipe
    del shown["preset"]
    (tmp_path / "shown.yaml").write_text(yaml.safe_dump(shown))
    again = load_train_config(tmp_path / "shown.yaml", [], {}).model_dump(mode="json")
    assert {key: value for key, value in again.items() if key not in ("recipe", "preset")} == shown


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("recipe=papr", "recipe = 'papr'"),
        ("preset=monuseg", "preset = 'monuseg'"),
        ("prompter.class_agnostic=true", "nothing classifies"),
        ("train.segmentor.crop_px=500", "the window of the segmentor"),
        ("loss.dice=image", "loss.dice = 'image'"),
    ],
)
def test_what_cannot_be_is_named(assignment: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_train_config(CONFIGS / "pannuke-123.yaml", [assignment], {})


def test_steps_are_those_of_multisteplr() -> None:
    plan = StageConfig(epochs=10, lr=0.5, schedule="steps", milestones=(3, 7), decay=0.2)
    per_epoch = 4
    share = _rate(plan, plan.epochs * per_epoch)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[3, 7], gamma=0.2)
    for epoch in range(plan.epochs):
        for step in range(per_epoch):
            expected = optimizer.param_groups[0]["lr"]
            assert plan.lr * share(epoch * per_epoch + step) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        theirs.step()


def test_synchronised_norms_keep_their_names_and_weights_and_are_trained() -> None:
    """Their statistics over several GPUs are torch's own; that the module stays the same one is not."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    optimizer, names = torch.optim.SGD(net.parameters(), lr=1.0), list(net.state_dict())
    shown = torch.randn(2, 3, 16, 16)
    before = net.eval()(shown)
    made = synchronised(net)
    assert made is net
    assert isinstance(net[1][0], nn.SyncBatchNorm)
    assert list(net.state_dict()) == names
    assert torch.equal(net(shown), before)
    net(shown).sum().backward()
    optimizer.step()
    assert bool(net[1][0].bias.detach().any())


def step(name: str) -> Augmentation:
    """This step alone, in every image, on images of 64 px."""
    made = Augmentation((name,), crop_px=64)
    made._compose.transforms[-1].p = 1.0
    return made


def pixels(made: Augmentation, rgb: Any, seed: int) -> Any:
    empty = np.zeros(rgb.shape[:2], np.uint16)
    return made(rgb, empty, np.zeros((0, 2)), np.zeros(0, np.int64), seed)[0]


def test_the_blur_is_a_box_of_3_5_7_or_9_pixels() -> None:
    """`blur_limit: 10` in albumentations 1.x: `choice(range(3, 10 + 1, 2))`."""
    dot = np.zeros((64, 64, 3), np.uint8)
    dot[32, 32] = 255
    blur = step("blur")
    edges = [int((pixels(blur, dot, seed)[32, :, 0] > 0).sum()) for seed in range(200)]
    counts = {edge: edges.count(edge) for edge in set(edges)}
    assert set(counts) == {3, 5, 7, 9}
    assert min(counts.values()) > 25


def test_the_variance_of_the_noise_is_drawn_evenly_up_to_50() -> None:
    """`var_limit: 50` in albumentations 1.x: `sigma = uniform(0, 50) ** 0.5`, in grey levels."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    noise = step("noise")
    seen = np.sort([np.var(pixels(noise, grey, seed).astype(float)) for seed in range(400)])
    even = 50 * (np.arange(400) + 0.5) / 400
    assert np.abs(seen - even).max() < 4  # evenly drawn deviations would be 12 off
    assert seen.mean() == pytest.approx(25, abs=1.5)


def picture(size: int) -> LabelledImage:
    rng = np.random.default_rng(0)
    labels = np.zeros((size, size), np.int32)
    for n in range(12):
        y, x = rng.integers(0, size - 14, 2)
        labels[y : y + 14, x : x + 12] = n + 1
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    rgb = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
    return LabelledImage("one", rgb, labels, np.zeros(labels.max(), np.int64), mpp=0.25, classes=("nucleus",))


@pytest.mark.parametrize("steps", [("crop",), TABLE_S1, RELEASED["prompter"]], ids=["plain", "S1", "released"])
def test_a_whole_image_is_a_sample_continued_to_whole_anchors(steps: tuple[str, ...]) -> None:
    image, use = picture(500), tiny_config(Path("o"), Path("d")).use
    made = make_sample(image, Augmentation(steps, 500, 16), None, use, 3)
    assert made.rgb.shape == (512, 512, 3)
    assert made.instances.shape == (512, 512)
    assert len(made.prompt_id) == 0
    if steps == ("crop",):
        assert np.array_equal(made.rgb[:500, :500], image.rgb)
        assert np.array_equal(made.rgb[500:], made.rgb[498:486:-1])
    batch = collate([made])
    assert batch.rgb.shape == (1, 512, 512, 3)
    assert batch.region.shape == (1, 512, 512)


def test_the_average_may_begin_as_a_copy() -> None:
    net = nn.Linear(1, 1, bias=False)
    average = Ema(net, 0.9, copied=2)
    seen = []
    for step, weight in enumerate([1.0, 2.0, 3.0, 3.0]):
        nn.init.constant_(net.weight, weight)
        average.update(step)
        seen.append(float(average.net.weight))
    assert seen == pytest.approx([1.0, 2.0, 2.1, 2.19])


def test_what_a_nucleus_is_can_be_as_released() -> None:
    """One point for both parts of a nucleus, on a whole pixel of the larger, and none in the mirrored strip."""
    mask = np.zeros((512, 512), np.uint16)
    mask[10:20, 10:30] = 7  # an even length, so the centre lies between two pixels
    mask[40:45, 10:30] = 7
    mask[480:512, 300:310] = 9
    mask[500:503, 505:508] = 12
    image = LabelledImage("one", np.zeros((512, 512, 3), np.uint8), mask.astype(np.int32), mpp=0.25)
    use = tiny_config(Path("o"), Path("d")).use

    def sample(truth: Truth) -> Sample:
        return make_sample(
            image, lambda *given: (*given[:2], np.zeros((0, 2)), np.zeros(0, np.int64)), None, use, 0, truth
        )

    here, released = sample(Truth()), sample(Truth(compact, centre_of_contour, 500))
    assert here.points_xy is not None
    assert released.points_xy is not None
    assert here.points_xy[:2].tolist() == [[20.0, 15.0], [20.0, 42.5]]
    assert len(here.points_xy) == 3  # 9 px are too few for a piece
    assert released.points_xy.tolist() == [[20.5, 14.5], [304.5, 490.5]]
    assert len(np.unique(released.instances)) == 3
    assert released.region is not None
    assert released.region[505, 305]


def test_recipes_say_what_a_nucleus_is() -> None:
    for recipe, expected in (("paper", Truth()), ("released", Truth(compact, centre_of_contour, 1000))):
        given = {
            "recipe": recipe,
            "preset": "kumar",
            "out": "o",
            "data": {"train": [{"path": "d"}]},
            "classes": ["nucleus"],
        }
        assert Truth.of(TrainConfig.model_validate(given), "prompter") == expected


@pytest.mark.slow
def test_a_prompter_trains_on_whole_images_beside_a_segmentor_on_crops(tmp_path: Path) -> None:
    stage = {"batch": 1, "epochs": 1, "lr": 1e-3}
    config = tiny_config(
        tmp_path / "out",
        draw(tmp_path / "data", images=1, size=300),
        stages=["segmentor", "prompter"],
        train={"segmentor": stage, "prompter": {**stage, "crop_px": 300}},
    )
    assert Crops([picture(300)], config, "prompter")[0, 0].rgb.shape == (304, 304, 3)
    for part in ("segmentor", "together"):
        assert Crops([picture(300)], config, part)[0, 0].rgb.shape == (256, 256, 3)
    assert load_model(str(train(config))).spec.classes == ("nucleus",)


def test_the_best_weights_are_those_of_the_classes() -> None:
    """A score of nuclei whose classes are wrong does not count."""

    def score(group: str, tps: tuple[int, int], f1: tuple[int, int]) -> ImageScore:
        classes = tuple(Panoptic(tp=tp, fp=0, fn=4 - tp, iou_sum=0.8 * tp) for tp in tps)
        points = tuple(Detection(tp, 0, 4 - tp) for tp in f1)
        return ImageScore("same", group, panoptic_by_class=classes, detection_by_class=points)

    scores = [score("lung", (4, 0), (4, 2)), score("skin", (2, 2), (0, 2))]
    pq = {0: 0.0, 2: 0.8 * 2 / 3, 4: 0.8}
    mpq = ((pq[4] + pq[0]) / 2 + pq[2]) / 2
    f1 = 2 * 4 / (2 * 4 + 4)
    assert by_class(scores, points=False) == {"mpq": pytest.approx(mpq), "quality": pytest.approx(mpq)}
    assert by_class(scores, points=True) == {"class_f1": pytest.approx(f1), "quality": pytest.approx(f1)}
    for points in (True, False):
        assert "quality" not in by_class([ImageScore("x"), ImageScore("y")], points)


def two_classes(folder: Path, names: tuple[str, str] = ("a", "b")) -> Path:
    draw(folder, images=1)
    (folder / "types").mkdir()
    for file in (folder / "labels").iterdir():
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(folder / "types" / file.name), np.where(labels > 0, 1 + labels % 2, 0).astype(np.uint8))
    (folder / "dataset.json").write_text(json.dumps({"mpp": 0.25, "classes": names}))
    return folder


def stage(config: TrainConfig, part: Part) -> Stage:
    loaded_images = load_images(config.data.train, config.classes, config.mpp)
    return stage_of(config, part, Data(loaded_images, loaded_images), Ranks(0, 1, torch.device("cpu")))


def test_with_classes_a_prompter_is_judged_by_class_f1(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "out", two_classes(tmp_path / "d"), classes=["a", "b"], stages=["prompter"])
    made = stage(config, "prompter")
    row = made.scores(made.net)
    assert row["quality"] == row["class_f1"]
    assert "mpq" not in row


TOKEN: dict[str, Any] = {
    "classes": ["a", "b"],
    "prompter": {"backbone": "convnext_atto", "channels": 16, "space_px": 16, "class_agnostic": True},
    "segmentor": {"size": "vit_mini", "class_token": True},
    "stages": ["segmentor", "prompter"],
}


def test_a_class_agnostic_prompter_leaves_the_classes_to_the_segmentor(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "out", two_classes(tmp_path / "d"), **TOKEN)
    losses = {part: (made := stage(config, part)).module(next(made.batches(0))) for part in config.stages}
    assert losses["segmentor"]["token"].item() > 0
    assert losses["prompter"]["class"].item() > 0
    net, settings = stage(config, "prompter").net, config.settings()
    assert net.prompter.cls_head.layers[-1].out_features == 2
    with torch.no_grad():
        net.prompter.cls_head.layers[-1].bias[:] = torch.tensor([1.0, 0.0])  # finds nuclei everywhere
    model, box = assemble(net, settings, "cpu", spec_of(settings, "")), Box(0, 0, 64, 64)
    rgb = np.full((1, 64, 64, 3), 200, np.uint8)
    prompts = model.look(TileBatch(rgb, (Tile(0, box, box),))).prompts.get()
    assert len(prompts) > 0
    assert (prompts.class_probs == 0.5).all()
    assert prompts.class_probs.shape == (len(prompts), 2)


@pytest.mark.slow
def test_both_train_and_are_judged_by_mpq(tmp_path: Path) -> None:
    stages = {part: {"batch": 2, "epochs": 1, "lr": 1e-3} for part in ("segmentor", "prompter")}
    config = tiny_config(tmp_path / "out", two_classes(tmp_path / "d"), validate=True, train=stages, **TOKEN)
    seen: list[Event] = []
    path = train(config, seen.append)
    rows = {event.stage: event.row for event in seen if isinstance(event, EpochDone)}
    assert rows["segmentor"]["quality"] == rows["segmentor"]["mpq"]
    assert rows["prompter"]["quality"] == rows["prompter"]["mpq"]
    assert open_checkpoint(path).info.shapes["prompter.cls_head.layers.3.bias"] == (2,)
    assert load_model(str(path)).spec.classes == ("a", "b")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["class-token", "shared-encoder"])
@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_the_studies_of_the_paper_train_as_one_configuration(name: str, recipe: str, tmp_path: Path) -> None:
    """As shipped, with networks that fit here."""
    data = two_classes(tmp_path / "d", ("neoplastic", "dead"))
    changes = ["segmentor.size=vit_mini", "prompter.backbone=convnext_atto", "prompter.channels=16"]
    for part in ("segmentor", "prompter", "together"):
        changes += [f"train.{part}.batch=1", f"train.{part}.epochs=1"]
    classes = "{}" if name == "class-token" else "{neoplastic: nucleus, dead: nucleus}"
    changes += [f"data.{part}=[{{path: {data}, classes: {classes}}}]" for part in ("train", "validation")]
    changes += ["data.workers=0", "use.windows=1", f"recipe={recipe}"]
    config = load_train_config(CONFIGS / f"{name}.yaml", changes, {"out": tmp_path / "out", "device": "cpu"})
    path = train(config)
    model = load_model(str(path))
    assert model.spec.classes == config.classes
    scores = evaluate_images(model, load_images(config.data.train, config.classes, 0.25).images)
    assert image_means(scores).images == 1
