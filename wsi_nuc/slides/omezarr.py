"""OME-Zarr folders, 0.4 (Zarr v2) and 0.5 (Zarr v3): a colour picture as a pyramid of arrays.

A chunk that is not stored is missing, not black: a writer that stopped half-way leaves the same trace as an empty
area, and the fill value says nothing about either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.safezarr import RefusedZarr, attributes, below, open_array
from wsi_nuc.slides import mpp
from wsi_nuc.slides.limits import MAX_TILE_PX, NOT_A_SLIDE, check_tile, check_tiles
from wsi_nuc.slides.localfile import COPY_AGAIN, refuse_url
from wsi_nuc.slides.pixels import DECODE_ERRORS, WHITE, clip_to, decoding, depth_shift, place, to_rgb8
from wsi_nuc.slides.pyramid import select_levels
from wsi_nuc.types import Bool, Box, PixelBlock, SlideInfo, SlideRef

FORMATS = (2, 3)
MAX_LEVELS = 64
MAX_CHUNK_VALUES = 3 * MAX_TILE_PX


class OmeZarr:
    """See `SlideSource`."""

    def __init__(self, path: str, arrays: list[Any], axes: str, info: SlideInfo) -> None:
        self._path, self._arrays, self._axes, self._info = path, arrays, axes, info
        last = info.levels[-1]
        corner = Box(0, 0, min(last.width, 2048), min(last.height, 2048))
        # 8-bit values are taken as they are. No pixels are read for them, since these might be damaged.
        deep = arrays[-1].dtype != np.uint8
        self._shift = depth_shift(self._stored(len(arrays) - 1, corner)) if deep else 0

    @property
    def info(self) -> SlideInfo:
        return self._info

    def block_px(self, level: int) -> tuple[int, int]:
        chunk = self._arrays[level].chunks
        return chunk[self._axes.index("x")], chunk[self._axes.index("y")]

    def close(self) -> None:
        """Zarr keeps no file open."""

    def read(self, level: int, box: Box) -> PixelBlock:
        inside = clip_to(self._info.levels[level], box)
        if not inside.area:
            return place(box, inside, np.empty((0, 0, 3), np.uint8))
        rgb = to_rgb8(self._stored(level, inside), self._shift)
        missing = self._missing(level, inside)
        rgb[missing] = WHITE
        return place(box, inside, rgb, missing)

    def _stored(self, level: int, inside: Box) -> np.ndarray[Any, Any]:
        """H x W x channels of one box."""
        window = {"y": slice(inside.y0, inside.y1), "x": slice(inside.x0, inside.x1), "c": slice(None)}
        index = tuple(window.get(axis, 0) for axis in self._axes)
        with decoding(self._path, level, inside):
            pixels = np.asarray(self._arrays[level][index])
        left = [axis for axis in self._axes if axis in window]
        wanted = [left.index(axis) for axis in "yxc" if axis in left]
        return pixels.transpose(wanted)

    def _missing(self, level: int, inside: Box) -> Bool:
        """Pixels whose chunk (or shard) has no file. A chunk that lacks a channel is missing as a whole."""
        array = self._arrays[level]
        grid = array.shards or array.chunks
        y, x = self._axes.index("y"), self._axes.index("x")
        planes = [range(-(-size // step)) for size, step in zip(array.shape, grid, strict=True)]
        mask = np.zeros((inside.height, inside.width), np.bool_)
        for row in range(inside.y0 // grid[y], (inside.y1 - 1) // grid[y] + 1):
            for column in range(inside.x0 // grid[x], (inside.x1 - 1) // grid[x] + 1):
                at = {y: row, x: column}
                keys = _keys(array, [[at[i]] if i in at else list(plane) for i, plane in enumerate(planes)])
                if all((array.store.root / key).exists() for key in keys):
                    continue
                top, left = row * grid[y] - inside.y0, column * grid[x] - inside.x0
                mask[max(0, top) : top + grid[y], max(0, left) : left + grid[x]] = True
        return mask


def _keys(array: Any, indices: list[list[int]]) -> list[str]:
    grids: Any = np.meshgrid(*indices, indexing="ij")
    return [
        array.metadata.encode_chunk_key(tuple(int(i) for i in at))
        for at in zip(*(g.flat for g in grids), strict=True)
    ]


def _check(path: str, array: Any, axes: str) -> None:
    """Refuse arrays that are not plain pixels, before any chunk is decoded."""
    if array.dtype not in (np.uint8, np.uint16) or len(array.shape) != len(axes):
        raise SlideError(
            path, f"its pixels are {array.dtype} with {len(array.shape)} axes", "convert it to 8 bits"
        )
    # Nobody can tell four channels without a meaning from RGBA, so only one or three are read.
    counts = dict(zip(axes, array.shape, strict=True))
    others = [size for axis, size in counts.items() if axis not in "xyc"]
    if counts.get("c", 1) not in (1, 3) or any(size != 1 for size in others) or len(counts) != len(axes):
        raise SlideError(
            path, f"its axes {axes} have sizes {array.shape}, not one colour picture", "export one plane"
        )
    chunks, grid = (dict(zip(axes, shape, strict=True)) for shape in (array.chunks, array.shards or array.chunks))
    check_tile(path, (chunks["x"], chunks["y"]), (counts["x"], counts["y"]))
    check_tiles(path, (grid["x"], grid["y"]), (counts["x"], counts["y"]))
    if math.prod(array.chunks) > MAX_CHUNK_VALUES:
        raise SlideError(path, f"has chunks of {array.chunks} values", "write it with smaller chunks")


def _multiscale(path: str) -> Mapping[str, Any]:
    metadata = attributes(Path(path))
    listed = (metadata.get("ome") or metadata).get("multiscales")
    if not listed:
        raise SlideError(path, "is a Zarr folder without OME multiscales", "name the image group inside it")
    first: Mapping[str, Any] = listed[0]
    if max(len(first["axes"]), len(first["datasets"])) > MAX_LEVELS:
        counts = f"{len(first['axes'])} axes and {len(first['datasets'])} levels"
        raise SlideError(path, f"states {counts}, over {MAX_LEVELS}", NOT_A_SLIDE)
    return first


def _stated(multiscale: Mapping[str, Any], axes: str) -> mpp.Stated:
    """Microns per pixel of the first dataset, if the axes have a unit of length."""
    units = {axis["name"]: str(axis.get("unit", "")) for axis in multiscale["axes"]}
    steps = multiscale["datasets"][0].get("coordinateTransformations", [])
    scale = next((step["scale"] for step in steps if step.get("type") == "scale"), None)
    if scale is None or not units.get("x") or len(scale) != len(axes):
        return mpp.Stated()
    x, y = (mpp.in_um(str(scale[axes.index(axis)]), units.get(axis, "")) for axis in "xy")
    return mpp.Stated((x, y))


def open_slide(ref: SlideRef) -> OmeZarr:
    """Open an OME-Zarr folder, or SlideError with the reason."""
    refuse_url(ref.path)
    if not any((Path(ref.path) / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        raise SlideError(ref.path, "is not a Zarr folder", NOT_A_SLIDE)
    # Our own look-ups are in here too: metadata may be any JSON, so a missing key or another type is its fault.
    try:
        multiscale = _multiscale(ref.path)
        axes = "".join(str(axis["name"]) for axis in multiscale["axes"])
        arrays: list[Any] = [
            open_array(below(Path(ref.path), str(dataset["path"])), FORMATS) for dataset in multiscale["datasets"]
        ]
        y, x = axes.index("y"), axes.index("x")
        for array in arrays:
            _check(ref.path, array, axes)
        sizes = [(array.shape[x], array.shape[y]) for array in arrays]
        stated = _stated(multiscale, axes)
    except RefusedZarr as error:
        raise SlideError(ref.path, error.cause, error.remedy) from error
    except (*DECODE_ERRORS, AttributeError, AssertionError) as error:
        raise SlideError(ref.path, f"its OME-Zarr metadata are unusable ({error})", COPY_AGAIN) from error
    kept, levels = select_levels(ref.path, sizes)
    info = mpp.describe("zarr", "ome-zarr", levels, ref.mpp, stated)
    try:
        return OmeZarr(ref.path, [arrays[i] for i in kept], axes, info)
    except DamagedPixels as error:
        raise SlideError(error.subject, error.cause, COPY_AGAIN) from error
