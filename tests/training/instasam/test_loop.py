"""From dots on a slide to a model that runs on it, and what is told on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.models.compact_nets import tiny_net
from tests.models.compact_nets import tiny_settings as compact_settings
from tests.models.instasam_nets import tiny_model
from tests.models.tiles import scene
from tests.training.dots.drawn import centres, multi_points, truth_of, write_geojson
from wsi_nuc.datasets.record import DataError, LabelledImage
from wsi_nuc.evaluation.evaluate import predict_image
from wsi_nuc.models.compact.build import save_net
from wsi_nuc.models.registry import load_model
from wsi_nuc.synth import synth_slide
from wsi_nuc.training.events import Event, Noted, StepDone
from wsi_nuc.training.instasam.report import Dots, dots_found
from wsi_nuc.training.registry import load_train_config, train


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a training of a few steps, on the dots of a drawn slide."""
    folder = tmp_path_factory.mktemp("loop")
    drawn = synth_slide(folder, size=900, mpp=0.25, tissue=0.6, seed=3)
    polygons, names = truth_of(drawn)
    dots = write_geojson(folder / "dots.geojson", multi_points(centres(polygons), names))
    save_net(folder / "frozen.safetensors", tiny_net(), compact_settings(), {"training_data": [], "metrics": {}})
    return {
        "dots.points": dots, "dots.slide": str(drawn.slide), "dots.least_dots": 20, "workers": 0,
        "frozen": str(folder / "frozen.safetensors"), "first": "frozen", "steps": 3, "report_every": 3, "batch": 2,
        "curve": [0.5, 1.0], "curve_steps": 2, "crop": {"size_px": 64}, "threads": 1, "device": "cpu",
        "use": {"tile_px": 256, "precision": "fp32"},
    }  # fmt: skip


def test_dots_on_a_slide_become_a_model_a_sheet_and_a_page(loop: dict[str, Any], tmp_path: Path) -> None:
    told: list[Event] = []
    made = train(load_train_config("instasam", [], {**loop, "out": tmp_path}), told.append)
    spec = load_model(str(made)).spec
    assert spec.classes == tuple(sorted(spec.classes))
    assert len(spec.classes) > 1
    assert spec.domain
    page = (tmp_path / "report.html").read_text()
    notes = [event.message for event in told if isinstance(event, Noted)]
    assert any("held back for the report" in note and note in page for note in notes)
    assert "held-back dots" in page
    assert "Would more dots help?" in page
    assert all(name in page for name in spec.classes)
    sheet = cv2.imread(str(tmp_path / "labels.png"))
    assert sheet.shape[0] == 3 * 256
    assert sheet.std() > 10
    assert sum(isinstance(event, StepDone) and event.stage == "dots-0.5" for event in told) == 2
    again: list[Event] = []
    train(load_train_config("instasam", [], {**loop, "out": tmp_path}), again.append)
    assert not any(isinstance(event, StepDone) for event in again)


def test_too_few_dots_are_refused_before_a_step(loop: dict[str, Any], tmp_path: Path) -> None:
    settings = load_train_config("instasam", [], {**loop, "dots.least_dots": 100_000, "out": tmp_path})
    with pytest.raises(DataError, match="a training needs 100000"):
        train(settings)
    assert not (tmp_path / "instasam").exists()


def test_found_and_missed_dots_are_counted_by_place_and_class() -> None:
    rgb = scene(5, 128)
    model = tiny_model()
    image = LabelledImage("scene", rgb, mpp=0.25)
    nuclei = predict_image(model, image)
    assert nuclei.labels is not None
    rows = np.arange(0, len(nuclei.points.xy), 2)
    inside = np.array([np.argwhere(nuclei.labels == row + 1).mean(0)[::-1] + 0.5 for row in rows])
    on = nuclei.labels[inside[:, 1].astype(int), inside[:, 0].astype(int)] == rows + 1
    inside, kinds = inside[on], nuclei.points.types[rows[on]]
    outside = np.argwhere(nuclei.labels == 0)[:: 128 * 16][:, ::-1] + 0.5
    wrong = (kinds + 1) % 3
    image = replace(
        image,
        points_xy=np.concatenate([inside, inside, outside]),
        point_types=np.concatenate([kinds, wrong, np.full(len(outside), -1)]),
        point_classes=model.spec.classes,
    )
    count = len(inside)
    assert count > 3
    assert dots_found(model, [image]) == Dots(2 * count, count, 2 * count, 2 * count + len(outside))
    assert dots_found(model, [replace(image, points_xy=None)]) == Dots(0, 0, 0, 0)
