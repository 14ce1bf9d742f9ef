"""Intervals hold what they claim, follow from the seed, and a test between two models sees only shared images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, wilcoxon

from tests.training.tiny import draw
from wsi_nuc.datasets.images import combined
from wsi_nuc.datasets.record import SourceConfig
from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.detection import Detection
from wsi_nuc.evaluation.metrics import Panoptic
from wsi_nuc.evaluation.protocol import ImageScore, image_means, pannuke_means
from wsi_nuc.evaluation.report import pairs_of, tables_of, write_report
from wsi_nuc.evaluation.statistics import compared, intervals
from wsi_nuc.evaluation.variants import EvaluateConfig, Result, evaluate_variants, load_evaluate_config


def image(name: str, aji: float, tp: int = 6, fp: int = 2, fn: int = 2, tissue: str = "") -> ImageScore:
    p = Panoptic(tp, fp, fn, 0.8 * tp)
    return ImageScore(
        name, tissue, aji=aji, panoptic=p, panoptic_by_class=(p, Panoptic()), detection=Detection(tp, fp, fn)
    )


def images(values: list[float], tissue: str = "") -> list[ImageScore]:
    rng = np.random.default_rng(1)
    return [image(f"{tissue}{i}", v, *rng.integers(1, 20, 3).tolist(), tissue) for i, v in enumerate(values)]


def test_the_middle_of_an_interval_is_the_score_of_the_data_set() -> None:
    scores = [*images([0.3, 0.5, 0.9, float("nan")], "Breast"), *images([0.1, 0.2], "Colon")]
    plain, tissues = intervals(scores, False, 200, 0), intervals(scores, True, 200, 0)
    means, by_tissue = image_means(scores), pannuke_means(scores)
    assert plain["AJI"].value == pytest.approx(means.aji)
    assert plain["PQ"].value == pytest.approx(means.pq)
    assert plain["F1"].value == pytest.approx(means.detection.f1)
    assert tissues["bPQ"].value == pytest.approx(by_tissue.bpq)
    assert tissues["mPQ"].value == pytest.approx(by_tissue.mpq)
    for interval in (*plain.values(), *tissues.values()):
        assert interval.low < interval.value < interval.high
    assert set(plain) == {"AJI", "PQ", "F1"}


def test_an_interval_follows_from_the_seed_and_agrees_with_the_normal_one_of_many_images() -> None:
    values = np.random.default_rng(0).beta(6, 3, 400)
    scores = [image(str(i), float(v)) for i, v in enumerate(values)]
    first, again, other = (intervals(scores, False, 2000, seed)["AJI"] for seed in (0, 0, 1))
    assert first == again != other
    half = norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    assert (first.high - first.value, first.value - first.low) == pytest.approx((half, half), rel=0.1)


def test_about_95_of_100_intervals_hold_the_true_mean() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(150):
        scores = [image(str(i), float(v)) for i, v in enumerate(rng.normal(0.6, 0.1, 60))]
        interval = intervals(scores, False, 300, 0)["AJI"]
        inside += interval.low < 0.6 < interval.high
    assert 0.89 < inside / 150 < 0.99


def test_draws_keep_the_images_of_each_tissue() -> None:
    """A tissue of one image is in every draw, and adds no width to the interval."""
    lone = intervals([*images([0.5] * 6, "Breast"), image("x", 0.1, 1, 9, 9, "Colon")], True, 300, 0)
    without = intervals(images([0.5] * 6, "Breast"), True, 300, 0)
    wide, narrow = without["bPQ"].high - without["bPQ"].low, lone["bPQ"].high - lone["bPQ"].low
    assert narrow == pytest.approx(wide / 2)


def pair(ours: list[ImageScore], theirs: list[ImageScore]) -> list:
    of = ({s.id: [s] for s in scores} for scores in (ours, theirs))
    return compared("a", "b", "set", *of, ["AJI"], 500, 0)


def test_two_models_are_compared_on_the_images_of_both() -> None:
    better = [0.5, 0.6, 0.7, 0.8, 0.55, 0.65, 0.75, 0.85]
    worse = [v - 0.01 * (i + 1) for i, v in enumerate(better)]
    (result,) = pair([*images(better), image("only a", 0.9)], [*images(worse), image("only b", 0.1)])
    assert result.images == 8
    assert result.difference == pytest.approx(0.045)
    assert 0 < result.low < 0.045 < result.high < 0.08
    assert result.p == wilcoxon(np.subtract(better, worse)).pvalue == 2 / 2**8
    (same,) = pair(images(better), images(better))
    assert (same.difference, same.p) == (0, 1)
    (undecided,) = pair(images([0.5, 0.6, 0.7, 0.8]), images([0.6, 0.5, 0.8, 0.7]))
    assert undecided.low < 0 < undecided.high
    assert undecided.p > 0.5
    assert pair(images([float("nan")] * 3), images([0.5] * 3)) == []


def result(variant: str, row: str, scores: list[ImageScore], data: str = "set") -> Result:
    return Result(variant, row, data, (), False, tuple(scores))


def test_rows_are_compared_with_the_row_of_reference_and_splits_are_averaged_first() -> None:
    results = [
        result("base", "base", images([0.5, 0.6, 0.7])),
        result("split 1", "split", images([0.5, 0.6, 0.7])),
        result("split 2", "split", images([0.7, 0.8, 0.9])),
        result("far", "split", images([0.1]), "other set"),
    ]
    given = {"data": {"set": {"path": "x"}}, "variants": {"base": {"model": "classical"}}}
    config = EvaluateConfig.model_validate(given)
    (aji,) = [pair for pair in pairs_of(results, config) if pair.score == "AJI"]
    assert (aji.row, aji.reference, aji.data, aji.images) == ("split", "base", "set", 3)
    assert aji.difference == pytest.approx(0.1)
    turned = pairs_of(results, config.model_copy(update={"reference": "split"}))
    assert [pair.row for pair in turned] == ["base", "base"]


def test_report_and_scores_hold_intervals_and_pairs(tmp_path: Path) -> None:
    draw(tmp_path / "data", images=3, nuclei=8)
    variants = {"a": {"model": "classical"}, "b": {"model": "classical", "oracle": True}}
    given = {
        "data": {"set": {"path": tmp_path / "data"}},
        "variants": variants,
        "out": tmp_path / "out",
        "draws": 50,
    }
    config = EvaluateConfig.model_validate(given)
    text = write_report(config, evaluate_variants(config))
    assert "95 % intervals over images (50 draws, seed 0)" in text
    assert "Wilcoxon signed-rank" in text
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    aji = written["results"][0]["intervals"]["AJI"]
    assert aji["low"] <= aji["value"] <= aji["high"]
    assert aji["value"] == written["results"][0]["means"]["aji"]
    assert {pair["score"] for pair in written["paired"]} == {"AJI", "PQ"}
    assert written["statistics"]["draws"] == 50
    assert [table["number"] for table in written["tables"]] == ["Overview", "Intervals", "Paired"]


def test_a_data_set_of_several_folders_keeps_images_of_one_name_apart(tmp_path: Path) -> None:
    for name, seed in (("cpm15", 0), ("cpm17", 1)):
        draw(tmp_path / name, images=2, nuclei=6, seed=seed)
        for kind in ("images", "labels"):
            for i in range(2):
                (tmp_path / name / kind / f"{seed}_{i}.png").rename(tmp_path / name / kind / f"image_0{i}.png")
    file = tmp_path / "e.yaml"
    more = [{"path": str(tmp_path / "cpm17")}]
    content = {
        "data": {"CPM": {"path": str(tmp_path / "cpm15"), "more": more}},
        "variants": {"x": {"model": "classical"}},
    }
    file.write_text(json.dumps(content))
    (scored,) = evaluate_variants(load_evaluate_config(file, [], {}, {}))
    names = [score.id.removeprefix(f"{tmp_path.as_posix()}/") for score in scored.scores]
    assert names == ["cpm15/image_00", "cpm15/image_01", "cpm17/image_00", "cpm17/image_01"]
    assert image_means(scored.scores).images == 4
    source = SourceConfig(path=tmp_path / "cpm15")
    with pytest.raises(UsageError, match="is in two sources"):
        combined([source, source])


@pytest.mark.parametrize(
    ("table", "said"),
    [("6", "no variant has parts"), ("7", "no variant has trained_negatives"), ("S2", "no variant has home"),
     ("overlap", "no variant has use.overlap_px")],
)  # fmt: skip
def test_a_table_that_no_variant_belongs_to_is_named(table: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps({"data": {"A": {"path": "a"}}, "variants": {"x": {"model": "classical"}}}))
    with pytest.raises(UsageError, match=said):
        load_evaluate_config(file, [f"tables=['{table}']"], {}, {})
    with pytest.raises(UsageError, match="reference y: is not a row"):
        load_evaluate_config(file, ["reference=y"], {}, {})


def test_pannukes_tables_are_refused_for_other_data(tmp_path: Path) -> None:
    draw(tmp_path / "data", images=1, nuclei=6)
    given = {
        "data": {"A": {"path": tmp_path / "data"}},
        "variants": {"x": {"model": "classical"}},
        "tables": ["8"],
    }
    with pytest.raises(UsageError, match="Table 8 is about PanNuke"):
        evaluate_variants(EvaluateConfig.model_validate(given))
    results = evaluate_variants(EvaluateConfig.model_validate(given | {"tables": ["5"], "protocol": "pannuke"}))
    (table,) = [
        t
        for t in tables_of(results, EvaluateConfig.model_validate(given | {"tables": ["5"]}))
        if t.number == "Table 5"
    ]
    parameters, _, _, speed, mpq, *_ = table.rows["x"]
    assert np.isnan(parameters)  # the classical model has none
    assert speed > 0
    assert np.isnan(mpq)  # no classes
