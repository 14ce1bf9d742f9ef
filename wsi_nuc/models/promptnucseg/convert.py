"""Foreign checkpoints to native files: official SAM, timm backbones, and the files of PromptNucSeg's authors.

The names of a file's tensors tell what it holds. Several files may be given, for example one of a prompter and one
of a segmentor. If together they hold a whole model, the result can run; if not, training can start from it.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from wsi_nuc.errors import ModelError
from wsi_nuc.models.promptnucseg.build import ARCHITECTURE, PART, header_of, save_state
from wsi_nuc.models.promptnucseg.net import class_counts, expected_shapes
from wsi_nuc.models.promptnucseg.settings import PrompterSettings, SegmentorSettings, Settings, UseSettings
from wsi_nuc.models.sam.model import resize_tables, size_of
from wsi_nuc.models.torch_ops import load
from wsi_nuc.models.weights import CheckpointInfo, check_class_count, check_sense, check_state, read_info, read_pth

SEGMENTOR, PROMPTER, BACKBONE = "segmentor.", "prompter.", "prompter.backbone.backbone."
# Tried in this order: the published backbone first.
BACKBONES = tuple(
    f"convnext_{size}" for size in ("small", "tiny", "base", "large", "nano", "pico", "femto", "atto")
)
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Target:
    """What the user states about the result, since the weights do not say it."""

    classes: tuple[str, ...] = ("nucleus",)
    mpp: float = 0.25
    """Microns per pixel that the networks were trained at."""
    space_px: int | None = None
    """Distance of the anchors. None: as published, 8 px where the pyramid has 3 levels, otherwise 16."""
    use: Mapping[str, Any] = field(default_factory=dict)
    """Values of `UseSettings` to change."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of the header, such as training_data and metrics."""


def convert(sources: Sequence[str | Path], out: str | Path, target: Target) -> CheckpointInfo:
    """Write `out` (.safetensors) from the files; every tensor must fit, or nothing is written."""
    state: State = {}
    settings = Settings(target.classes, target.mpp, use=UseSettings(**target.use))
    for source in sources:
        prefix, tensors = _recognised(source, _read(source))
        check_sense(source, tensors)
        settings = _with_part(source, settings, prefix, tensors, target)
        tensors = {prefix + name: tensor for name, tensor in tensors.items()}
        expected = {n: shape for n, shape in expected_shapes(settings).items() if n.startswith(prefix)}
        tensors = resize_tables(tensors, expected)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for count in class_counts(settings, shapes):
            check_class_count(source, settings.classes, count)
        check_state(source, expected, shapes)
        state.update(tensors)
    whole = set(state) == set(expected_shapes(settings))
    save_state(out, state, header_of(settings, ARCHITECTURE if whole else PART, target.about))
    return read_info(out)


def _read(source: str | Path) -> State:
    if Path(source).suffix.lower() == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(source))
        except (SafetensorError, OSError) as error:
            raise ModelError(source, f"cannot be read: {error}", "copy or download the file again") from error
    with torch.serialization.safe_globals(_numpy_numbers()):
        return read_pth(source)


def _numpy_numbers() -> list[Any]:
    """The authors' files hold their metrics beside the weights, as numpy numbers. These functions rebuild a number
    and can do nothing else."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, codecs.encode, np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?"))]


def _recognised(source: str | Path, state: State) -> tuple[str, State]:
    """Where in the model the tensors belong, and the tensors that it uses."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    if "image_encoder.patch_embed.proj.weight" in state:
        return SEGMENTOR, state
    if "backbone.backbone.stem.0.weight" in state:
        return PROMPTER, state
    if "stem.0.weight" in state and any(name.startswith("stages.") for name in state):
        return BACKBONE, {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    names = ", ".join(list(state)[:5]) or "none"
    cause = f"neither a SAM, nor a timm ConvNeXt, nor a PromptNucSeg checkpoint; its tensors: {names}"
    raise ModelError(source, cause, "give one of these three")


def _with_part(source: str | Path, settings: Settings, prefix: str, tensors: State, target: Target) -> Settings:
    if prefix == SEGMENTOR:
        size, classes = size_of(source, tensors), "mask_decoder.cls_token.weight" in tensors
        return replace(settings, segmentor=SegmentorSettings(size, classes))
    if prefix == BACKBONE:
        backbone = _backbone(source, tensors)
        return replace(settings, prompter=replace(settings.prompter, backbone=backbone))
    return replace(settings, **_authors_prompter(source, tensors, target))


def _authors_prompter(source: str | Path, tensors: State, target: Target) -> dict[str, Any]:
    """Settings of a released prompter. What its weights do not say is taken from the released configurations:
    anchors every 8 px and no mask filter on PanNuke (3 levels), every 16 px and a filter elsewhere, and no
    negatives."""
    inner = "backbone.backbone."
    backbone = {name.removeprefix(inner): t for name, t in tensors.items() if name.startswith(inner)}
    levels = sum(name.startswith("backbone.neck.fpn_convs.") and name.endswith(".weight") for name in tensors)
    channels = tensors["conv.weight"].shape[0] if "conv.weight" in tensors else PrompterSettings().channels
    pannuke = levels == 3
    prompter = PrompterSettings(
        backbone=_backbone(source, backbone),
        levels=levels,
        channels=channels,
        space_px=target.space_px or (8 if pannuke else 16),
    )
    return {
        "prompter": prompter,
        "use": UseSettings(**{"mask_filter": not pannuke, "negatives": 0} | dict(target.use)),
    }


def _backbone(source: str | Path, tensors: State) -> str:
    """The timm name whose tensors have these names and shapes, or else the nearest, which check_state refuses."""
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    timm = load("timm")
    differing: dict[str, int] = {}
    for name in BACKBONES:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, num_classes=0)
        model.prune_intermediate_layers([0, 1, 2, 3], prune_norm=True, prune_head=True)
        shapes = {n: tuple(tensor.shape) for n, tensor in model.state_dict().items()}
        differing[name] = len(set(shapes.items()) ^ set(given.items()))
        if not differing[name]:
            return name
    return min(differing, key=lambda name: differing[name])
