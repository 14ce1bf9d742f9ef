"""Images, label images, tables and JSON from disk, with errors that name the file and a remedy."""

from __future__ import annotations

import csv
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.record import DataError
from wsi_nuc.safezip import Folder
from wsi_nuc.types import Float64, UInt8

# What decoders raise for damaged files, as found by damaging files. imagecodecs' own errors are RuntimeErrors.
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, MemoryError),
    *(struct.error, zlib.error),
)

IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


def read_array(path: Path) -> npt.NDArray[Any]:
    """The pixels as stored: H x W or H x W x channels. A palette becomes RGB."""
    from PIL import Image

    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            return np.asarray(tifffile.imread(path))
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except FileNotFoundError:
        raise DataError(path, "does not exist", "check the folder and the manifest") from None
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise DataError(path, f"cannot be read ({error})", "export it again as PNG or TIFF") from error


def read_rgb(path: Path, repairs: Counter[str]) -> UInt8:
    return as_rgb(read_array(path), path, repairs)


def as_rgb(pixels: npt.NDArray[Any], where: object, repairs: Counter[str]) -> UInt8:
    """H x W x 3 uint8. Alpha is dropped and grey repeated, and both are counted. Other depths are refused."""
    if pixels.dtype.kind == "f" and pixels.size and _holds_bytes(pixels):
        pixels = pixels.astype(np.uint8)  # PanNuke keeps 0..255 in float64
    if pixels.dtype != np.uint8:
        raise DataError(where, f"is a {pixels.dtype} image", "convert it to 8 bits per channel")
    if pixels.ndim == 2:
        repairs["grey images"] += 1
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    elif pixels.ndim == 3 and pixels.shape[2] == 4:
        repairs["images with alpha (dropped)"] += 1
        pixels = pixels[:, :, :3]
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(where, f"has shape {pixels.shape}", "give height x width x 3")
    return np.ascontiguousarray(pixels)


def _holds_bytes(pixels: npt.NDArray[Any]) -> bool:
    return bool(np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 255)


def read_rows(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header that holds the needed columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            header = table.fieldnames or []
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, f"cannot be read ({error})", "save it as UTF-8 CSV") from error
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(
            path, f"has no column {', '.join(missing)}", f"its first line is {','.join(header)[:80]!r}"
        )
    return rows


def xy_of_rows(rows: Iterable[Mapping[str, str]], path: Path) -> Float64:
    """N x 2: the columns x and y. Where all are whole numbers, each names a pixel and means its centre."""
    try:
        xy = np.array([[float(row["x"]), float(row["y"])] for row in rows]).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise DataError(
            path, f"has a coordinate that is not a number ({error})", "write numbers below x and y"
        ) from None
    stated = xy[np.isfinite(xy)]
    return xy + 0.5 if (stated == np.floor(stated)).all() else xy


def read_json(path: Folder) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", "export it again") from error


def by_stem(folder: Path, suffixes: Iterable[str] = IMAGES) -> dict[str, Path]:
    """Files of a folder by name without suffix; two files with the same stem are an error."""
    files: dict[str, Path] = {}
    wanted = set(suffixes)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in wanted or path.name.startswith("."):
            continue
        if path.stem in files:
            raise DataError(path, f"and {files[path.stem].name} have the same name", "keep one of them")
        files[path.stem] = path
    return files
