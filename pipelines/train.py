"""From a folder of labelled images to a model and its scores: split, train, compare, draw.

python pipelines/train.py data/consep --folder runs/consep [--config configs/tiny.yaml]

A fifth of the groups (patients, where the data names them) is held out to choose the best weights. The overlays
show the outlines of its first images, as annotated (white) and as predicted (in the colour of their class).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from wsi_nuc.cli.train_commands import training_progress
from wsi_nuc.datasets import Dataset, LabelledImage, load_dataset
from wsi_nuc.evaluation.evaluate import predict_image, truth_of
from wsi_nuc.evaluation.protocol import Nuclei
from wsi_nuc.evaluation.report import write_report
from wsi_nuc.evaluation.variants import EvaluateConfig, evaluate_variants
from wsi_nuc.models.registry import load_model
from wsi_nuc.training.registry import load_train_config, train
from wsi_nuc.types import UInt8

COLOURS = [(214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 187, 0), (148, 103, 189)]


def main(
    data: Annotated[Path, typer.Argument(help="Folder of labelled images.")],
    folder: Annotated[Path, typer.Option(help="Where the training and its results go.")] = Path("runs/own"),
    config: Annotated[Path, typer.Option(help="What to train.")] = Path("configs/tiny.yaml"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    assign: Annotated[list[str] | None, typer.Option("--set", help="key=value of the configuration.")] = None,
) -> None:
    """Train on four fifths of the groups and score on the rest, beside the classical model."""
    dataset = load_dataset(data)
    held_out = hold_out(dataset)
    rest = [name for name in dataset.ids if name not in held_out]
    given = {
        "train": [{"path": str(data), "images": rest}],
        "validation": [{"path": str(data), "images": held_out}],
        "augment": True,
        "crops_per_image": 4,
    }
    settings = load_train_config(config, assign or [], {"out": folder, "device": device, "data": given})
    with training_progress(quiet=False) as emit:
        model = train(settings, emit)
    variants = {"trained": {"model": str(model)}, "classical": {"model": "classical"}}
    study = {"data": {"held out": given["validation"][0]}, "variants": variants, "out": folder / "scores"}  # type: ignore[index]
    scored = EvaluateConfig.model_validate(study)
    print(write_report(scored, evaluate_variants(scored)))
    for name in held_out[:3]:
        image = dataset[dataset.ids.index(name)]
        predicted = predict_image(load_model(str(model), settings.device), image)
        cv2.imwrite(str(folder / f"{name}.png"), overlay(image, predicted)[:, :, ::-1])
    print(f"model {model}, curves and overlays in {folder}")


def hold_out(dataset: Dataset) -> list[str]:
    """Every fifth group, so that no patient is on both sides."""
    groups = sorted({entry.group or entry.id for entry in dataset.entries})
    chosen = set(groups[2::5] or groups[-1:])
    return [entry.id for entry in dataset.entries if (entry.group or entry.id) in chosen]


def overlay(image: LabelledImage, predicted: Nuclei, zoom: int = 2) -> UInt8:
    """The image with outlines: annotated ones white, predicted ones in the colour of their class."""
    size = (image.rgb.shape[1] * zoom, image.rgb.shape[0] * zoom)
    picture = np.ascontiguousarray(cv2.resize(image.rgb, size, interpolation=cv2.INTER_CUBIC))
    truth = truth_of(image)
    _outlines(picture, truth, zoom, None)
    _outlines(picture, predicted, zoom, COLOURS)
    return np.asarray(picture, np.uint8)


def _outlines(picture: UInt8, nuclei: Nuclei, zoom: int, colours: list[tuple[int, int, int]] | None) -> None:
    if nuclei.labels is None:
        return
    for i, kind in enumerate(nuclei.points.types, start=1):
        mask = cv2.resize(
            (nuclei.labels == i).astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST
        )
        rings, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        colour = (255, 255, 255) if colours is None else colours[int(kind) % len(colours)]
        cv2.drawContours(picture, rings, -1, colour, 1)


if __name__ == "__main__":
    typer.run(main)
