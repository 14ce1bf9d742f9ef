"""The studies of the InstaSAM paper, laid out as its tables, on images that are at hand, its numbers beside ours.

python -m benchmarks.instasam_studies labels|shift|few-shot|cross-domain [--out FOLDER] [--steps N] [--seeds N]

`labels` is Table 3: what the pseudo-labels are made of. `shift` and `few-shot` are Table 1: dots that are off by
some pixels, and four training images. `cross-domain` is Table 2. CoNSeP (27 images of colon: 1 to 21 are trained
on, 22 to 27 are scored) and NuInsSeg (26 organs; images of four organs, which no training sees, are scored) stand
in for CPM-17 and MoNuSeg. The frozen encoder, and the prompted model that S comes from, is a network of the
default model's family that was trained on all other data sets (`models/README.md`): it has seen no outline of the
set that it is scored on. C + V are clusters in Voronoi cells, which need no model.

Every row is a training in a folder of its own. One that is done is not done again, and one that was stopped goes
on. WSI_NUC_REAL_DATA names the folder of the data sets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, print_rows
from wsi_nuc.datasets.images import load_images
from wsi_nuc.datasets.record import SourceConfig
from wsi_nuc.evaluation.evaluate import evaluate_images
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.models.registry import load_model
from wsi_nuc.training.events import EpochDone, Event
from wsi_nuc.training.registry import MODEL, load_train_config, train

DATA = Path(os.environ.get("WSI_NUC_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
STEPS = 600  # about 8 minutes of one core
SMALL: dict[str, Any] = {"steps": 1, "batch": 1, "crop.size_px": 64, "report_every": 1}
CONSEP: dict[str, Any] = {"path": "consep", "images": [f"train_{i}" for i in range(1, 22)]}
FOUR: dict[str, Any] = {"path": "consep", "images": ["train_3", "train_8", "train_13", "train_18"]}
NUINSSEG: dict[str, Any] = {"path": "nuinsseg", "split": "train"}
SCORED: dict[str, dict[str, Any]] = {
    "CoNSeP": {"path": "consep", "images": [f"train_{i}" for i in range(22, 28)]},
    "NuInsSeg": {"path": "nuinsseg", "split": "val"},
}
MODELS = Path(__file__).parents[1] / "models"
# By the set that is scored: a network that was trained on everything but it.
OTHERS = {"CoNSeP": MODELS / "without-consep.safetensors", "NuInsSeg": MODELS / "without-nuinsseg.safetensors"}
VORONOI: dict[str, Any] = {"first": "voronoi", "learned": "first"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A training, what it is scored on, and what the paper has in its place."""

    images: Mapping[str, Any]
    """The training images."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Differences from the defaults."""
    scored: str = "CoNSeP"
    quoted: tuple[float, float] | None = None
    """Dice and AJI in the paper."""


# By name. A name stands for the same training in every table.
CELLS: dict[str, Cell] = {
    "C + V": Cell(CONSEP, VORONOI, quoted=(80.3, 63.8)),
    "S": Cell(CONSEP, {"learned": "first"}, quoted=(81.3, 66.2)),
    "S' without H": Cell(CONSEP, {"pseudo.entropy": "off"}, quoted=(78.7, 63.3)),
    "S' without F": Cell(CONSEP, {"pseudo.overlap": False}, quoted=(64.0, 45.8)),
    "S'": Cell(CONSEP, quoted=(83.9, 69.5)),
    "S', binary H": Cell(CONSEP, {"pseudo.entropy": "binary"}),
    "outlines": Cell(CONSEP, {"first": "masks", "learned": "first"}, quoted=(84.9, 71.0)),
    "S' from C + V": Cell(CONSEP, {"first": "voronoi"}),
    "shift 2-4": Cell(CONSEP, {"shift_px": [2, 4]}, quoted=(83.9, 69.5)),
    "shift 4-6": Cell(CONSEP, {"shift_px": [4, 6]}, quoted=(83.1, 68.7)),
    "shift 6-8": Cell(CONSEP, {"shift_px": [6, 8]}, quoted=(82.4, 67.2)),
    "four images": Cell(FOUR, quoted=(83.0, 68.5)),
    "CoNSeP dots": Cell(CONSEP, scored="NuInsSeg", quoted=(75.1, 53.9)),
    "NuInsSeg dots": Cell(NUINSSEG, quoted=(79.6, 63.4)),
    "NuInsSeg dots, other organs": Cell(NUINSSEG, scored="NuInsSeg"),
}
STUDIES: dict[str, Sequence[str]] = {
    "labels": ("C + V", "S", "S' without H", "S' without F", "S'", "S', binary H", "outlines", "S' from C + V"),
    "shift": ("S'", "shift 2-4", "shift 4-6", "shift 6-8"),
    "few-shot": ("S'", "four images"),
    "cross-domain": ("CoNSeP dots", "NuInsSeg dots", "NuInsSeg dots, other organs"),
}


def measure(small: bool = False) -> list[Row]:
    """The table of the pseudo-labels with one seed. It needs CoNSeP and NuInsSeg, and says so where they are not.
    The small one trains and scores a single cell on one image."""
    if not (DATA / "consep").is_dir():
        return [Row(f"InstaSAM studies: no data at {DATA}", 0.0, "", "CoNSeP and NuInsSeg", False)]
    with tempfile.TemporaryDirectory() as folder:
        return study("labels", Path(folder), STEPS, 1, small)


def study(name: str, out: Path, steps: int, seeds: int, small: bool = False) -> list[Row]:
    rows = []
    for cell in ("C + V",) if small else STUDIES[name]:
        scores = np.array([_scores(cell, out / f"seed-{seed}", steps, seed, small) for seed in range(seeds)])
        quoted = CELLS[cell].quoted
        for kind, values, paper in zip(("Dice", "AJI"), scores.T, quoted or (None, None), strict=True):
            spread = f" (+- {values.std(ddof=1):.3f} over {seeds} seeds)" if seeds > 1 else ""
            said = f"the paper, on other images: {paper / 100:.3f}" if paper else ""
            what = f"{name}: {cell}, {kind} on {CELLS[cell].scored}{spread}"
            rows.append(Row(what, float(values.mean()), "", said))
    return rows


def _scores(name: str, out: Path, steps: int, seed: int, small: bool) -> tuple[float, float]:
    """Dice and AJI, means over images."""
    cell, folder = CELLS[name], out / name.replace(" ", "-").replace("'", "x").replace(",", "")
    kept = folder / "score.json"
    if not kept.is_file():
        model = load_model(str(trained(name, out, steps, seed, small)))
        source = SourceConfig.model_validate(_placed(SCORED[cell.scored], small))
        images = load_images([source], ("nucleus",), 0.25).images
        means = image_means(evaluate_images(model, images))
        kept.write_text(json.dumps({"dice": means.dice, "aji": means.aji}))
    score = json.loads(kept.read_text())
    return score["dice"], score["aji"]


def trained(name: str, out: Path, steps: int, seed: int, small: bool = False) -> Path:
    """The file of a cell, trained if it is not there yet."""
    cell, folder = CELLS[name], out / name.replace(" ", "-").replace("'", "x").replace(",", "")
    if (folder / MODEL).is_file():
        return folder / MODEL
    model = str(OTHERS[cell.scored])
    common = {"first": model, "steps": steps, "lr": 2e-3, "report_every": 100}
    settings = {**common, **cell.settings, **(SMALL if small else {})}
    given = {
        "out": folder, "classes": ["nucleus"], "mpp": 0.25, "frozen": model, "seed": seed, "device": "cpu",
        "data.train": [_placed(cell.images, small)], **settings,
    }  # fmt: skip
    return train(load_train_config("instasam", [], given), _tell)


def _tell(event: Event) -> None:
    if isinstance(event, EpochDone):
        print(f"{event.stage} {event.epoch}/{event.epochs}: loss {event.row['loss']:.3f}", file=sys.stderr)


def _placed(source: Mapping[str, Any], small: bool) -> dict[str, Any]:
    """The source with its path; only its first image if `small`."""
    images = {"images": source["images"][:1]} if small and "images" in source else {}
    return {**source, **images, "path": str(DATA / source["path"])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, default=Path("runs/instasam-studies"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    print_rows(study(asked.study, asked.out, asked.steps, asked.seeds))
