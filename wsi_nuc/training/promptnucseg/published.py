"""What `recipe` and `preset` stand for: values of the paper and of the authors' program, as keys of a training.

`expanded` lays them below the keys that were given, so that a file and `--set` can change each of them.
docs/promptnucseg.md lists the differences. Of the stage `together` nothing is published, so it has the prompter's
values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wsi_nuc.models.promptnucseg.settings import PRESETS

Recipe = Literal["paper", "released"]
Preset = Literal["kumar", "cpm17", "pannuke"]
Keys = Mapping[str, Any]

_PAPER_STAGE = {
    "lr": 1e-4,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "schedule": "constant",
    "milestones": [],
    "decay": 0.1,
    "clip": 0.0,
    "ema": 0.0,
    "ema_after": 0,
    "crop_px": 256,
    "encoder": 1.0,
}
_RELEASED_SEGMENTOR = _PAPER_STAGE | {"weight_decay": 1e-4, "schedule": "steps"}
# The released configuration of PanNuke's prompter names milestones, but its program makes no scheduler.
_RELEASED_PROMPTER = _PAPER_STAGE | {
    "optimizer": "adamw",
    "weight_decay": 1e-4,
    "clip": 0.1,
    "ema": 0.99,
    "ema_after": 5,
}

# What neither knows: cuts that are chosen after the training, and other encoders than SAM's.
_PUBLISHED_USE = {"threshold": None, "mask_logit": 0.0}
_NEITHER = {"cuts": "given", "encoder": ""}

_OF_RECIPE: dict[str, Keys] = {
    "paper": _NEITHER
    | {
        "data": {"augment": True, "cut_nuclei": "apart", "points": "mass", "mirrored_points": True},
        "prompts": {"nuclei": 25, "negatives": 1, "positive": "random"},
        "loss": {
            "focal_alpha": 0.25,
            "dice": "mask",
            "iou": "hard",
            "class_mean": "anchors",
            "regression": "l2",
            "near_tokens": 16,
        },
        "train": {"segmentor": _PAPER_STAGE, "prompter": _PAPER_STAGE, "together": _PAPER_STAGE},
        "use": {"mask_filter": True, "negatives": 1} | _PUBLISHED_USE,
    },
    "released": _NEITHER
    | {
        "data": {
            "augment": "released",
            "cut_nuclei": "whole",
            "points": "contour",
            "mirrored_points": False,
        },
        "prompts": {"nuclei": 25, "negatives": 0, "positive": "random"},
        "loss": {
            "focal_alpha": None,
            "dice": "batch",
            "iou": "soft",
            "class_mean": "weights",
            "regression": "squared",
            "near_tokens": 16,
        },
        "train": {
            "segmentor": _RELEASED_SEGMENTOR,
            "prompter": _RELEASED_PROMPTER,
            "together": _RELEASED_PROMPTER,
        },
        "use": {"mask_filter": True, "negatives": 0} | _PUBLISHED_USE,
    },
}


@dataclass(frozen=True, slots=True)
class _DataSet:
    """The training on one of the published data sets."""

    segmentor: int
    """Images per step; the released configurations have a quarter of it, on each of four GPUs."""
    prompter: int
    """Images per step."""
    epochs: int
    beta: float
    """Weight of the background class."""
    milestone: int
    """Epoch after which the segmentor's learning rate is a tenth."""
    whole_px: int
    """The prompter's crops."""


# The supplement says "For the Kumar and CPM-17 datasets, [...] with the prompter and segmentor trained for 600 and
# 400 epochs, respectively". Here these are the epochs of Kumar and of CPM-17; it can also be read as 600 for the
# prompter and 400 for the segmentor.
_DATA_SETS = {
    "kumar": _DataSet(16, 8, epochs=600, beta=0.20, milestone=200, whole_px=1000),
    "cpm17": _DataSet(32, 8, epochs=400, beta=0.25, milestone=300, whole_px=500),
    "pannuke": _DataSet(64, 16, epochs=200, beta=0.40, milestone=100, whole_px=256),
}


def _of_preset(name: str, recipe: str, size: str) -> Keys:
    """What differs between the data sets. Networks and released use are those of `PRESETS`."""
    released, training = PRESETS[name], _DATA_SETS[name]
    use = released.use(size)
    if recipe != "released":
        use = {key: use[key] for key in ("nms_radius_px", "box_iou", "multiple_px")}
    of_prompter = {"batch": training.prompter, "epochs": training.epochs}
    keys = {
        "prompter": {"levels": released.levels, "space_px": released.space_px},
        "loss": {"beta": training.beta},
        "train": {
            "segmentor": {"batch": training.segmentor, "epochs": training.epochs},
            "prompter": of_prompter,
            "together": of_prompter,
        },
        "use": use,
    }
    return _over(keys, _released(name, size, use)) if recipe == "released" else keys


def _released(name: str, size: str, use: Keys) -> Keys:
    training = _DATA_SETS[name]
    lr = 1e-4 * training.prompter / 8
    with_decay = (name, size) in (("kumar", "vit_b"), ("kumar", "vit_l"), ("cpm17", "vit_h"))
    return {
        "prompts": {"nuclei": 20 if name == "pannuke" else 25, "negatives": use["negatives"]},
        "train": {
            "segmentor": {
                "milestones": [training.milestone],
                "optimizer": "adamw" if with_decay else "adam",
            },
            "prompter": {"lr": lr, "crop_px": training.whole_px},
            "together": {"lr": lr},
        },
    }


def expanded(given: Keys) -> dict[str, Any]:
    """The keys that were given, above those that their `recipe` and `preset` stand for."""
    recipe, preset = str(given.get("recipe")), str(given.get("preset"))
    keys = _OF_RECIPE.get(recipe, {})
    if preset in _DATA_SETS:
        keys = _over(keys, _of_preset(preset, recipe, _size(given)))
    return dict(_over(keys, given))


def _size(given: Keys) -> str:
    segmentor = given.get("segmentor")
    return str(segmentor.get("size", "vit_b")) if isinstance(segmentor, Mapping) else "vit_b"


def _over(below: Keys, above: Keys) -> Keys:
    """Both, section by section; where both have a value, the one of `above`."""
    both = {
        key: _over(below[key], value) if isinstance(value, Mapping) and isinstance(below[key], Mapping) else value
        for key, value in above.items()
        if key in below
    }
    return {**below, **above, **both}
