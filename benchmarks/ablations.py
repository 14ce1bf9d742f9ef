"""Each part of the method taken away, as in Tables 6 and 7 and the overlap study: which way does the score go?

Tiny networks, minutes of training from random weights and two held-out images say nothing about the size of an
effect, and little about a small one; the paper's numbers are for SAM-H, trained for hours on all of CPM-17.
With 4 epochs of 50 steps every sign is noise (PQ 0.05 on held-out images). WSI_NUC_ABLATION_EPOCHS sets them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.table import Row, print_rows
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.evaluation.variants import EvaluateConfig, evaluate_variants
from wsi_nuc.training.config import load_train_config
from wsi_nuc.training.train import train

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("WSI_NUC_REAL_DATA", ROOT.parent / "shared" / "data")) / "consep"
TRAINED_ON = [f"train_{i}" for i in (1, 3, 6, 9, 14, 17)]
HELD_OUT = ["train_12", "train_20"]
EPOCHS = int(os.environ.get("WSI_NUC_ABLATION_EPOCHS", "12"))
SHORT = {"batch": 4, "epochs": EPOCHS, "warmup_steps": 40, "validate_every": EPOCHS, "save_every": EPOCHS}


def measure() -> list[Row]:
    if not DATA.is_dir():
        return [Row(f"ablations: no data at {DATA}", 0.0, "", "CoNSeP's training images", False)]
    with tempfile.TemporaryDirectory() as folder:
        return _rows(_scores(_models(Path(folder))))


def _models(folder: Path) -> dict[str, Path]:
    """Two segmentors, and prompters beside the first of them."""
    k1 = _train(folder / "k1", "segmentor")
    k0 = _train(folder / "k0", "segmentor", "prompts.negatives=0")
    whole = _train(folder / "whole", "prompter", f"init=[{k1}]")
    prompter = folder / "whole" / "prompter" / "best.safetensors"
    return {
        "whole": whole,
        "k0": _train(
            folder / "k0-whole",
            "prompter",
            f"init=[{k0}, {prompter}]",
            "train.prompter.lr=1e-12",
            "train.prompter.epochs=1",
        ),
        "no aux": _train(folder / "no-aux", "prompter", f"init=[{k1}]", "loss.mask=0"),
        "nearest": _train(folder / "nearest", "prompter", f"init=[{k1}]", "loss.matching=nearest"),
    }


def _train(out: Path, stage: str, *changes: str) -> Path:
    given: dict[str, Any] = {
        "out": out, "stages": [stage], "init": [], "device": "cpu",
        "data": {"train": [{"path": str(DATA), "images": TRAINED_ON}], "crops_per_image": 33, "augment": True},
    }  # fmt: skip
    assignments = [f"train.{stage}.{key}={value}" for key, value in SHORT.items()]
    inits = [change for change in changes if change.startswith("init=")]
    if inits:
        given.pop("init")
    return train(load_train_config(ROOT / "configs" / "tiny.yaml", [*assignments, *changes], given))


def _scores(models: dict[str, Path]) -> dict[str, float]:
    """PQ of every variant, the mean over the held-out images."""

    def variant(name: str, oracle: bool = False, **use: Any) -> dict[str, Any]:
        return {"model": str(models[name]), "oracle": oracle, "use": {"precision": "fp32", **use}}

    variants = {
        "whole": variant("whole"),
        "filter off": variant("whole", mask_filter=False),
        "no aux": variant("no aux", mask_filter=False),
        "nearest": variant("nearest"),
        "k 0/0": variant("k0", negatives=0),
        "k 0/0 oracle": variant("k0", oracle=True, negatives=0),
        "k 0/1 oracle": variant("k0", oracle=True, negatives=1),
        "k 1/0 oracle": variant("whole", oracle=True, negatives=0),
        "k 1/1 oracle": variant("whole", oracle=True, negatives=1),
        "overlap 0": variant("whole", overlap_px=0),
        "overlap 32": variant("whole", overlap_px=32),
        "overlap 96": variant("whole", overlap_px=96),
    }
    data = {"held out": {"path": DATA, "images": HELD_OUT}}
    results = evaluate_variants(
        EvaluateConfig.model_validate({"data": data, "variants": variants, "device": "cpu"})
    )
    return {result.variant: image_means(result.scores).pq for result in results}


def _rows(pq: dict[str, float]) -> list[Row]:
    def gain(what: str, more: str, less: str, paper: str) -> Row:
        value = pq[more] - pq[less]
        return Row(f"ablation: {what}", value, "PQ", f"> 0 (paper {paper})", value > 0)

    return [
        Row("ablation: the whole method, held out", pq["whole"], "PQ", "recorded", True),
        gain("mask filter on - off", "whole", "filter off", "+0.004"),
        gain("region mask task - none, filter off", "filter off", "no aux", "+0.004"),
        gain("Hungarian - nearest anchor", "whole", "nearest", "not studied"),
        gain("negatives K=1 - K=0, predicted points", "whole", "k 0/0", "+0.002"),
        gain("negatives K=1 - K=0, true points", "k 1/1 oracle", "k 0/0 oracle", "+0.018"),
        gain("a negative at test, trained with", "k 1/1 oracle", "k 1/0 oracle", "+0.018"),
        Row(
            "ablation: a negative at test, trained without",
            pq["k 0/1 oracle"] - pq["k 0/0 oracle"],
            "PQ",
            "recorded (paper +0.010)",
            True,
        ),
        gain("true - predicted points", "k 1/1 oracle", "whole", "+0.057"),
        *(
            Row(f"ablation: overlap {px} - 64 px", pq[f"overlap {px}"] - pq["whole"], "PQ", "recorded", True)
            for px in (0, 32, 96)
        ),
    ]


if __name__ == "__main__":
    print_rows(measure())
