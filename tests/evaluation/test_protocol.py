"""The means of the papers, on scores that are easy to work out by hand, and the tables that print them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import shapely

from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation import published, tables
from wsi_nuc.evaluation.detection import ClassCounts, Detection, Points
from wsi_nuc.evaluation.metrics import Panoptic
from wsi_nuc.evaluation.protocol import (
    ImageScore,
    Nuclei,
    centroids,
    image_means,
    nuclei_of_labels,
    pannuke_means,
    score_image,
)
from wsi_nuc.evaluation.report import tables_of
from wsi_nuc.evaluation.variants import Result


def labels_of(*boxes: tuple[int, int, int, int], size: int = 40) -> np.ndarray:
    labels = np.zeros((size, size), np.int32)
    for i, (x, y, w, h) in enumerate(boxes):
        labels[y : y + h, x : x + w] = i + 1
    return labels


BOXES = [(2, 2, 8, 6), (20, 4, 6, 6), (10, 25, 9, 7)]


def test_a_perfect_prediction_scores_one_everywhere() -> None:
    truth = nuclei_of_labels(labels_of(*BOXES), np.array([0, 1, 1]))
    score = score_image(truth, truth, mpp=0.25, classes=2, id="a")
    means = image_means([score])
    assert (means.aji, means.aji_plus, means.dice, means.dq, means.sq, means.pq) == (1,) * 6
    assert (means.detection.precision, means.detection.recall, means.detection.f1) == (1, 1, 1)
    assert [d.f1 for d in means.detection_by_class] == [1, 1]
    assert [d.f1 for d in means.hover_by_class] == [1, 1]
    assert means.pq_by_class == (1, 1)
    assert pannuke_means([score]).bpq == pannuke_means([score]).mpq == 1


def test_polygons_and_labels_of_the_same_nuclei_give_the_same_scores() -> None:
    moved = [(x + 1, y, w, h) for x, y, w, h in BOXES]
    types = np.array([0, 1, 1])

    def polygons(boxes: list) -> Nuclei:
        shapes = np.array([shapely.box(x, y, x + w, y + h) for x, y, w, h in boxes], object)
        xy = shapely.get_coordinates(shapely.centroid(shapes))
        return Nuclei(Points(xy, np.ones(3), types), polygons=shapes)

    by_polygons = score_image(polygons(BOXES), polygons(moved), mpp=0.25, classes=2)
    by_labels = score_image(
        nuclei_of_labels(labels_of(*BOXES), types), nuclei_of_labels(labels_of(*moved), types), mpp=0.25, classes=2
    )
    assert by_polygons == by_labels


def test_labels_against_polygons_are_refused() -> None:
    a = nuclei_of_labels(labels_of(*BOXES))
    b = Nuclei(a.points, polygons=np.array([shapely.box(0, 0, 1, 1)], object))
    with pytest.raises(UsageError, match="Rasterise"):
        score_image(a, b, mpp=0.25, classes=0)


def test_points_only_truth_scores_detection_alone() -> None:
    whole = nuclei_of_labels(labels_of(*BOXES), np.zeros(3, int))
    score = score_image(Nuclei(whole.points), whole, mpp=0.25, classes=1)
    assert score.detection == Detection(3, 0, 0)
    assert math.isnan(score.aji)


def test_centroids_are_centres_of_pixels() -> None:
    assert centroids(labels_of((2, 3, 1, 1), (10, 20, 4, 2)), 2).tolist() == [[2.5, 3.5], [12, 21]]


def test_one_type_per_label_is_required() -> None:
    with pytest.raises(UsageError, match="3 labels, 2 types"):
        nuclei_of_labels(labels_of(*BOXES), np.array([0, 1]))


def test_means_over_images_leave_out_images_without_nuclei_and_say_so() -> None:
    full, half = Panoptic(2, 0, 0, 2.0), Panoptic(1, 1, 1, 0.8)
    scores = [
        ImageScore("a", aji=1.0, dice=1.0, panoptic=full, detection=Detection(2, 0, 0)),
        ImageScore("b", aji=0.4, dice=0.5, panoptic=half, detection=Detection(1, 1, 3)),
        ImageScore("c"),
    ]
    means = image_means(scores)
    assert (means.images, means.unscored) == (3, 1)
    assert math.isclose(means.aji, 0.7)
    assert math.isclose(means.pq, (1 + 0.4) / 2)
    # Detection is one count over the data set, not a mean of images.
    assert means.detection == Detection(3, 1, 3)


def test_no_image_is_an_error() -> None:
    with pytest.raises(UsageError, match="no image was scored"):
        image_means([])


def test_pannuke_means_go_over_classes_then_images_then_tissues() -> None:
    perfect, zero, absent = Panoptic(1, 0, 0, 1.0), Panoptic(0, 1, 1, 0.0), Panoptic(0, 5, 0, 0.0)
    scores = [
        ImageScore("a", "Breast", panoptic=perfect, panoptic_by_class=(perfect, absent)),
        ImageScore("b", "Breast", panoptic=zero, panoptic_by_class=(zero, perfect)),
        ImageScore("c", "Colon", panoptic=perfect, panoptic_by_class=(perfect, perfect)),
        ImageScore("d", "Colon", panoptic=absent, panoptic_by_class=(absent, absent)),
    ]
    means = pannuke_means(scores)
    assert means.bpq_by_tissue == {"Breast": 0.5, "Colon": 1.0}
    assert means.mpq_by_tissue == {"Breast": 0.75, "Colon": 1.0}
    assert (means.bpq, means.mpq) == (0.75, 0.875)
    assert means.pq_by_class == (2 / 3, 1.0)


def test_pannuke_means_refuse_two_images_of_one_id() -> None:
    with pytest.raises(UsageError, match="two images"):
        pannuke_means([ImageScore("a"), ImageScore("a")])


def means_of(value: float) -> object:
    p = Panoptic(10, 0, 0, 10 * value)
    score = ImageScore(
        "a",
        "Breast",
        aji=value,
        panoptic=p,
        panoptic_by_class=(p,),
        detection=Detection(1, 1, 0),
        detection_by_class=(Detection(1, 0, 1),),
        hover_by_class=(ClassCounts(1),),
    )
    return image_means([score]), pannuke_means([score])


def test_the_tables_hold_the_papers_columns_and_rows() -> None:
    (low, low_pannuke), (high, high_pannuke) = means_of(0.5), means_of(0.7)
    table_1 = tables.table_1({"ours": [low_pannuke, high_pannuke]})
    assert list(table_1.rows) == ["Breast", "Average", "Std"]
    assert np.allclose(table_1.rows["Average"], 0.6)
    assert np.allclose(table_1.rows["Std"], 0.1)
    table_2 = tables.table_2({"ours": [low, high]}, ["Dead"])
    assert np.allclose(list(table_2.rows.values()), [[0.5], [1], [2 / 3], [1], [0.5], [2 / 3]])
    assert list(table_2.rows)[3:] == [("Dead", "P"), ("Dead", "R"), ("Dead", "F1")]
    assert np.allclose(tables.table_3({"ours": [low_pannuke, high_pannuke]}, ["Dead"]).rows["Dead"], 0.6)
    table_4 = tables.table_4({"ours": {"Kumar": low}})
    assert np.allclose(table_4.rows["ours"], [0.5, 0.5, np.nan, np.nan], equal_nan=True)
    assert tables.table_s2({"A -> B": (low, high)}).rows["A -> B"][0] == (0.5, 0.7)
    assert len(tables.table_s3({"ours": {"TNBC": low}}).columns) == 8
    cost = tables.Cost(145.9, 59.45, 41.0, 12.0, "2 CPU threads")
    table_5 = tables.table_5({"ours": (cost, [low_pannuke, high_pannuke])})
    assert np.allclose(table_5.rows["ours"], [145.9, 59.45, 41.0, 12.0, 0.6])
    assert "145.9" in tables.as_text(table_5)
    assert "0.6000" in tables.as_text(table_5)
    table_6 = tables.table_6({("FT", "NP"): {"CPM-17": low}, (): {}}, ["CPM-17"])
    assert np.allclose(table_6.rows["✓", "", "", "✓"], 0.5)
    assert "| FT | AUX | MAPF | NP | CPM-17 AJI | CPM-17 PQ |" in tables.as_markdown(table_6)
    assert "| ✓ |  |  | ✓ | 0.500 | 0.500 |" in tables.as_markdown(table_6)
    table_7 = tables.table_7({(1, 2, False): {"CPM-17": low}, (1, 2, True): {"CPM-17": high}}, ["CPM-17"])
    assert np.allclose(table_7.rows["1", "2"], [0.5, 0.5, 0.7, 0.7])
    assert [group for group, _ in table_7.columns] == ["CPM-17, Pred"] * 2 + ["CPM-17, GT"] * 2
    table_8 = tables.table_8({"Prompter": [low_pannuke, high_pannuke]}, ["dead"])
    assert np.allclose(table_8.rows["Prompter"], 0.6)
    assert table_8.columns[2] == ("Nucleus", "Dead")
    assert list(tables.table_overlap({64: {"CPM-17": low}}, ["CPM-17"]).rows) == ["64"]


def quoted(table: tables.Table) -> tables.Table:
    with_figures = published.with_paper(table)
    assert with_figures.columns[: len(table.columns)] == table.columns
    assert all(published.QUOTED in f"{group} {name}" for group, name in with_figures.columns[len(table.columns) :])
    assert published.LEGEND in with_figures.notes
    return with_figures


def test_the_papers_figures_stand_in_columns_of_their_own_beside_the_measured_ones() -> None:
    low, _ = means_of(0.5)
    table_4 = quoted(tables.table_4({"PromptNucSeg-L": {"Kumar": low}, "ours": {"Kumar": low}}))
    assert table_4.columns[2:5] == (("CPM-17", "AJI"), ("CPM-17", "PQ"), ("Kumar (quoted)", "AJI"))
    assert np.allclose(table_4.rows["PromptNucSeg-L"][4:], [0.621, 0.626, 0.734, 0.730])
    assert np.isnan(np.array(table_4.rows["ours"][4:], float)).all()
    assert np.isnan(np.array(table_4.rows["PromptNucSeg-H + TTA"][:4], float)).all()  # quoted, but not measured
    only_kumar = quoted(tables.table_4({"PromptNucSeg-B": {"Kumar": low}}, ["Kumar"]))
    assert np.allclose(only_kumar.rows["PromptNucSeg-B"], [0.5, 0.5, 0.614, 0.620])
    elsewhere = tables.table_4({"PromptNucSeg-B": {"MoNuSeg": low}}, ["MoNuSeg"])
    assert published.with_paper(elsewhere) == elsewhere
    table_6 = quoted(tables.table_6({("FT", "AUX"): {"CPM-17": low}}, ["CPM-17"]))
    assert np.allclose(table_6.rows["✓", "✓", "", ""], [0.5, 0.5, 0.734, 0.727])
    table_7 = quoted(tables.table_7({(2, 2, True): {"CPM-17": low}}, ["CPM-17"]))
    assert table_7.rows["2", "2"][4:] == [0.738, 0.729, 0.811, 0.796]
    assert len(table_7.rows) == 9
    table_8 = quoted(tables.table_8({"Segmentor": []}, published.PANNUKE_CLASSES))
    assert table_8.rows["Segmentor"][7:] == [0.688, 0.506, 0.587, 0.587, 0.423, 0.431, 0.157]
    table_5 = quoted(tables.table_5({"PromptNucSeg-B": (tables.Cost(), [])}))
    assert table_5.rows["PromptNucSeg-B"][5:] == [145.6, 59.0, 27.0, 0.5095]
    assert "RTX 3090" in table_5.notes[-1]
    table_s2 = quoted(tables.table_s2({"CPM-17-train -> Kumar": (low, low)}))
    assert table_s2.rows["CPM-17-train -> Kumar"] == [(0.5, 0.5), (0.5, 0.5), (0.592, 0.614), (0.598, 0.622)]
    assert "0.622" in table_s2.notes[-1]
    assert "0.620" in table_s2.notes[-1]
    table_s3 = quoted(tables.table_s3({"PromptNucSeg-B": {"TNBC": low}}, ["TNBC"]))
    assert table_s3.rows["PromptNucSeg-B"][4:] == [0.608, 0.784, 0.802, 0.630]


def test_table_1_has_the_papers_figures_of_every_tissue_under_pannukes_names() -> None:
    p = Panoptic(10, 0, 0, 5.0)
    tissues = ("Adrenal_gland", "Bile-duct", "HeadNeck", "Kidney")
    split = pannuke_means([ImageScore(t, t, panoptic=p, panoptic_by_class=(p,)) for t in tissues])
    table_1 = quoted(tables.table_1({"ours": [split]}))
    assert table_1.rows["Adrenal_gland"][2:] == [0.7227, 0.5128]
    assert table_1.rows["HeadNeck"][2:] == [0.6695, 0.5104]
    assert table_1.rows["Kidney"] == [0.5, 0.5, 0.7115, 0.5786]
    assert len(table_1.rows) == 19 + 2
    assert list(table_1.rows)[-2:] == ["Average", "Std"]
    own = np.array([row for name, row in published.TABLE_1.items() if name not in tables.MEANS])
    # The paper's averages are those of its tissues, to its own rounding.
    assert np.allclose(own.mean(axis=0), published.TABLE_1["Average"], atol=2e-4)


def test_pannukes_tables_are_in_the_order_of_the_paper_with_its_numbers_beside() -> None:
    classes = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
    by_class = tuple(Panoptic(10, 0, 0, float(c)) for c in range(5))
    seen = tuple(Detection(c + 1, 1, 0) for c in range(5))
    score = ImageScore("a", "Breast", panoptic=Panoptic(10, 0, 0, 5.0), panoptic_by_class=by_class,
                       detection_by_class=seen, hover_by_class=(ClassCounts(1),) * 5)  # fmt: skip
    by_number = {t.number: t for t in tables_of([Result("x", "ours", "set", classes, True, (score,))])}
    assert list(by_number["Table 3"].rows) == [classes[c].capitalize() for c in (0, 4, 1, 2, 3)]
    table_3 = np.array(list(by_number["Table 3"].rows.values()), float)
    assert np.allclose(table_3[:, 0], [0.0, 0.4, 0.1, 0.2, 0.3])
    assert np.allclose(table_3[:, 1], [0.598, 0.582, 0.441, 0.433, 0.161])
    assert by_number["Table 2"].rows["Epithelial", "P"] == [5 / 6, 0.73]
    assert by_number["Table 1"].rows["Average"][2:] == [0.6924, 0.5123]
    for number in ("Table 2", "Table 3"):  # other classes than PanNuke's
        narrow = tables.Table(number, "t", "Class", (("ours", ""),), {"Dead": [1.0]})
        assert published.with_paper(narrow) == narrow


def test_tables_print_as_text_markdown_and_strict_json() -> None:
    table = tables.Table("T", "t", "Method", (("Kumar", "AJI"), ("Kumar", "PQ")), {"ours": [0.12345, math.nan]})
    assert "| ours | 0.123 | - |" in tables.as_markdown(table)
    lines = tables.as_text(table).splitlines()
    assert lines[-1].split() == ["ours", "0.123", "-"]
    assert json.loads(tables.to_json(table))["rows"] == {"ours": [0.12345, None]}
    s2 = tables.table_s2({"A -> B": means_of(0.5)[:1] * 2})
    assert "0.500 (0.500)" in tables.as_text(s2)
    with pytest.raises(UsageError, match="row ours"):
        tables.Table("T", "t", "Method", (("", "AJI"),), {"ours": [1.0, 2.0]})


def test_json_of_scores_holds_the_counts_and_what_follows_from_them() -> None:
    score = ImageScore("a", panoptic=Panoptic(3, 1, 1, 2.4), detection=Detection(3, 1, 1))
    values = json.loads(tables.to_json([score]))[0]
    assert values["aji"] is None
    assert math.isclose(values["panoptic"]["pq"], 0.6)
    assert values["detection"]["f1"] == 0.75
