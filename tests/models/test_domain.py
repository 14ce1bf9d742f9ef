"""Whether a slide looks like the training images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsi_nuc.models.domain import NAMES, enlarged, limits_of, looks_of, unlike


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    return _tissue(0)


def _tissue(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rgb = np.full((256, 256, 3), (225, 175, 205), np.int64) + rng.integers(-6, 7, (256, 256, 1))
    rgb = rgb.astype(np.uint8)
    for x, y in rng.integers(0, 256, (40, 2)):
        cv2.circle(rgb, (int(x), int(y)), 8, (95, 65, 140), -1)
    return rgb


def test_other_tissue_of_the_same_look_is_familiar() -> None:
    limits = limits_of([looks_of(_tissue(seed)) for seed in range(4)])  # type: ignore[misc]
    assert unlike([looks_of(_tissue(seed)) for seed in range(10, 14)], limits) == []  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda rgb: 255 - rgb, "darker"),
        (lambda rgb: cv2.GaussianBlur(rgb, (0, 0), 4), "blurred"),
        (lambda rgb: (255 - (255 - rgb.astype(float)) * 0.3).astype(np.uint8), "paler"),
        (lambda rgb: rgb[:, :, [1, 0, 2]], "bluer|redder"),
    ],
)
def test_another_look_is_said_in_a_word(tissue: np.ndarray, change, word: str) -> None:
    limits = limits_of([looks_of(_tissue(seed)) for seed in range(4)])  # type: ignore[misc]
    differences = unlike([looks_of(np.ascontiguousarray(change(tissue)))], limits)  # type: ignore[misc]
    assert any(part in "; ".join(differences) for part in word.split("|")), differences


def test_glass_is_not_judged_and_one_odd_tile_does_not_count() -> None:
    assert looks_of(np.full((64, 64, 3), 250, np.uint8)) is None
    usual = [looks_of(_tissue(seed)) for seed in range(4)]
    limits = limits_of(usual)  # type: ignore[arg-type]
    odd = (9.0,) * len(NAMES)
    assert unlike([*usual, odd], limits) == []  # type: ignore[list-item]
    assert unlike([], limits) == []
    assert unlike([odd], {}) == []


def test_of_many_training_images_the_oddest_do_not_widen_what_is_familiar() -> None:
    rng = np.random.default_rng(0)
    usual = [tuple(rng.uniform(0.2, 0.4, len(NAMES)).tolist()) for _ in range(500)]
    odd = (0.9,) * len(NAMES)
    assert len(unlike([odd], limits_of([*usual, odd]))) == len(NAMES)
    assert unlike([odd], limits_of([*usual[:20], odd])) == []


def test_a_scan_that_is_coarser_than_the_model_is_noted() -> None:
    assert (
        enlarged(0.25, 0.25, "default") == enlarged(0.3, 0.25, "default") == enlarged(0.1, 0.25, "default") == ""
    )
    assert "0.998 um per pixel and was enlarged 4 times for default" in enlarged(0.998, 0.25, "default")
