"""The tiny configuration learns two images by heart, as scored by the whole code of inference."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import torch

from wsi_nuc.datasets import load_dataset
from wsi_nuc.evaluation.evaluate import evaluate_images
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.models.registry import load_model
from wsi_nuc.training.registry import load_train_config, train

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"
# Corners of two crops of 256 px in which no two nuclei lie so near that one is suppressed as a double.
CROPS = {"train_9": (744, 248), "train_3": (744, 372)}


def cut(data: Path, folder: Path) -> Path:
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for stem, (x, y) in CROPS.items():
            file = next((data / "consep" / kind).glob(f"{stem}.*"))
            pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            assert pixels is not None
            cv2.imwrite(str(folder / kind / f"{stem}.png"), pixels[y : y + 256, x : x + 256])
    (folder / "dataset.json").write_text(json.dumps({"mpp": 0.25}))
    return folder


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(1500)
def test_two_real_images_are_learnt_by_heart(real_data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # two threads would wait for each other whenever another test runs at the same time
    data = cut(real_data, tmp_path / "two")
    source = f"[{{path: {data}}}]"
    plan = ["data.augment=false", "train.together.epochs=20"]
    config = load_train_config(
        TINY, [f"data.train={source}", f"data.validation={source}", *plan], {"out": tmp_path / "out"}
    )
    model = load_model(str(train(config)))
    means = image_means(evaluate_images(model, load_dataset(data)))
    assert means.pq >= 0.85
    assert means.aji >= 0.8
