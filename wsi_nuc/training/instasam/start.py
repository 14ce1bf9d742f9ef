"""The frozen encoder's weights and, where there are any, those of the decoders: from a file or a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.packaged import single_checkpoint_of
from wsi_nuc.models.compact.settings import LITE
from wsi_nuc.models.compact.settings import Settings as CompactSettings
from wsi_nuc.models.foreign import read_pth
from wsi_nuc.models.instasam.build import Net, net_of, network
from wsi_nuc.models.instasam.net import InstaSamNet
from wsi_nuc.models.instasam.settings import ARCHITECTURE, COMPACT, Settings
from wsi_nuc.models.instasam.vit import VitNet
from wsi_nuc.models.sam.model import resize_tables, size_of
from wsi_nuc.models.weights import check_sense, check_state
from wsi_nuc.training.instasam.config import InstaSamConfig
from wsi_nuc.training.pretrained import lite_sizes, load_lite

# A vision transformer makes the mask of a dot in whole tokens, so the dot may lie a token off the middle.
VIT_NEAR_PX = 128


def settings_of(config: InstaSamConfig, classes: tuple[str, ...]) -> Settings:
    """The network's sizes follow from what is frozen."""
    sizes = _sizes_of(config.frozen)
    return Settings(classes, config.mpp, adapter=config.adapter, decoder=config.decoder, use=config.use, **sizes)


def prompted_net(name_or_file: str) -> Net:
    """A network that makes masks at dots: a trained one, or one whose adapters change nothing yet."""
    if name_or_file in LITE:
        raise ModelError(name_or_file, "an ImageNet network makes no masks", "set `first` to voronoi")
    sizes = _sizes_of(name_or_file)
    if not is_sam(name_or_file) and single_checkpoint_of(name_or_file).info.architecture == ARCHITECTURE:
        net = net_of(single_checkpoint_of(name_or_file))
    else:
        net = network(Settings(("nucleus",), 0.25, **sizes))
        load_frozen(net, name_or_file)
    return net.eval().requires_grad_(False)


def is_sam(name_or_file: str) -> bool:
    """Whether this is an official file of SAM."""
    return Path(name_or_file).suffix.lower() == ".pth"


def _sizes_of(frozen: str) -> dict[str, Any]:
    """The fields of `Settings` that say how large the network is."""
    if frozen in LITE:
        return {"encoder": frozen, "net": lite_sizes(frozen)}
    if is_sam(frozen):
        return {"encoder": size_of(frozen, _official(frozen)), "window_px": VIT_NEAR_PX}
    info = single_checkpoint_of(frozen).info
    if info.architecture == COMPACT:
        return {"encoder": COMPACT, "net": CompactSettings.from_header(info.details).net}
    if info.architecture == ARCHITECTURE:
        given = Settings.from_header(info.details)
        return {"encoder": given.encoder, "net": given.net, "window_px": given.window_px}
    cause = f"a model of the family {info.architecture} neither lends its encoder nor makes first labels here"
    raise ModelError(frozen, cause, "use default, a compact or an InstaSAM file, or an official SAM file (.pth)")


def load_frozen(net: Net, frozen: str) -> None:
    """Fill `net` with the weights of what is frozen. Parts that the file does not have, or has for other classes,
    keep their random weights."""
    if frozen in LITE:
        load_lite(net.encoder.frozen.body, frozen)  # type: ignore[union-attr]
        return
    if isinstance(net, VitNet) and is_sam(frozen):
        _load_sam(net, frozen)
        return
    checkpoint = single_checkpoint_of(frozen)
    given = {name: tensor.float() for name, tensor in checkpoint.tensors().items()}
    if checkpoint.info.architecture == COMPACT:
        given = {_inside(name): tensor for name, tensor in given.items()}
    own = net.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    net.load_state_dict(own | fitting)
    if isinstance(net, InstaSamNet) and checkpoint.info.architecture == COMPACT:
        # They point from a pixel to its nucleus's centre, in other units.
        net.forget_distances()


def _load_sam(net: VitNet, file: str) -> None:
    """SAM's weights, whose position tables are brought to the size of the windows."""
    expected = {name: tuple(tensor.shape) for name, tensor in net.sam.state_dict().items()}
    tensors = resize_tables(_official(file), expected)
    check_state(file, expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    net.sam.load_state_dict(tensors)
    net.start_nuclei_decoder()


def _official(file: str) -> dict[str, torch.Tensor]:
    tensors = read_pth(file)
    if "image_encoder.patch_embed.proj.weight" not in tensors:
        raise ModelError(file, "it is not a SAM checkpoint", "give sam_vit_b, sam_vit_l or sam_vit_h")
    check_sense(file, tensors)
    return tensors


def _inside(name: str) -> str:
    return name.replace("encoder.", "encoder.frozen.", 1) if name.startswith("encoder.") else name
