"""The models whose weights lie in this package: `default`, the one before it, and `large`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.compact.settings import Settings, UseSettings, spec_of
from wsi_nuc.models.options import used
from wsi_nuc.models.weights import Checkpoint, open_checkpoint

HERE = Path(__file__).parent
DOCUMENTS = HERE.parents[2] / "docs" / "models"


@dataclass(frozen=True)
class Packaged:
    """A family (see `registry.Family`) of one model, which needs no file."""

    name: str
    ABOUT: str
    sha256: str
    OPTIONS: type[Any] | None = UseSettings

    @property
    def file(self) -> Path:
        return HERE / f"{self.name}.safetensors"

    def spec(self, options: Mapping[str, Any]) -> ModelSpec:
        """From the header alone: the hash shows that the tensors fit it."""
        info = _checked(self).info
        settings = used(Settings.from_header(info.details), options)
        return replace(spec_of(settings, info.sha256, self.name), nucleus_um=info.nucleus_um)

    def load(self, device: str, options: Mapping[str, Any]) -> NucleiModel:
        from wsi_nuc.models.compact.build import load_file

        model = load_file(_checked(self), device, options)
        return replace(model, spec=replace(model.spec, name=self.name))

    def about(self) -> str:
        """What the model was trained on, how good it is and where it fails, in Markdown."""
        # In an installed package the cards lie beside the weights, in a checkout among the documents.
        for path in (folder / f"{self.name}.md" for folder in (HERE, DOCUMENTS)):
            if path.is_file():
                return path.read_text(encoding="utf-8")
        raise ModelError(self.name, "its card is missing from this installation", "install wsi-nuc again")


@cache
def _checked(model: Packaged) -> Checkpoint:
    """The packaged weights. The header is read and the hash compared once per process."""
    packaged = open_checkpoint(model.file)
    if packaged.info.sha256 != model.sha256:
        cause = f"the weights of {model.name} are not those of this version (sha256 {packaged.info.sha256})"
        raise ModelError(model.file, cause, "install wsi-nuc again")
    return packaged


DEFAULT = Packaged(
    "default",
    "a small network that comes with the package; H&E at 0.25 um/px, CPU or GPU",
    "c216afa65a6b98d1c0660c8efa1e061590231cd35cd010199c81b0628af4d3f3",
)
DEFAULT_1 = Packaged(
    "default-1",
    "the default model as it was first, of colon and breast; for going on with older cohorts",
    "6ca368802662b23a166f2f89db6d032c3636e0daa5d13013cc56e244035d64d0",
)
LARGE = Packaged(
    "large",
    "two networks and mirrored views, averaged: better than default and several times slower; for GPUs",
    "35e0935a51370a2d9f38b06249b9eda21b90fa15eed192e41ef962637822b52b",
)
PACKAGED = {model.name: model for model in (DEFAULT, DEFAULT_1, LARGE)}


def checkpoint_of(name_or_file: str) -> Checkpoint:
    """The weights of a packaged model, or of a file."""
    return _checked(PACKAGED[name_or_file]) if name_or_file in PACKAGED else open_checkpoint(name_or_file)


def single_checkpoint_of(name_or_file: str) -> Checkpoint:
    """The same, for a training that starts from it: a file of several networks is refused."""
    checkpoint = checkpoint_of(name_or_file)
    if beside := checkpoint.info.details.get("beside"):
        cause = f"it holds {len(beside) + 1} networks whose answers are averaged, and a training starts from one"
        raise ModelError(name_or_file, cause, "give `default`, or the file of a single network")
    return checkpoint
