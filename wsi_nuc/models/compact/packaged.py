"""The default model: the compact network whose weights lie in this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.compact.settings import Settings, UseSettings, spec_of
from wsi_nuc.models.options import used
from wsi_nuc.models.weights import Checkpoint, open_checkpoint

NAME = "default"
ABOUT = "a small network that comes with the package; H&E at 0.25 um/px, CPU or GPU"
OPTIONS = UseSettings
FILE = Path(__file__).with_name("default.safetensors")
SHA256 = "6ca368802662b23a166f2f89db6d032c3636e0daa5d13013cc56e244035d64d0"


# In an installed package the card lies beside the weights, in a checkout among the documents.
CARDS = (FILE.with_suffix(".md"), FILE.parents[3] / "docs" / "models" / "default.md")


def card() -> str:
    """What the model was trained on, how good it is and where it fails, in Markdown."""
    for path in CARDS:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ModelError(NAME, "its card is missing from this installation", "install wsi-nuc again")


@cache
def checkpoint() -> Checkpoint:
    """The packaged weights. The header is read and the hash compared once per process."""
    packaged = open_checkpoint(FILE)
    if packaged.info.sha256 != SHA256:
        cause = f"the weights of the default model are not those of this version (sha256 {packaged.info.sha256})"
        raise ModelError(FILE, cause, "install wsi-nuc again")
    return packaged


def spec(options: Mapping[str, Any]) -> ModelSpec:
    """From the header alone: the hash shows that the tensors fit it."""
    info = checkpoint().info
    settings = used(Settings.from_header(info.details), options)
    return replace(spec_of(settings, info.sha256, NAME), nucleus_um=info.nucleus_um)


def load(device: str, options: Mapping[str, Any]) -> NucleiModel:
    from wsi_nuc.models.compact.build import load_file

    model = load_file(checkpoint(), device, options)
    return replace(model, spec=replace(model.spec, name=NAME))
