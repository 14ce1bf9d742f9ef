"""Each part of the method taken away, as in Tables 6 and 7 and the overlap study: which way does the score go?

The tiny configuration learns two images by heart, as in `tests/training/test_overfit.py`, once with each part and
once without it. It is scored on the same images, and the rows give the mean over seeds. That shows whether a part
does what it is for. It does not show the size of an effect: the paper's numbers are for SAM-H, trained for hours
on all of CPM-17. On held-out images so short a training gives noise (PQ 0.05). WSI_NUC_ABLATION_SEEDS sets how
many seeds are used.

Measured with one seed, where the whole method has a PQ of 0.913: as in the paper, a negative helps (trained with
and without it: +0.010 with predicted and with true points; left out at test only: +0.182), and true points beat
predicted ones (+0.010). Unlike in the paper, the filter costs 0.010: where no mask is wrong, it can only take
right ones away. Matching and the region mask task make no difference here (+0.00004 each), since a prompter that
has learned the images by heart finds every nucleus.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, print_rows
from tests.training.test_overfit import cut
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.evaluation.variants import EvaluateConfig, evaluate_variants
from wsi_nuc.training.registry import load_train_config, train

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("WSI_NUC_REAL_DATA", ROOT.parent / "shared" / "data"))
SEEDS = int(os.environ.get("WSI_NUC_ABLATION_SEEDS", "2"))
# A small run learns nothing: an epoch of one step each.
SHORT = ("data.crops_per_image=1", "train.segmentor.epochs=1", "train.prompter.epochs=1")


def measure(small: bool = False) -> list[Row]:
    """Needs CoNSeP's images, and says so where they are not."""
    if not (DATA / "consep").is_dir():
        return [Row(f"ablations: no data at {DATA}", 0.0, "", "CoNSeP's training images", False)]
    with tempfile.TemporaryDirectory() as folder:
        data = cut(DATA, Path(folder) / "two")
        changes = SHORT if small else ()
        seeds = [
            _scores(_models(Path(folder) / str(seed), data, seed, changes), data)
            for seed in range(1 if small else SEEDS)
        ]
    return _rows({name: np.array([scores[name] for scores in seeds]) for name in seeds[0]})


def _models(folder: Path, data: Path, seed: int, changes_of_all: Sequence[str]) -> dict[str, Path]:
    """Two segmentors, and prompters beside the first of them."""

    def trained(name: str, stage: str, *changes: str, init: tuple[Path, ...] = ()) -> Path:
        images = f"[{{path: {data}}}]"
        sets = [f"data.train={images}", f"data.validation={images}", f"seed={seed}", *changes_of_all, *changes]
        given = {"out": folder / name, "stages": [stage], "init": list(init), "device": "cpu"}
        return train(load_train_config(ROOT / "configs" / "tiny.yaml", sets, given))

    k1 = trained("k1", "segmentor")
    k0 = trained("k0", "segmentor", "prompts.negatives=0")
    whole = trained("whole", "prompter", init=(k1,))
    prompter = folder / "whole" / "prompter" / "best.safetensors"
    untouched = ("train.prompter.lr=1e-12", "train.prompter.epochs=1")
    return {
        "whole": whole,
        "k0": trained("k0-whole", "prompter", *untouched, init=(k0, prompter)),
        "no aux": trained("no-aux", "prompter", "loss.mask=0", init=(k1,)),
        "nearest": trained("nearest", "prompter", "loss.matching=nearest", init=(k1,)),
    }


def _scores(models: Mapping[str, Path], folder: Path) -> dict[str, float]:
    """PQ of every variant, the mean over the images."""

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
    data = {"two": {"path": folder}}
    results = evaluate_variants(
        EvaluateConfig.model_validate({"data": data, "variants": variants, "device": "cpu"})
    )
    return {result.variant: image_means(result.scores).pq for result in results}


def _rows(pq: Mapping[str, Any]) -> list[Row]:
    """`pq`: for each variant, one value per seed."""

    def gain(what: str, more: str, less: str, paper: str) -> Row:
        value, spread = float(np.mean(pq[more] - pq[less])), float(np.ptp(pq[more] - pq[less]))
        return Row(f"ablation: {what} (spread {spread:.3f})", value, "PQ", f"> 0 (paper {paper})", value > 0)

    def recorded(what: str, values: Any) -> Row:
        return Row(f"ablation: {what} (spread {np.ptp(values):.3f})", float(np.mean(values)), "PQ")

    without = pq["k 0/1 oracle"] - pq["k 0/0 oracle"]
    return [
        recorded("the whole method", pq["whole"]),
        gain("mask filter on - off", "whole", "filter off", "+0.004"),
        gain("region mask task - none, filter off", "filter off", "no aux", "+0.004"),
        gain("Hungarian - nearest anchor", "whole", "nearest", "not studied"),
        gain("negatives K=1 - K=0, predicted points", "whole", "k 0/0", "+0.002"),
        gain("negatives K=1 - K=0, true points", "k 1/1 oracle", "k 0/0 oracle", "+0.018"),
        gain("a negative at test, trained with", "k 1/1 oracle", "k 1/0 oracle", "+0.018"),
        recorded("a negative at test, trained without; paper +0.010", without),
        gain("true - predicted points", "k 1/1 oracle", "whole", "+0.057"),
        *(recorded(f"overlap {px} - 64 px", pq[f"overlap {px}"] - pq["whole"]) for px in (0, 32, 96)),
    ]


if __name__ == "__main__":
    print_rows(measure())
