"""Foreign `.pth` files: tensors and plain values. Nothing in a file is executed."""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from wsi_nuc.errors import ModelError
from wsi_nuc.models.weights import AGAIN, first_of

_STATE_ALONE = "ask its author for safetensors, or save its state_dict alone"


def read_pth(path: str | Path) -> dict[str, Any]:
    """Tensors of a foreign `.pth`, see `read_foreign`."""
    return read_foreign(path)[0]


def read_foreign(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors of a foreign `.pth`, and what else the file says: its entries beside the tensors, by name.

    Tensors and plain values are unpickled, numpy numbers, and an `argparse.Namespace` of plain values, which
    becomes a dict. A file with anything else is refused, and nothing in it is executed.
    """
    import torch

    arguments = _arguments()
    allowed = [(arguments, "argparse.Namespace"), *_numpy_numbers()]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with torch.serialization.safe_globals(allowed):
            what = _refused(path, error)
        cause = f"it holds more than weights and plain values ({what}); nothing in it was executed"
        raise ModelError(path, cause, _STATE_ALONE) from error
    except OSError as error:
        raise ModelError(
            path, f"cannot be read: {error.strerror}", "check the path and its permissions"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(path, f"truncated, or not a PyTorch file ({type(error).__name__})", AGAIN) from error
    strange = [f"{name} ({kind})" for state in arguments.states for name, kind in _not_plain(state)]
    if strange:
        cause = f"its Namespace holds more than plain values: {first_of(strange)}; nothing in it was executed"
        raise ModelError(path, cause, _STATE_ALONE)
    about: dict[str, Any] = {}
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            about |= {name: value for name, value in content.items() if name != wrapper}
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ModelError(path, "it does not hold a plain table of tensors", "save the model's state_dict alone")
    about = {n: value.values if isinstance(value, arguments) else value for n, value in about.items()}
    return dict(content), about


def _refused(path: str | Path, error: Exception) -> str:
    """Names of the functions and classes that a file asks for and does not get."""
    import torch

    try:
        # This reads the names without unpickling anything; only files of the present format can be asked.
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError):
        names = []
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip() or "unknown"
    return first_of(names) if names else said.splitlines()[0]


def _arguments() -> Any:
    """A class that stands for `argparse.Namespace` while one file is read: it holds values and can do nothing.
    Its `states` are those of all its instances, for the check at the end: a pickle may fill them after it has
    built the instance."""

    class Arguments:
        states: ClassVar[list[Any]] = []

        def __new__(cls, *arguments: object) -> Self:
            if arguments:
                raise pickle.UnpicklingError("a Namespace with arguments")
            return super().__new__(cls)

        def __setstate__(self, state: Any) -> None:
            self.values = state
            self.states.append(state)

    return Arguments


def _not_plain(state: Any) -> list[tuple[str, str]]:
    """Name and type of each attribute that holds anything but numbers, strings, None, lists, tuples and dicts."""
    if type(state) is not dict or not all(type(name) is str for name in state):
        return [("its state", type(state).__name__)]
    return [(name, kind) for name, value in state.items() if (kind := _strange_type(value))]


def _strange_type(value: Any) -> str:
    """The type of the first thing inside `value` that is not plain, or ""."""
    left, seen = [value], set[int]()
    while left:
        part = left.pop()
        if type(part) in (dict, list, tuple):
            if id(part) not in seen:  # a list may hold itself
                seen.add(id(part))
                left += [*part, *part.values()] if type(part) is dict else part
        elif part is not None and type(part) not in (bool, int, float, str):
            return type(part).__name__
    return ""


def _numpy_numbers() -> list[Any]:
    """Files hold their metrics beside the weights as numpy numbers. These functions rebuild a number and can do
    nothing else."""
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, codecs.encode, np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?"))]
