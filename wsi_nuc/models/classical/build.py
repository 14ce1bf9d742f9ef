"""Where the classical model comes from: the constants of this package, or a file that holds others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.classical.settings import (
    CLASSES,
    CORE_PX,
    CROP_PX,
    FEATURES,
    HALO_PX,
    MARGIN_PX,
    MPP,
    NUCLEUS_UM,
    Parameters,
    from_state,
    to_state,
)
from wsi_nuc.models.weights import Checkpoint, CheckpointInfo, check_state, save_checkpoint
from wsi_nuc.results_numbers import NUMBERS

ARCHITECTURE = "classical"
ABOUT = "no network, no weights: haematoxylin, blobs and a local flood; H&E at 0.5 um/px, CPU"
OPTIONS = None


def spec(options: Mapping[str, Any]) -> ModelSpec:
    return _spec(ARCHITECTURE, CLASSES, _digest(Parameters()))


def load(device: str, options: Mapping[str, Any]) -> NucleiModel:
    """The built-in constants. It runs on the CPU, whatever the device is."""
    from wsi_nuc.models.classical.look import build

    return build(Parameters(), spec(options))


def spec_of_file(info: CheckpointInfo, options: Mapping[str, Any]) -> ModelSpec:
    return _spec(Path(info.path).name, info.classes, info.sha256)


def load_file(checkpoint: Checkpoint, device: str, options: Mapping[str, Any]) -> NucleiModel:
    """Constants that were saved by `save`, checked before anything else is touched."""
    from wsi_nuc.models.classical.look import build

    info, state = checkpoint.info, checkpoint.arrays()
    expected = {name: tuple(array.shape) for name, array in to_state(Parameters()).items()}
    expected["class_weights"] = (len(info.classes), len(FEATURES))
    check_state(info.path, expected, {name: tuple(array.shape) for name, array in state.items()})
    return build(from_state(state, info.path), spec_of_file(info, options))


def save(path: str | Path, parameters: Parameters | None = None, classes: tuple[str, ...] = CLASSES) -> None:
    """Write constants as a native checkpoint, which `--model FILE` takes."""
    header = {
        "architecture": ARCHITECTURE,
        "classes": list(classes),
        "mpp": MPP,
        "normalisation": "none: optical density of 8-bit RGB",
        "training_data": "constants chosen on 21 CoNSeP training images",
        "metrics": {},
    }
    save_checkpoint(path, to_state(parameters or Parameters()), header)


def _spec(name: str, classes: tuple[str, ...], sha256: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        classes=classes,
        mpp=MPP,
        core_px=CORE_PX,
        halo_px=HALO_PX,
        largest_nucleus_px=CROP_PX,
        margin_px=MARGIN_PX,
        batch=1,  # every tile is computed by itself, so a larger batch only costs memory
        weights_sha256=sha256,
        nucleus_um=NUCLEUS_UM,
        copyable=True,
        results=NUMBERS[ARCHITECTURE],
    )


def _digest(parameters: Parameters) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(to_state(parameters).items()):
        digest.update(f"{name}{array.shape}".encode() + array.astype("<f8").tobytes())
    return digest.hexdigest()
