"""One batch of tiles to nuclei: look, keep the prompts that a tile may answer for, take their masks, trace them.

A tile answers for the prompts in its core, grown by the model's margin. Stitching decides between tiles later.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_nuc.errors import SlideError
from wsi_nuc.inference.outlines import trace
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.finite import not_finite
from wsi_nuc.nuclei import TileNuclei
from wsi_nuc.rings import Rings
from wsi_nuc.types import Bool, Int64, MaskCrops, Prompts, Tile, TileBatch


@dataclass(frozen=True, slots=True)
class Prediction:
    """The nuclei of a batch."""

    nuclei: TileNuclei
    own: Bool
    """N: the nucleus's prompt lies in the core of its tile, not only in the margin."""
    repaired: int
    """Outlines that crossed themselves or hung together by a corner."""


def predict(model: NucleiModel, batch: TileBatch) -> tuple[TileNuclei, Bool]:
    """Nuclei of the batch in tile pixels, and which of them lie in the core of their own tile."""
    prediction = predict_counted(model, batch)
    return prediction.nuclei, prediction.own


def predict_counted(model: NucleiModel, batch: TileBatch) -> Prediction:
    """Like `predict`, and how many outlines were mended.

    Where memory runs out, half as many tiles go at once, down to a single tile.
    """
    size, start = model.spec.batch, 0
    parts = [Prediction(TileNuclei.empty(len(model.spec.classes)), np.zeros(0, np.bool_), 0)]
    while start < len(batch.tiles):
        tiles = batch.tiles[start : start + size]
        try:
            parts.append(_predict_padded(model, TileBatch(batch.rgb[start : start + size], tiles), size))
            start += size
        except memory_errors() as error:
            if size == 1:
                remedy = "free memory on the device, or run fewer workers on it"
                raise SlideError(f"tile {tiles[0].index}", "out of memory with this tile alone", remedy) from error
            size //= 2
    return Prediction(
        TileNuclei.concat([part.nuclei for part in parts]),
        np.concatenate([part.own for part in parts]),
        sum(part.repaired for part in parts),
    )


def memory_errors() -> tuple[type[BaseException], ...]:
    """What is raised where memory runs out. Does not import torch, which raises nothing unless it is imported."""
    torch = sys.modules.get("torch")
    return (MemoryError,) if torch is None else (MemoryError, torch.cuda.OutOfMemoryError)


def _predict_padded(model: NucleiModel, batch: TileBatch, size: int) -> Prediction:
    """White tiles at the end make `size` tiles in every call, since the shape decides how a device sums."""
    lacking = size - len(batch.tiles)
    padded = batch
    if lacking:
        white = np.full((lacking, *batch.rgb.shape[1:]), 255, np.uint8)
        padded = TileBatch(np.concatenate([batch.rgb, white]), batch.tiles + batch.tiles[-1:] * lacking)
    look = model.look(padded)
    prompts = look.prompts.get()
    _refuse_non_finite(prompts, batch.tiles)
    grown = _inside_cores(prompts, batch.tiles, model.spec.margin_px)
    wanted = np.flatnonzero(grown)
    if not len(wanted):
        return Prediction(TileNuclei.empty(len(model.spec.classes)), np.zeros(0, np.bool_), 0)
    return _assembled(look.masks(wanted.tolist()).get(), prompts, batch.tiles, len(model.spec.classes))


def _inside_cores(prompts: Prompts, tiles: Sequence[Tile], margin_px: int) -> Bool:
    """Which prompts lie in the core of their tile, grown by the margin (half-open); never those of padding."""
    cores = [t.core_box.shift(-t.read_box.x0, -t.read_box.y0).grow(margin_px) for t in tiles]
    box = np.array([[c.x0, c.y0, c.x1, c.y1] for c in cores])
    real = prompts.row < len(tiles)
    x0, y0, x1, y1 = box[np.where(real, prompts.row, 0)].T
    x, y = prompts.xy_tile.T
    return np.asarray(real & (x >= x0) & (x < x1) & (y >= y0) & (y < y1))


def _assembled(crops: Sequence[MaskCrops], prompts: Prompts, tiles: Sequence[Tile], classes: int) -> Prediction:
    """The nuclei of all crops in the order of their prompts, whatever sizes the model sorted the crops into."""
    own = _inside_cores(prompts, tiles, 0)
    tile_index = np.array([tile.index for tile in tiles], np.int64)
    tables, prompt, repaired = [TileNuclei.empty(classes)], [np.zeros(0, np.int64)], 0
    for masks in crops:
        _refuse_non_finite_masks(masks, prompts, tiles)
        traced = trace(masks)
        repaired += int(np.sum(traced.repaired))
        kept = np.flatnonzero(traced.kept)
        prompt.append(masks.prompt[kept])
        tables.append(_table(masks, kept, traced.rings_tile, prompts, tile_index))
    nuclei, prompt_rows = TileNuclei.concat(tables), np.concatenate(prompt)
    order = np.argsort(prompt_rows, kind="stable")
    return Prediction(nuclei.select(order), own[prompt_rows[order]], repaired)


def _table(masks: MaskCrops, kept: Int64, rings_tile: Rings, prompts: Prompts, tile_index: Int64) -> TileNuclei:
    prompt = masks.prompt[kept]
    return TileNuclei(
        xy=rings_tile.xy,
        offsets=rings_tile.offsets,
        prompt_xy=prompts.xy_tile[prompt].astype(np.float64),
        score=masks.score[kept],
        prompt_score=prompts.score[prompt],
        predicted_iou=masks.predicted_iou[kept],
        class_probs=masks.class_probs[kept],
        tile=tile_index[prompts.row[prompt]],
    )


def _refuse_non_finite(prompts: Prompts, tiles: Sequence[Tile]) -> None:
    bad = ~(
        np.isfinite(prompts.xy_tile).all(axis=1)
        & np.isfinite(prompts.score)
        & np.isfinite(prompts.class_probs).all(axis=1)
    )
    _blame(prompts.row[bad], tiles, "points")


def _refuse_non_finite_masks(masks: MaskCrops, prompts: Prompts, tiles: Sequence[Tile]) -> None:
    """The predicted IoU may be NaN, since not every model predicts one."""
    bad = ~(np.isfinite(masks.score) & np.isfinite(masks.class_probs).all(axis=1))
    _blame(prompts.row[masks.prompt[bad]], tiles, "masks")


def _blame(rows: Int64, tiles: Sequence[Tile], what: str) -> None:
    rows = rows[rows < len(tiles)]
    if len(rows):
        names = ", ".join(str(tiles[row].index) for row in np.unique(rows))
        raise not_finite(f"tile {names}", what)
