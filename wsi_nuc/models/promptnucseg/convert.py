"""Foreign checkpoints to native files: official SAM, timm backbones, and the files of PromptNucSeg's authors.

The names of a file's tensors tell what it holds. Several files may be given, for example one of a prompter and one
of a segmentor. If together they hold a whole model, the result can run; if not, training can start from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from wsi_nuc.errors import ModelError
from wsi_nuc.models.foreign import read_foreign
from wsi_nuc.models.promptnucseg.build import ARCHITECTURE, PART, header_of, save_state
from wsi_nuc.models.promptnucseg.net import class_counts, expected_shapes
from wsi_nuc.models.promptnucseg.settings import (
    PRESETS,
    PrompterSettings,
    SegmentorSettings,
    Settings,
    UseSettings,
)
from wsi_nuc.models.sam.model import resize_tables, size_of
from wsi_nuc.models.torch_ops import load
from wsi_nuc.models.weights import CheckpointInfo, check_class_count, check_sense, check_state, first_of, read_info

SEGMENTOR, PROMPTER, BACKBONE = "segmentor.", "prompter.", "prompter.backbone.backbone."
# Tried in this order: the published backbone first.
BACKBONES = tuple(
    f"convnext_{size}" for size in ("small", "tiny", "base", "large", "nano", "pico", "femto", "atto")
)
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Target:
    """What the user states about the result, since the weights do not say it."""

    classes: tuple[str, ...] = ()
    """Empty: those of the preset or, without one, `nucleus`."""
    mpp: float = 0.25
    """Microns per pixel that the networks were trained at."""
    space_px: int | None = None
    """Distance of the anchors. None: as published, 8 px where the pyramid has 3 levels, otherwise 16."""
    preset: str = ""
    """A name in `settings.PRESETS`, which says how the model is used."""
    use: Mapping[str, Any] = field(default_factory=dict)
    """Values of `UseSettings` to change."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of the header, such as training_data and metrics."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes or (PRESETS[self.preset].classes if self.preset else ("nucleus",))


def convert(sources: Sequence[str | Path], out: str | Path, target: Target) -> CheckpointInfo:
    """Write `out` (.safetensors) from the files; every tensor must fit, or nothing is written."""
    state: State = {}
    settings, released = Settings(target.class_names, target.mpp), False
    files = [(source, *_recognised(source, *_read(source))) for source in sources]
    _check_one_data_set([clue for _, _, _, clues in files for clue in clues], target.preset)
    for source, prefix, given, _ in files:
        check_sense(source, given)
        settings, released = _with_part(source, settings, prefix, given, target), released or prefix == PROMPTER
        expected = {n: shape for n, shape in expected_shapes(settings).items() if n.startswith(prefix)}
        tensors = resize_tables({prefix + name: tensor for name, tensor in given.items()}, expected)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for count in class_counts(settings, shapes):
            check_class_count(source, settings.classes, count)
        check_state(source, expected, shapes)
        if twice := sorted(set(state) & set(tensors)):
            cause = f"another file holds the same part, with {first_of(twice)}"
            raise ModelError(source, cause, "give one prompter and one segmentor")
        state.update(tensors)
    settings = replace(settings, use=UseSettings(**(_released_use(settings, released, target) | dict(target.use))))
    whole = set(state) == set(expected_shapes(settings))
    save_state(out, state, header_of(settings, ARCHITECTURE if whole else PART, target.about))
    return read_info(out)


def _read(source: str | Path) -> tuple[State, Mapping[str, Any]]:
    """The tensors of a file, and what a `.pth` says beside them."""
    if Path(source).suffix.lower() == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(source)), {}
        except (SafetensorError, OSError) as error:
            raise ModelError(source, f"cannot be read: {error}", "copy or download the file again") from error
    return read_foreign(source)


@dataclass(frozen=True, slots=True)
class Clue:
    """What in a file tells the data set that it was trained on."""

    source: str | Path
    presets: frozenset[str]
    """The presets that it agrees with."""
    words: str


def _clues(source: str | Path, levels: int, about: Mapping[str, Any]) -> list[Clue]:
    """At most one: the strongest that the file has. The authors' configurations begin with the name of the data
    set, their evaluation reports mPQ on PanNuke and AJI elsewhere, and PanNuke's prompter has 3 levels (0: this is
    no prompter)."""
    arguments, metrics = about.get("args"), about.get("metrics")
    config = arguments.get("config") if isinstance(arguments, dict) else None
    named = [name for name in PRESETS if isinstance(config, str) and Path(config).name.startswith(name)]
    if named:
        return [Clue(source, frozenset(named), f"it was trained with {config}")]
    for metric, presets in {"mPQ": ("pannuke",), "AJI": ("kumar", "cpm17")}.items():
        if isinstance(metrics, dict) and metric in metrics:
            return [Clue(source, frozenset(presets), f"its metrics are {', '.join(map(str, metrics))}")]
    with_levels = [name for name, preset in PRESETS.items() if preset.levels == levels]
    return [Clue(source, frozenset(with_levels), f"its pyramid has {levels} levels")] if with_levels else []


def _check_one_data_set(clues: Sequence[Clue], preset: str) -> None:
    """Refuse files of different data sets, and those that the preset is not for."""
    fitting = frozenset([preset]) if preset else frozenset(PRESETS)
    if fitting.intersection(*(clue.presets for clue in clues)):
        return
    lines = [f"{clue.source} is of {' or '.join(sorted(clue.presets))} ({clue.words})" for clue in clues]
    wanted = f"preset {preset}" if preset else "the files"
    remedy = "give the files and the preset of one data set" if preset else "give the files of one data set"
    raise ModelError(wanted, f"they do not belong together: {'; '.join(lines)}", remedy)


def _released_use(settings: Settings, released: bool, target: Target) -> dict[str, Any]:
    """How the released code uses these networks. Without a preset only what shows in the weights of a prompter:
    a mask filter everywhere but on PanNuke (3 levels), and no negatives."""
    if target.preset:
        return PRESETS[target.preset].use(settings.segmentor.size)
    return {"mask_filter": settings.prompter.levels != 3, "negatives": 0} if released else {}


def _recognised(source: str | Path, state: State, about: Mapping[str, Any]) -> tuple[str, State, list[Clue]]:
    """Where in the model the tensors belong, the tensors that it uses, and clues to the data set."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    if "image_encoder.patch_embed.proj.weight" in state:
        return SEGMENTOR, state, _clues(source, 0, about)
    if "backbone.backbone.stem.0.weight" in state:
        return PROMPTER, state, _clues(source, _levels(state), about)
    if "stem.0.weight" in state and any(name.startswith("stages.") for name in state):
        return BACKBONE, {name: tensor for name, tensor in state.items() if not name.startswith("head.")}, []
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
    return replace(settings, prompter=_authors_prompter(source, tensors, target))


def _authors_prompter(source: str | Path, tensors: State, target: Target) -> PrompterSettings:
    """Settings of a released prompter. Its weights do not say how far its anchors are apart: 8 px on PanNuke
    (3 levels), 16 px elsewhere."""
    inner = "backbone.backbone."
    backbone = {name.removeprefix(inner): t for name, t in tensors.items() if name.startswith(inner)}
    levels = _levels(tensors)
    space_px = PRESETS[target.preset].space_px if target.preset else 8 if levels == 3 else 16
    return PrompterSettings(
        backbone=_backbone(source, backbone),
        levels=levels,
        channels=tensors["conv.weight"].shape[0] if "conv.weight" in tensors else PrompterSettings().channels,
        space_px=target.space_px or space_px,
    )


def _levels(tensors: State) -> int:
    return sum(name.startswith("backbone.neck.fpn_convs.") and name.endswith(".weight") for name in tensors)


def _backbone(source: str | Path, tensors: State) -> str:
    """The timm name whose tensors have these names and shapes, or else the nearest, which check_state refuses."""
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differing: dict[str, int] = {}
    for name in BACKBONES:
        differing[name] = len(set(_shapes_of(name).items()) ^ set(given.items()))
        if not differing[name]:
            return name
    return min(differing, key=lambda name: differing[name])


@cache
def _shapes_of(backbone: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = load("timm").create_model(backbone, pretrained=False, num_classes=0)
    model.prune_intermediate_layers([0, 1, 2, 3], prune_norm=True, prune_head=True)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
