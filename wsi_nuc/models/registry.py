"""Model families by name. A new one needs a folder and a line here; one of another package needs no line.

A family is a module (see `Family`), imported when one of its models is asked for. So importing this file costs
nothing, and a model without a network never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, cast

from wsi_nuc.errors import ModelError, choices
from wsi_nuc.models.base import ModelSpec, NucleiModel, check_geometry
from wsi_nuc.models.options import checked_options

Options = Mapping[str, Any]

# name -> module, or an object in it, written as entry points are. A name that is also a model needs no file; the
# others are what checkpoint files call themselves.
FAMILIES: dict[str, str] = {
    "default": "wsi_nuc.models.compact.packaged:DEFAULT",
    "default-1": "wsi_nuc.models.compact.packaged:DEFAULT_1",
    "large": "wsi_nuc.models.compact.packaged:LARGE",
    "classical": "wsi_nuc.models.classical.build",
    "compact": "wsi_nuc.models.compact.build",
    "instasam": "wsi_nuc.models.instasam.build",
    "promptnucseg": "wsi_nuc.models.promptnucseg.build",
    "promptnucseg-part": "wsi_nuc.models.promptnucseg.build",
}

# Installed packages name theirs in this group of entry points: NAME = "package.module".
GROUP = "wsi_nuc.models"

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


class Family(Protocol):
    """What the module of a family holds.

    It has `spec` and `load` if a model comes with the package, `spec_of_file` and `load_file` if checkpoint files
    carry the family's name as their `architecture`. The `options` that it gets were checked with `OPTIONS`.
    """

    ABOUT: str
    """One line for `wsi-nuc models`."""
    OPTIONS: type[Any] | None
    """A dataclass of all options of using a trained model; None where there are none."""

    def spec(self, options: Options) -> ModelSpec: ...
    def load(self, device: str, options: Options) -> NucleiModel: ...
    def spec_of_file(self, info: Any, options: Options) -> ModelSpec: ...
    def load_file(self, checkpoint: Any, device: str, options: Options) -> NucleiModel: ...


def load_model(name_or_file: str, device: str = "cpu", options: Options | None = None) -> NucleiModel:
    """A model by its name, or the model of a native checkpoint file. `options`: values that replace those of the
    file's section `use`."""
    if is_file(name_or_file):
        from wsi_nuc.models.weights import open_checkpoint

        checkpoint = open_checkpoint(name_or_file)
        family = _family_of_file(checkpoint.info.architecture, name_or_file)
        model = family.load_file(checkpoint, device, _checked(name_or_file, family, options))
    else:
        family = _model_family(name_or_file)
        model = family.load(device, _checked(name_or_file, family, options))
    check_geometry(model.spec)
    return model


def model_spec(name_or_file: str, options: Options | None = None) -> ModelSpec:
    """What planning needs, without loading weights. Of a file only the header and the hash are read."""
    if is_file(name_or_file):
        from wsi_nuc.models.weights import read_info

        info = read_info(name_or_file)
        family = _family_of_file(info.architecture, name_or_file)
        spec = family.spec_of_file(info, _checked(name_or_file, family, options))
    else:
        family = _model_family(name_or_file)
        spec = family.spec(_checked(name_or_file, family, options))
    check_geometry(spec)
    return spec


def is_file(name_or_file: str) -> bool:
    """Whether this is a path: it has a separator or a suffix of weights, or such a file exists. A registered name
    is never a path."""
    if name_or_file in FAMILIES:
        return False
    path = Path(name_or_file)
    return path.suffix.lower() in FILE_SUFFIXES or len(path.parts) > 1 or path.is_file()


@dataclass(frozen=True, slots=True)
class Listed:
    """A family as `wsi-nuc models` shows it."""

    name: str
    about: str
    classes: tuple[str, ...] = ()
    package: str = ""
    """Name, version and licence of the package that brought it; "" for this one."""
    problem: str = ""
    """Why it cannot be used; "" if it can."""


def listed() -> list[Listed]:
    """Every model that needs no file, and every installed family. A broken one never hides the rest."""
    own = [_own(name) for name in FAMILIES if hasattr(family_module(name), "spec")]
    return own + [_foreign(point) for point in installed()]


def installed() -> list[EntryPoint]:
    """The families that other packages bring, in the order of their names."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def family_module(name: str) -> Family:
    """The module of a family; ModelError where there is none, or where importing it fails."""
    if name in FAMILIES:
        return cast(Family, EntryPoint(name, FAMILIES[name], GROUP).load())
    points = [point for point in installed() if point.name == name]
    if not points:
        known = [*FAMILIES, *(point.name for point in installed())]
        remedy = f"{choices(name, sorted(known))}; or give the path of a checkpoint file"
        raise ModelError(f"model {name!r}", "there is no model of this name", remedy)
    if len(points) > 1:
        packages = " and ".join(_package(point) for point in points)
        raise ModelError(f"model {name!r}", f"two packages have it: {packages}", "uninstall one of them")
    return _imported(points[0])


def _imported(point: EntryPoint) -> Family:
    module = _answer(point, "cannot be imported", point.load)
    missing = [name for name in ("ABOUT", "OPTIONS") if not hasattr(module, name)]
    if missing or not (hasattr(module, "load") or hasattr(module, "load_file")):
        cause = (
            f"{_package(point)} lacks {', '.join(missing) or 'load and load_file'}, so it is not a model family"
        )
        raise ModelError(f"model {point.name!r}", cause, "see CONTRIBUTING.md, or uninstall that package")
    return cast(Family, module)


def _answer(point: EntryPoint, problem: str, ask: Callable[[], Any]) -> Any:
    """What a package answers. It may raise anything, which is said of that package."""
    try:
        return ask()
    except Exception as error:
        cause = f"{_package(point)} {problem} ({type(error).__name__}: {error})"
        raise ModelError(f"model {point.name!r}", cause, "repair or uninstall that package") from error


def _own(name: str) -> Listed:
    family = family_module(name)
    return Listed(name, family.ABOUT, family.spec({}).classes)


def _foreign(point: EntryPoint) -> Listed:
    try:
        if point.name in FAMILIES:
            raise ModelError(f"model {point.name!r}", "this program has a family of that name", "rename it")
        family = family_module(point.name)
        classes: tuple[str, ...] = ()
        if hasattr(family, "spec"):
            classes = _answer(point, "cannot say what it finds", lambda: family.spec({}).classes)
        return Listed(point.name, family.ABOUT, classes, _package(point))
    except ModelError as error:
        return Listed(point.name, "", package=_package(point), problem=f"{error}")


def _package(point: EntryPoint) -> str:
    if point.dist is None:
        return point.value
    facts: Any = point.dist.metadata
    licence = facts.get("License-Expression") or facts.get("License") or "licence not stated"
    return f"{facts['Name']} {facts['Version']}, {licence}"


def _model_family(name: str) -> Family:
    family = family_module(name)
    if not hasattr(family, "load"):
        raise ModelError(f"model {name!r}", "this family needs a checkpoint file", "give its path")
    return family


def _family_of_file(architecture: str, path: str) -> Family:
    try:
        family = family_module(architecture)
    except ModelError as error:
        cause = f"its architecture {architecture!r} cannot be used here: {error.cause}"
        raise ModelError(path, cause, error.remedy) from error
    if not hasattr(family, "load_file"):
        raise ModelError(path, f"the family {architecture!r} has no checkpoint files", "check its header")
    return family


def _checked(name_or_file: str, family: Family, options: Options | None) -> Options:
    return checked_options(f"model {name_or_file!r}", family.OPTIONS, options or {})
