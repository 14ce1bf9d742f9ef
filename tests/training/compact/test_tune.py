"""The choice of cuts: every kind of tissue counts the same, with outlines or with points alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.compact_nets import tiny_net, tiny_settings
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.models.compact.settings import Settings
from wsi_nuc.nuclei import GridNuclei
from wsi_nuc.training.compact import tune
from wsi_nuc.training.compact.tune import Predicted

SIDE, EVERY = 320, 32
CENTRES = np.stack(np.meshgrid(*[np.arange(16, SIDE, EVERY)] * 2), -1).reshape(-1, 2)
SURE, DOUBTFUL = CENTRES[:60], CENTRES[60:]


def image(name: str, true: np.ndarray, outlined: bool) -> LabelledImage:  # type: ignore[type-arg]
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    if not outlined:
        return LabelledImage(name, rgb, mpp=0.25, points_xy=true.astype(np.float64))
    labels = np.zeros((SIDE, SIDE), np.int32)
    for i, (x, y) in enumerate(true, 1):
        labels[y - 8 : y + 8, x - 8 : x + 8] = i
    return LabelledImage(name, rgb, labels, mpp=0.25)


def proposed() -> GridNuclei:
    """Squares at all centres, of which the last 40 are doubtful."""
    corners = np.array([[-8, -8], [8, -8], [8, 8], [-8, 8]])
    count, sure = len(CENTRES), len(SURE)
    score = np.repeat([0.9, 0.5], [sure, count - sure]).astype(np.float32)
    xy, offsets = (CENTRES[:, None] + corners).reshape(-1, 2).astype(np.float64), np.arange(0, 4 * count + 1, 4)
    probs, tile = np.ones((count, 1), np.float32), np.zeros(count, np.int64)
    return GridNuclei(xy, offsets, CENTRES.astype(np.float64), score, score, score, probs, tile)


def chosen_cut(sets: list[list[LabelledImage]], monkeypatch: pytest.MonkeyPatch) -> float:
    def look_at(net: object, settings: Settings, images: list[LabelledImage], device: str) -> list[Predicted]:
        return [(image, proposed(), 1.0) for image in images]

    monkeypatch.setattr(tune, "look_at", look_at)
    monkeypatch.setattr(tune, "calibrate", lambda _: (1.0, 0.0, 0.0))
    return tune.tune(tiny_net(), tiny_settings(), sets, "cpu").least_score


def test_sets_with_points_alone_have_a_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doubtful nuclei are real in the outlined images and wrong in those with points."""
    outlined = [image("o", CENTRES, True)]
    dotted = [[image(name, SURE[:30], False)] for name in "ab"]
    assert chosen_cut([outlined], monkeypatch) < 0.5
    assert chosen_cut([outlined, *dotted], monkeypatch) > 0.5


def test_the_number_of_images_of_a_set_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    dotted = [image(name, SURE, False) for name in "abcdef"]
    outlined = image("o", CENTRES, True)
    assert chosen_cut([dotted, [outlined]], monkeypatch) == chosen_cut([dotted[:1], [outlined] * 6], monkeypatch)


def test_images_with_points_alone_do_not_calibrate() -> None:
    rows = [(image("o", SURE, True), proposed(), 1.0), (image("p", SURE, False), proposed(), 1.0)]
    assert tune.calibrate(rows) == tune.calibrate(rows[:1])
