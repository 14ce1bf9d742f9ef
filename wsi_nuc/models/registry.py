"""Models by name, architectures by the name that a checkpoint carries. A new one is one line here.

Entries are "module:name of a function" and are imported when one is asked for: `import wsi_nuc.models.registry`
costs nothing, and a model without a network never imports torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import ModelSpec, NucleiModel, check_geometry

# name -> (module with spec() and load(device), one line about it)
MODELS: dict[str, tuple[str, str]] = {
    "default": (
        "wsi_nuc.models.compact.packaged",
        "a small network that comes with the package; H&E at 0.25 um/px, CPU or GPU",
    ),
    "classical": (
        "wsi_nuc.models.classical.builtin",
        "no network, no weights: haematoxylin, blobs and a local flood; H&E at 0.5 um/px, CPU",
    ),
}

# architecture -> module with spec_of_file(info) and load_file(checkpoint, device)
ARCHITECTURES: dict[str, str] = {
    "classical": "wsi_nuc.models.classical.builtin",
    "compact": "wsi_nuc.models.compact.build",
    "promptnucseg": "wsi_nuc.models.promptnucseg.native",
    "promptnucseg-part": "wsi_nuc.models.promptnucseg.native",
}

WITH_OPTIONS = ("promptnucseg", "promptnucseg-part")

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def load_model(name_or_file: str, device: str = "cpu", options: Mapping[str, Any] | None = None) -> NucleiModel:
    """A model of the registry, or the one that a native checkpoint file holds. `options`: values in place of those
    that the file's section `use` has."""
    if _is_file(name_or_file):
        from wsi_nuc.models.weights import open_checkpoint

        checkpoint = open_checkpoint(name_or_file)
        architecture = checkpoint.info.architecture
        loader = _function(_architecture(architecture, name_or_file), "load_file")
        model: NucleiModel = loader(checkpoint, device, *_extra(name_or_file, architecture, options))
    else:
        _extra(name_or_file, "", options)
        model = _function(_entry(name_or_file), "load")(device)
    check_geometry(model.spec)
    return model


def model_spec(name_or_file: str, options: Mapping[str, Any] | None = None) -> ModelSpec:
    """What planning needs, without loading weights; of a file, only the header and the hash are read."""
    if _is_file(name_or_file):
        from wsi_nuc.models.weights import read_info

        info = read_info(name_or_file)
        spec_of_file = _function(_architecture(info.architecture, name_or_file), "spec_of_file")
        spec: ModelSpec = spec_of_file(info, *_extra(name_or_file, info.architecture, options))
    else:
        _extra(name_or_file, "", options)
        spec = _function(_entry(name_or_file), "spec")()
    check_geometry(spec)
    return spec


def describe() -> list[str]:
    """One line a model: name, resolution, classes, what it is."""
    lines = []
    for name, (_, about) in MODELS.items():
        spec = model_spec(name)
        lines.append(f"{name}: {about}; classes {', '.join(spec.classes)}")
    return lines


def _is_file(name_or_file: str) -> bool:
    """A path has a separator or a weights suffix; a registered name stays a name even if a file is called so."""
    if name_or_file in MODELS:
        return False
    path = Path(name_or_file)
    return path.suffix.lower() in FILE_SUFFIXES or len(path.parts) > 1 or path.is_file()


def _extra(
    name_or_file: str, architecture: str, options: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], ...]:
    """The last argument of an architecture's functions, left out where there are no options."""
    if not options:
        return ()
    if architecture not in WITH_OPTIONS:
        cause = f"it has no other ways to be used ({', '.join(options)})"
        remedy = "leave the section `inference` out, or give the file of a model with networks"
        raise ModelError(f"model {name_or_file!r}", cause, remedy)
    return (options,)


def _entry(name: str) -> str:
    if name not in MODELS:
        raise ModelError(
            f"model {name!r}", "there is no model of this name" + _nearest(name, MODELS), _choice(MODELS)
        )
    return MODELS[name][0]


def _architecture(name: str, path: str) -> str:
    if name not in ARCHITECTURES:
        cause = f"its architecture {name!r} is unknown to this version" + _nearest(name, ARCHITECTURES)
        raise ModelError(path, cause, _choice(ARCHITECTURES))
    return ARCHITECTURES[name]


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; the nearest is {near[0]!r}" if near else ""


def _choice(known: Mapping[str, object]) -> str:
    return f"known: {', '.join(sorted(known))}; or give the path of a checkpoint file"


def _function(module: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
