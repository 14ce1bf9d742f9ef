"""What `recipe` and `preset` stand for: values of the paper and of the authors' program, as keys of a training.

`expanded` lays them below the keys that were given, so that a file and `--set` can change each of them.
docs/promptnucseg.md lists the differences. Of the stage `together` nothing is published, so it has the prompter's
values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

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
    "crop_px": 256,
}
_RELEASED_SEGMENTOR = _PAPER_STAGE | {"weight_decay": 1e-4, "schedule": "steps"}
# The released configuration of PanNuke's prompter names milestones, but its program makes no scheduler.
_RELEASED_PROMPTER = _PAPER_STAGE | {"optimizer": "adamw", "weight_decay": 1e-4, "clip": 0.1, "ema": 0.99}

_OF_RECIPE: dict[str, Keys] = {
    "paper": {
        "data": {"augment": True},
        "prompts": {"nuclei": 25, "negatives": 1, "positive": "random"},
        "loss": {
            "focal_alpha": 0.25,
            "dice": "mask",
            "iou": "hard",
            "class_mean": "anchors",
            "regression": "l2",
        },
        "train": {"segmentor": _PAPER_STAGE, "prompter": _PAPER_STAGE, "together": _PAPER_STAGE},
        "use": {"mask_filter": True, "negatives": 1},
    },
    "released": {
        "data": {"augment": "released"},
        "prompts": {"nuclei": 25, "negatives": 0, "positive": "random"},
        "loss": {
            "focal_alpha": None,
            "dice": "batch",
            "iou": "soft",
            "class_mean": "weights",
            "regression": "squared",
        },
        "train": {
            "segmentor": _RELEASED_SEGMENTOR,
            "prompter": _RELEASED_PROMPTER,
            "together": _RELEASED_PROMPTER,
        },
        "use": {"mask_filter": True, "negatives": 0},
    },
}


def _sizes(segmentor: int, prompter: int, epochs: int) -> dict[str, Any]:
    """Images per step, and how long all stages run."""
    of_prompter = {"batch": prompter, "epochs": epochs}
    stages = {
        "segmentor": {"batch": segmentor, "epochs": epochs},
        "prompter": of_prompter,
        "together": of_prompter,
    }
    return {"train": stages}


# What both recipes have in common. The supplement says "For the Kumar and CPM-17 datasets, [...] with the prompter
# and segmentor trained for 600 and 400 epochs, respectively". Here these are the epochs of Kumar and of CPM-17;
# the sentence can also be read as 600 for the prompter and 400 for the segmentor.
_OF_PRESET: dict[str, Keys] = {
    "kumar": _sizes(16, 8, 600)
    | {
        "prompter": {"levels": 4, "space_px": 16},
        "loss": {"beta": 0.20},
        "use": {"nms_radius_px": 11.0, "box_iou": 0.3},
    },
    "cpm17": _sizes(32, 8, 400)
    | {
        "prompter": {"levels": 4, "space_px": 16},
        "loss": {"beta": 0.25},
        "use": {"nms_radius_px": 12.0, "box_iou": 0.5},
    },
    "pannuke": _sizes(64, 16, 200)
    | {
        "prompter": {"levels": 3, "space_px": 8},
        "loss": {"beta": 0.40},
        "use": {"nms_radius_px": 12.0, "box_iou": 0.5},
    },
}

# The released values that differ between the data sets. The learning rate of a prompter is 1e-4 times batch / 8.
_RELEASED_FOR: dict[str, Keys] = {
    "kumar": {"train": {"segmentor": {"milestones": [200]}, "prompter": {"crop_px": 1000}}},
    "cpm17": {"train": {"segmentor": {"milestones": [300]}, "prompter": {"crop_px": 500}}},
    "pannuke": {
        "prompts": {"nuclei": 20},
        "train": {"segmentor": {"milestones": [100]}, "prompter": {"lr": 2e-4}, "together": {"lr": 2e-4}},
        "use": {"mask_filter": False},
    },
}
_ADAMW: Keys = {"train": {"segmentor": {"optimizer": "adamw"}}}
_RELEASED_FOR_SIZE: dict[tuple[str, str], Keys] = {
    ("kumar", "vit_b"): _ADAMW,
    ("kumar", "vit_l"): _ADAMW,
    ("cpm17", "vit_h"): {**_ADAMW, "prompts": {"negatives": 1}, "use": {"negatives": 1}},
}


def expanded(given: Keys) -> dict[str, Any]:
    """The keys that were given, above those that their `recipe` and `preset` stand for."""
    recipe, preset = given.get("recipe"), given.get("preset")
    layers = [_OF_RECIPE.get(str(recipe), {}), _OF_PRESET.get(str(preset), {})]
    if recipe == "released":
        layers += [_RELEASED_FOR.get(str(preset), {}), _RELEASED_FOR_SIZE.get((str(preset), _size(given)), {})]
    keys: Keys = {}
    for layer in [*layers, given]:
        keys = _over(keys, layer)
    return dict(keys)


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
