"""Evaluation runs the code of inference: a model that knows the truth scores 1 at every resolution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.models.looking import model_of
from tests.models.published import published_targets
from tests.training.tiny import draw
from wsi_nuc.cli import app
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.evaluate import (
    Scoring,
    class_table,
    evaluate_image,
    evaluate_images,
    predict_image,
    quality,
    truth_of,
)
from wsi_nuc.evaluation.painting import Masks, target_points
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.evaluation.report import KINDS, tables_of, write_report
from wsi_nuc.evaluation.variants import EvaluateConfig, evaluate_variants, load_evaluate_config, unmatched
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.types import MaskCrops, Prompts, TileBatch

SPEC = ModelSpec("truth", ("round", "long"), 0.25, 256, 104, 96, 8, 2, "")


@dataclass
class KnowsAll:
    """A prompter and segmentor that knows the nuclei."""

    labels: np.ndarray
    """H x W, at the model's resolution."""
    types: np.ndarray
    """The class of each point."""
    xy: np.ndarray
    """N x 2 points that it proposes."""
    asked: int = 0
    """How many masks it was asked for."""

    def propose(self, batch: TileBatch) -> Prompts:
        count = len(self.xy)
        probs = np.eye(2, dtype=np.float32)[self.types]
        return Prompts(self.xy.astype(np.float32), np.ones(count, np.float32), probs, np.zeros(count, np.int64))

    def segment(self, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> Sequence[MaskCrops]:
        self.asked += len(wanted)
        index = np.asarray(wanted, np.int64)
        at = np.clip(prompts.xy_tile[index].astype(int), 0, np.array(self.labels.shape[::-1]) - 1)
        under = self.labels[at[:, 1], at[:, 0]]
        masks = ((self.labels[None] == under[:, None, None]) & (under > 0)[:, None, None]).astype(np.uint8)
        ones = np.ones(len(index), np.float32)
        return [
            MaskCrops(masks, np.zeros((len(index), 2), np.int64), index, ones, ones, prompts.class_probs[index])
        ]


def scene(mpp: float = 0.25, nuclei: int = 9, classes: tuple[str, ...] = ("round", "long")) -> LabelledImage:
    labels = np.zeros((240, 320), np.int32)
    for n in range(nuclei):
        cv2.ellipse(labels, (40 + 100 * (n % 3), 40 + 75 * (n // 3)), (14, 22), 25 * n, 0, 360, n + 1, -1)
    types = np.arange(nuclei) % 2
    rgb = np.full((240, 320, 3), 220, np.uint8)
    return LabelledImage("scene", rgb, labels, types.astype(np.int64), mpp=mpp, classes=classes)


def knowing(image: LabelledImage) -> KnowsAll:
    """A stand-in that knows the nuclei of the image, for a model at 0.25 um/px."""
    assert image.instances is not None
    assert image.types is not None
    assert image.mpp is not None
    scale = image.mpp / 0.25
    labels = cv2.resize(
        image.instances.astype(np.float32), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST
    )
    return KnowsAll(labels.astype(np.int32), image.types, truth_of(image).points.xy * scale)


def knowing_model(image: LabelledImage) -> NucleiModel:
    return model_of(SPEC, knowing(image))


@pytest.mark.parametrize("mpp", [0.25, 0.125, 0.5])
@pytest.mark.parametrize("oracle", [False, True])
def test_the_truth_scores_nearly_one_at_every_resolution(mpp: float, oracle: bool) -> None:
    image = scene(mpp)
    score = evaluate_image(knowing_model(image), image, Scoring(oracle=oracle))
    assert score.panoptic.dq == 1
    assert score.panoptic.sq > 0.93
    assert score.detection.f1 == 1
    assert [counts.f1 for counts in score.hover_by_class] == [1, 1]


def torn(mpp: float = 0.25) -> LabelledImage:
    """Nuclei that tracing changes: one in two parts, one with a hole, touching ones, and one of two pixels."""
    image = scene(mpp)
    assert image.instances is not None
    image.instances[38:42, :60] = 0  # nucleus 1 falls into two halves
    image.instances[36:44, 136:144] = 0  # a hole in nucleus 2
    cv2.ellipse(image.instances, (266, 40), (14, 22), 0, 0, 360, 10, -1)  # covers a part of nucleus 3
    image.instances[238:240, 318] = 11
    return replace(image, types=np.arange(11, dtype=np.int64) % 2)


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("image", [scene(), torn()])
def test_a_perfect_set_of_masks_scores_one_in_every_mode(image: LabelledImage, as_published: bool) -> None:
    model = knowing_model(image)
    model = replace(model, spec=replace(model.spec, as_published=as_published))
    score = evaluate_image(model, image, Scoring(oracle=True))
    assert score.aji == score.aji_plus == score.dice == score.panoptic.pq == 1
    assert [each.pq for each in score.panoptic_by_class] == [1, 1]
    assert score.traced_pq < 1
    assert score.traced_aji < 1


def test_the_table_says_what_tracing_the_masks_loses(tmp_path: Path) -> None:
    data = draw(tmp_path / "data", images=1, nuclei=8)
    config = load_evaluate_config(None, [], {"models": ["classical"]}, {"path": data})
    (result,) = evaluate_variants(config)
    (row,) = tables_of([result])[0].rows.values()
    cells = dict(zip(KINDS, row, strict=True))
    (score,) = result.scores
    assert cells["PQ lost"] == score.panoptic.pq - score.traced_pq != 0
    assert cells["AJI lost"] == score.aji - score.traced_aji != 0
    assert "AJI lost  PQ lost" in write_report(config, [result])


def test_masks_are_painted_the_better_one_on_top_and_cut_at_the_image() -> None:
    blocks = [np.ones((1, 4, 4), np.uint8), np.ones((2, 6, 6), np.uint8)]
    groups = [
        MaskCrops(block, np.array(at, np.int64), np.array(prompt), score, iou, np.eye(2, dtype=np.float32)[prompt])
        for block, at, prompt, score, iou in (
            (blocks[0], [[2, 2]], [1], np.float32([0.5]), np.float32([0.7])),
            (blocks[1], [[4, 4], [-3, 7]], [0, 1], np.float32([0.9, 0.4]), np.float32([0.6, 1.2])),
        )
    ]
    masks = Masks.of(groups)
    assert masks.by_predicted_iou().tolist() == [1, 0, 2]
    nuclei = masks.paint(np.array([1, 0, 2]), 1.0, (10, 10))
    expected = np.zeros((10, 10), int)
    expected[4:10, 4:10], expected[2:6, 2:6], expected[7:, :3] = 2, 1, 3
    assert nuclei.labels is not None
    assert nuclei.labels.tolist() == expected.tolist()
    assert nuclei.points.types.tolist() == [1, 0, 1]
    finer = masks.paint(np.array([1, 0, 2]), 0.5, (20, 20)).labels
    assert finer is not None
    assert (finer == np.kron(expected, np.ones((2, 2)))).mean() > 0.97  # corners are rounded
    assert len(masks.paint(np.array([0, 1]), 1.0, (10, 10)).points.xy) == 2
    hidden = masks.paint(np.array([0, 0, 2]), 1.0, (10, 10))
    assert len(hidden.points.xy) == 2


def test_true_points_are_those_of_the_published_program() -> None:
    labels = np.zeros((40, 40), np.int32)
    cv2.ellipse(labels, (10, 10), (5, 7), 20, 0, 360, 1, -1)
    labels[30, 5:12] = 2  # a line has no area
    labels[20:36, 20:36] = 3
    labels[22:36, 22:36] = 0  # an angle, whose centre lies on background
    labels[24:27, 24:27] = 4
    labels[2:18, 30], labels[2, 20:30], labels[17, 20:30] = 5, 5, 5  # a bow around background
    types = np.array([0, 1, 0, 1, 0])
    expected = published_targets(labels, None)[0].tolist()
    assert (target_points(labels, types, False).xy - 0.5).tolist() == expected
    several = target_points(labels, types, True)
    under = [labels[y, x] for x, y in expected]
    assert under == [1, 2, 4, 4, 0]
    assert several.types.tolist() == [types[label - 1] for label in under if label]


def test_the_oracle_asks_for_the_annotated_points_only() -> None:
    image = scene()
    whole = knowing(image)
    blind = model_of(SPEC, KnowsAll(np.zeros((1, 1)), np.zeros(0, np.int64), np.zeros((0, 2))), whole)
    assert evaluate_image(blind, image, Scoring()).panoptic.pq == 0
    assert evaluate_image(blind, image, Scoring(oracle=True)).panoptic.dq == 1
    assert whole.asked == 9


def test_two_points_on_one_nucleus_give_it_once() -> None:
    image = scene()
    whole = knowing(image)
    twice = KnowsAll(whole.labels, np.r_[image.types, image.types], np.r_[whole.xy, whole.xy + 2])
    predicted = predict_image(model_of(SPEC, twice, whole), image)
    assert len(predicted.points.xy) == 9


@pytest.mark.parametrize("nuclei", [0, 1])
def test_zero_and_one_nucleus(nuclei: int) -> None:
    image = scene(nuclei=nuclei)
    score = evaluate_image(knowing_model(image), image, Scoring(oracle=True))
    assert score.detection.tp == nuclei
    assert quality([score]) == pytest.approx(score.panoptic.pq if nuclei else -1.0)


def test_classes_are_compared_by_name() -> None:
    image = scene(classes=("long", "round"))  # the data set numbers its classes the other way round
    assert image.types is not None
    model = model_of(SPEC, knowing(replace(image, types=1 - image.types)))
    assert [counts.f1 for counts in evaluate_image(model, image, Scoring()).hover_by_class] == [1, 1]
    foreign = scene(classes=("lymphocyte", "other"))
    assert evaluate_image(knowing_model(foreign), foreign, Scoring()).hover_by_class == ()
    mapped = Scoring(classes={"round": "lymphocyte"})
    assert evaluate_image(knowing_model(foreign), foreign, mapped).hover_by_class[0].f1 == 1
    table = class_table(("a", "b"), foreign, {"a": "other"})
    assert table is not None
    assert table.tolist() == [1, -1, -1]


def test_points_alone_are_scored_as_detection_and_a_foreground_is_refused() -> None:
    image = scene()
    model, xy = knowing_model(image), truth_of(image).points.xy
    dots = replace(image, instances=None, types=None, points_xy=xy, point_types=np.zeros(9, np.int64),
                   point_classes=("nucleus",))  # fmt: skip
    scores = evaluate_images(model, [dots], Scoring())
    assert np.isnan(image_means(scores).pq)
    assert quality(scores) == image_means(scores).detection.f1 == 1
    assert quality(evaluate_images(model, [image], Scoring(masks=False))) == 1
    with pytest.raises(UsageError, match="only its foreground is known"):
        evaluate_image(model, replace(dots, points_xy=None, foreground=np.zeros((240, 320), bool)), Scoring())


def test_variants_by_name_are_rows_and_splits_are_averaged(tmp_path: Path) -> None:
    draw(tmp_path / "a", images=1, nuclei=8)
    draw(tmp_path / "b", images=1, nuclei=8, seed=1)
    file = tmp_path / "two.yaml"
    content = {
        "data": {"A": {"path": str(tmp_path / "a")}, "B": {"path": str(tmp_path / "b")}},
        "variants": {
            "plain": {"model": "classical", "home": "plain"},
            "split 1": {"model": "classical", "oracle": True, "data": ["A"], "row": "oracle"},
            "split 2": {"model": "classical", "oracle": True, "data": ["B"], "row": "oracle"},
        },
    }
    file.write_text(json.dumps(content))
    config = load_evaluate_config(file, ["tables=['4', S2, S3]"], {}, {})
    results = evaluate_variants(config)
    assert [(r.variant, r.data) for r in results] == [
        ("plain", "A"),
        ("plain", "B"),
        ("split 1", "A"),
        ("split 2", "B"),
    ]
    table = tables_of(results)[0]
    assert list(table.rows) == ["plain", "oracle"]
    assert len(table.columns) == 2 * 11
    asked = tables_of(results, config)
    assert [table.number for table in asked] == ["Overview", "Table 4", "Table S2", "Table S3"]
    assert list(asked[2].rows) == ["plain -> A", "plain -> B"]
    pair = asked[2].rows["plain -> A"][0]
    assert isinstance(pair, tuple)
    assert pair[0] == pair[1] > 0


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("variants.x.data=[nowhere]", "nowhere is not one of the data sets. Known: A"),
        ("variants.x.home=nowhere", "nowhere is not a variant. Known: x"),
        ("protocoll=images", "Did you mean protocol"),
    ],
)
def test_mistakes_are_named(assignment: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps({"data": {"A": {"path": "a"}}, "variants": {"x": {"model": "classical"}}}))
    with pytest.raises(UsageError, match=said):
        load_evaluate_config(file, [assignment], {}, {})


@pytest.mark.parametrize(
    ("model", "use", "said"),
    [("default", "thresold", "Did you mean threshold"), ("classical", "threshold", "no options of use")],
)
def test_an_unknown_option_is_refused_before_anything_is_scored(model: str, use: str, said: str) -> None:
    variants = {"fine": {"model": "classical"}, "wrong": {"model": model, "use": {use: 0.5}}}
    config = EvaluateConfig.model_validate({"data": {"A": {"path": "nowhere"}}, "variants": variants})
    with pytest.raises(UsageError, match=said):
        evaluate_variants(config)


def test_set_reaches_into_the_data_and_models_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps({"data": {"A": {"path": "a"}}, "variants": {"x": {"model": "classical"}}}))
    config = load_evaluate_config(
        file,
        ["data.mine.images=[one]", "variants.run/model.use.tta=true"],
        {"models": ["run/model.safetensors"]},
        {"path": Path("mine")},
    )
    assert set(config.data) == {"mine"}
    assert config.data["mine"].images == ("one",)
    assert config.data["mine"].path == Path("mine")
    assert config.variants["run/model"].use == {"tta": True}
    with pytest.raises(UsageError, match=r"data\.other\.path: is missing"):
        load_evaluate_config(file, ["data.other.images=[one]"], {}, {"path": Path("mine")})


def test_repaired_labels_and_classes_of_one_side_are_noted(tmp_path: Path) -> None:
    data = draw(tmp_path / "data", images=1, nuclei=8)
    labels = cv2.imread(str(data / "labels" / "0_0.png"), cv2.IMREAD_UNCHANGED)
    labels[labels == 2] = 0
    cv2.imwrite(str(data / "labels" / "0_0.png"), labels)
    (data / "types").mkdir()
    cv2.imwrite(str(data / "types" / "0_0.png"), (labels > 0).astype(np.uint8))
    (data / "dataset.json").write_text(json.dumps({"mpp": 0.25, "classes": ["epithelial", "spindle"]}))
    config = load_evaluate_config(None, [], {"models": ["classical"]}, {"path": data})
    (result,) = evaluate_variants(config)
    assert "data: images with non-consecutive ids: 1" in result.notes
    assert any(
        "spindle only in the data; connective, inflammatory, other only in the model" in n for n in result.notes
    )
    assert write_report(config, [result]).splitlines()[-1] == result.notes[-1]
    assert unmatched("x", "y", ["nucleus"], []) == []


def test_the_command_writes_tables_and_strict_json(tmp_path: Path) -> None:
    data = draw(tmp_path / "data", images=2, nuclei=8)
    command = ["evaluate", str(data), "--model", "classical", "--oracle", "--out", str(tmp_path / "out"), "-q"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "classical (oracle)" in done.stdout
    assert "| classical (oracle) |" in (tmp_path / "out" / "tables.md").read_text()
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert len(scores["results"][0]["images"]) == 2
    assert scores["results"][0]["means"]["pq"] > 0
