"""The check counts what is there, goes on after a broken image, and draws a sheet. Real data is as described."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets import layouts
from wsi_nuc.datasets import check_dataset
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.datasets.sheet import CELL_PX, COLOURS, draw_sheet, overlay
from wsi_nuc.errors import UsageError


def test_the_report_counts_and_names_what_is_broken(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    for name in ("two", "bad"):
        layouts.save(tmp_path / f"images/{name}.png", layouts.rgb())
        layouts.save(tmp_path / f"labels/{name}.png", layouts.labels().astype(np.uint16) * 3)
    layouts.save(tmp_path / "labels/bad.png", np.zeros((3, 3), np.uint16))
    report = check_dataset(tmp_path, sheet=tmp_path / "out/sheet.png")
    assert not report.ok
    assert list(report.broken) == ["bad"]
    assert (report.images, report.nuclei) == (2, 6)
    assert report.nuclei_by_class == {"round": 2, "long": 1}
    assert report.repairs == {"images with non-consecutive ids": 1}
    assert report.sizes == {"48x40": 2}
    assert json.loads(report.as_json())["nuclei"] == 6
    assert "BROKEN             bad" in report.as_text()
    assert Image.open(tmp_path / "out/sheet.png").size[0] == 2 * CELL_PX


def test_an_unread_licence_does_not_allow_released_weights(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    assert check_dataset(tmp_path).trains_released is None
    layouts.card(tmp_path, licence="CC0", trains_released=True)
    report = check_dataset(tmp_path)
    assert (report.licence, report.trains_released) == ("CC0", True)


def test_the_report_warns_of_a_wrong_scale_of_leaks_and_of_empty_images(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    layouts.save(tmp_path / "images/two.png", layouts.rgb())
    layouts.save(tmp_path / "labels/two.png", np.zeros((layouts.HEIGHT, layouts.WIDTH), np.uint16))
    layouts.write(tmp_path / "manifest.csv", "id,split,patient\none,train,P\ntwo,val,P\n")
    layouts.card(tmp_path, mpp=4.0)
    text = "\n".join(check_dataset(tmp_path).warnings)
    assert "check mpp" in text
    assert "1 images without a nucleus, such as two" in text
    assert "1 groups lie in several splits, such as P" in text
    layouts.write(tmp_path / "dataset.json", json.dumps({"classes": layouts.CLASSES}))
    assert "no mpp" in "\n".join(check_dataset(tmp_path).warnings)


def test_outlines_are_drawn_inside_their_nucleus_in_its_colour() -> None:
    image = LabelledImage(
        "a", np.zeros((40, 48, 3), np.uint8), layouts.labels(), np.array(layouts.TYPES), classes=layouts.CLASSES
    )
    drawn = overlay(image)
    coloured = drawn[: 2 * layouts.HEIGHT, : 2 * layouts.WIDTH].any(axis=2)
    inside = layouts.labels().repeat(2, 0).repeat(2, 1)
    assert coloured.any()
    assert (inside[coloured] > 0).all()
    for i, kind in enumerate(layouts.TYPES):
        assert np.array_equal(np.unique(drawn[:80, :96][coloured & (inside == i + 1)], axis=0), [COLOURS[kind]])


def test_the_colour_of_a_foreground_is_named(tmp_path: Path) -> None:
    rgb = np.zeros((40, 48, 3), np.uint8)
    foreground = LabelledImage("a", rgb, foreground=layouts.labels() > 0)
    draw_sheet([foreground], tmp_path / "with.png")
    draw_sheet([LabelledImage("a", rgb, points_xy=np.zeros((0, 2)))], tmp_path / "without.png")
    legends = [np.asarray(Image.open(tmp_path / f"{name}.png"))[-20:] for name in ("with", "without")]
    assert [bool((legend == COLOURS[0]).all(axis=2).any()) for legend in legends] == [True, False]


def test_a_sheet_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no readable image"):
        draw_sheet([], tmp_path / "sheet.png")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "images", "nuclei", "points"),
    [("nucls15", 10, 458, 398), ("dsb2018_colour", 103, 4502, 0), ("brca_m2c", 89, 0, 21457)],
)
def test_real_sets_hold_what_their_description_says(
    name: str, images: int, nuclei: int, points: int, real_data: Path
) -> None:
    report = check_dataset(real_data / name)
    assert (report.images, report.nuclei, report.points, report.broken) == (images, nuclei, points, {})


@pytest.mark.real_data
@pytest.mark.slow
def test_all_of_consep_is_read(real_data: Path) -> None:
    report = check_dataset(real_data / "consep")
    assert (report.images, report.nuclei, report.broken) == (27, 15555, {})
    assert report.nuclei_by_class == {"other": 371, "inflammatory": 3941, "epithelial": 5537, "spindle": 5706}
    assert report.trains_released is True


@pytest.mark.real_data
def test_monuseg_is_for_evaluation_only_and_its_xml_agrees_with_its_labels(real_data: Path) -> None:
    from wsi_nuc.datasets import load_dataset
    from wsi_nuc.datasets.overlaps import overlaps_of_labels
    from wsi_nuc.evaluation.metrics import panoptic

    from_xml = load_dataset(real_data / "monuseg", reader_name="imagescope")
    drawn = load_dataset(real_data / "monuseg")
    assert drawn.card.trains_released is False
    a, b = from_xml[0], drawn[drawn.ids.index(from_xml.ids[0])]
    assert a.instances is not None
    assert b.instances is not None
    assert a.mpp == 0.252
    assert a.count == b.count == 359
    # The published label images are about 9 % larger and shifted, so outlines agree well but not exactly.
    agreement = panoptic(overlaps_of_labels(b.instances, a.instances))
    assert agreement.dq > 0.98
    assert 0.82 < agreement.sq < 0.95


@pytest.mark.real_data
def test_a_foreground_set_and_a_geojson_tile_are_read(real_data: Path) -> None:
    foreground = check_dataset(real_data / "nuinsseg_binary")
    assert foreground.supervision == {"foreground": 25}
    assert foreground.foreground_share is not None
    assert 0.15 < foreground.foreground_share < 0.25
    assert check_dataset(real_data / "peer").nuclei == 4
