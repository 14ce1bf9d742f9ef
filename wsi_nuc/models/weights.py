"""Native checkpoint files: safetensors with a JSON header. Foreign ones: `foreign`.

Nothing in a file is executed. The native header lies in the safetensors metadata under the key "wsi_nuc" and holds
architecture, classes, mpp, normalisation, training_data, metrics and format_version. It is parsed here before the
library sees the file, so that a damaged or hostile file is refused with its reason.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import ModelError

KEY = "wsi_nuc"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 16 << 20  # a ViT-H has 0.1 MiB of header
LISTED = 8
VARIANCE = "running_var"  # torch's name for what a batch norm divides by
NOT_FINITE, NEGATIVE = "NaN or infinite weights", "variances below zero"
Shapes = Mapping[str, tuple[int, ...]]
AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class CheckpointInfo:
    """The header of a native file."""

    path: str
    architecture: str
    """The name of the model's family."""
    classes: tuple[str, ...]
    mpp: float
    """Microns per pixel that the model works at."""
    sha256: str
    """Hash of the whole file."""
    details: Mapping[str, Any]
    """The whole JSON header."""
    shapes: Shapes
    """Shape of every tensor."""

    @property
    def nucleus_um(self) -> tuple[float, float] | None:
        """The header's `nucleus_um`: smallest and largest size on slides of known resolution, see `ModelSpec`."""
        match self.details.get("nucleus_um"):
            case [int() | float() as low, int() | float() as high] if 0 < low < high:
                return float(low), float(high)
            case _:
                return None


@dataclass(frozen=True)
class Checkpoint:
    """A native file whose header was accepted. Tensors are read when they are asked for."""

    info: CheckpointInfo

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        from safetensors.numpy import load_file

        return self._loaded(load_file)

    def tensors(self) -> dict[str, Any]:
        """As torch tensors on the CPU."""
        from safetensors.torch import load_file

        return self._loaded(load_file)

    def _loaded(self, load_file: Any) -> dict[str, Any]:
        from safetensors import SafetensorError

        try:
            state = dict(load_file(self.info.path))
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise ModelError(self.info.path, f"its tensors cannot be read: {error}", AGAIN) from error
        check_sense(self.info.path, state)
        return state


def open_checkpoint(path: str | Path) -> Checkpoint:
    return Checkpoint(read_info(path))


def read_info(path: str | Path) -> CheckpointInfo:
    """Header and hash of a native file."""
    if Path(path).suffix.lower() != ".safetensors":
        remedy = "convert it to safetensors first; foreign files carry no classes and no resolution"
        raise ModelError(path, "not a native checkpoint (.safetensors)", remedy)
    header = _safetensors_header(Path(path))
    text = header.pop("__metadata__", {}).get(KEY)
    if text is None:
        raise ModelError(
            path, f"a safetensors file without the {KEY!r} header", "convert it to a native checkpoint"
        )
    try:
        details = json.loads(text)
        shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
        architecture, mpp = str(details["architecture"]), float(details["mpp"])
        classes, version = tuple(str(c) for c in details["classes"]), int(details["format_version"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(path, f"its {KEY!r} header is incomplete ({error})", AGAIN) from error
    if version > FORMAT_VERSION:
        raise ModelError(path, f"its format {version} is newer than {FORMAT_VERSION}", "upgrade wsi-nuc")
    if not classes or len(set(classes)) < len(classes) or not (math.isfinite(mpp) and mpp > 0):
        raise ModelError(path, f"its header makes no sense: classes {classes}, mpp {mpp}", "save the model again")
    return CheckpointInfo(str(path), architecture, classes, mpp, sha256_of(path), details, shapes)


def _safetensors_header(path: Path) -> dict[str, Any]:
    """The JSON header, after checking that the file is as long as it says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            if size < 8 or length > MAX_HEADER_BYTES or 8 + length > size:
                cause = f"not a safetensors file, or truncated ({size} bytes, a header of {length} bytes)"
                raise ModelError(path, cause, AGAIN)
            header = json.loads(file.read(length))
            end = (
                8
                + length
                + max((e["data_offsets"][1] for n, e in header.items() if n != "__metadata__"), default=0)
            )
    except OSError as error:
        raise ModelError(
            path, f"cannot be read: {error.strerror}", "check the path and its permissions"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(path, "its safetensors header is damaged", AGAIN) from error
    if end != size:
        raise ModelError(path, f"truncated or damaged: {size} bytes, its header says {end}", AGAIN)
    return dict(header)


def save_checkpoint(path: str | Path, state: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]) -> None:
    """Write a native file. `header` holds architecture, classes, mpp, normalisation, training_data and metrics."""
    from safetensors.numpy import save_file

    text = json.dumps({**header, "format_version": FORMAT_VERSION}, sort_keys=True, allow_nan=False)
    check_sense(path, state)
    save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, str(path), {KEY: text})
    # The library makes the file readable for its owner only, whatever the umask says.
    umask = os.umask(0)
    os.umask(umask)
    Path(path).chmod(0o666 & ~umask)


def check_state(path: str | Path, expected: Shapes, given: Shapes) -> None:
    """Refuse a state whose names or shapes differ, and list how."""
    missing, unexpected = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    differing = [
        f"{name} {tuple(given[name])} instead of {tuple(expected[name])}"
        for name in sorted(set(expected) & set(given))
        if tuple(expected[name]) != tuple(given[name])
    ]
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
    differences = [f"{len(names)} {what}: {first_of(names)}" for what, names in lists.items() if names]
    if differences:
        remedy = "use the checkpoint of this architecture and these classes"
        raise ModelError(path, "its tensors do not fit the model; " + "; ".join(differences), remedy)


def check_class_count(path: str | Path, classes: tuple[str, ...], count: int) -> None:
    """Refuse weights for another number of classes than the header names."""
    if len(classes) != count:
        cause = f"its weights are for {count} classes, its header names {len(classes)} ({', '.join(classes)})"
        raise ModelError(path, cause, "use the checkpoint and the class names that belong together")


def check_sense(path: str | Path, state: Mapping[str, Any]) -> None:
    """Refuse NaN, infinity and variances below zero, naming the tensors. A variance of zero is allowed: it belongs
    to a channel that training left unused."""
    flaws = {name: _flaw(name, tensor) for name, tensor in sorted(state.items())}
    for flaw in (NOT_FINITE, NEGATIVE):
        names = [name for name in flaws if flaws[name] == flaw]
        if names:
            raise ModelError(path, f"{flaw} in {first_of(names)}", "use an intact checkpoint")


def _flaw(name: str, tensor: Any) -> str:
    # On a CPU, torch's own test of half precision takes fifty times as long.
    values = tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().float().numpy()
    if not np.isfinite(values).all():
        return NOT_FINITE
    return NEGATIVE if name.endswith(VARIANCE) and (values < 0).any() else ""


def sha256_of(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_of(names: list[str]) -> str:
    """The first names, and how many there are beside them."""
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
