"""A data set of a few drawn nuclei and the smallest configuration that trains on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsi_nuc.training.promptnucseg.config import TrainConfig


def draw(folder: Path, images: int = 2, nuclei: int = 12, size: int = 256, seed: int = 0) -> Path:
    """Dark discs on pink with instance labels; `nuclei` of them in each image."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(images):
        rgb = np.full((size, size, 3), (225, 185, 215), np.uint8)
        labels = np.zeros((size, size), np.uint16)
        for n in range(nuclei):
            centre = (int(rng.integers(12, size - 12)), int(rng.integers(12, size - 12)))
            radius = int(rng.integers(7, 11))
            cv2.circle(rgb, centre, radius, (95, 60, 130), -1)
            cv2.circle(labels, centre, radius, n + 1, -1)
        cv2.imwrite(str(folder / "images" / f"{seed}_{i}.png"), rgb[:, :, ::-1])
        cv2.imwrite(str(folder / "labels" / f"{seed}_{i}.png"), labels)
    (folder / "dataset.json").write_text(json.dumps({"mpp": 0.25}))
    return folder


def points_only(folder: Path, points: list[tuple[float, float]]) -> Path:
    draw(folder, images=1, nuclei=len(points))
    (folder / "points").mkdir()
    for label in (folder / "labels").iterdir():
        label.unlink()
    (folder / "labels").rmdir()
    rows = "".join(f"{x},{y},nucleus\n" for x, y in points)
    (folder / "points" / "0_0.csv").write_text("x,y,class\n" + rows)
    (folder / "dataset.json").write_text(json.dumps({"mpp": 0.25, "point_classes": ["nucleus"]}))
    return folder


def foreground_only(folder: Path) -> Path:
    draw(folder, images=1)
    (folder / "masks").mkdir()
    for label in (folder / "labels").iterdir():
        mask = (cv2.imread(str(label), cv2.IMREAD_UNCHANGED) > 0).astype(np.uint8) * 255
        cv2.imwrite(str(folder / "masks" / label.name), mask)
        label.unlink()
    (folder / "labels").rmdir()
    return folder


def tiny_config(out: Path, *folders: Path, validate: bool = False, **changes: Any) -> TrainConfig:
    stage = {"batch": 2, "epochs": 2, "lr": 1e-3}
    sources = [{"path": folder} for folder in folders]
    given: dict[str, Any] = {
        "out": out,
        "classes": ["nucleus"],
        "data": {"train": sources, "validation": sources if validate else [], "augment": False},
        "prompter": {"backbone": "convnext_atto", "channels": 16, "space_px": 16},
        "segmentor": {"size": "vit_mini"},
        "precision": "fp32",
        "use": {"precision": "fp32", "mask_filter": False},
        "prompts": {"nuclei": 4},
        "train": {"segmentor": stage, "prompter": stage, "together": stage},
        "stages": ["together"],
        "cuts": "given",
        "device": "cpu",
    }
    for key, value in changes.items():
        given[key] = {**given[key], **value} if isinstance(value, dict) and key in given else value
    return TrainConfig(**given)
