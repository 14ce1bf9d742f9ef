"""A model's embedding at every nucleus. The model's tiles that hold a nucleus are read again, no others."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.features.job import GroupJob, ModelRef
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.tiling.gaps import in_gaps
from wsi_nuc.tiling.grid import TileGrid
from wsi_nuc.tiling.plan import RegionTask
from wsi_nuc.tiling.read import TilePixels, read_region
from wsi_nuc.tiling.scale import Scale, choose_scale, grid_size
from wsi_nuc.types import Float32, Float64, SlideSource, TileBatch


def model_ref(model: str, device: str, options: tuple[tuple[str, object], ...] = ()) -> ModelRef:
    """UsageError for a model that has no embedding."""
    spec = model_spec(model, dict(options) or None)
    if not spec.embedding:
        raise UsageError(
            f"--embedding with model {model}",
            "this model has no embedding",
            "leave it out, or use the default model or PromptNucSeg",
        )
    return ModelRef(model, device, spec.embedding, spec.weights_sha256, options)


def embeddings(source: SlideSource, job: GroupJob, xy_l0: Float64) -> Float32:
    """N x size, NaN where the slide has no pixels.

    The model gets one tile per call, so that no value depends on which other nuclei are asked for.
    """
    assert job.model is not None
    model = _model(job.model)
    scale = choose_scale(source.info, job.mpp, model.spec.mpp)
    size = grid_size(source.info, scale.l0_per_grid)
    grid = TileGrid(*size, model.spec.core_px, model.spec.halo_px, scale.l0_per_grid)
    xy_grid = xy_l0 / scale.l0_per_grid
    tiles = grid.tile_at(xy_grid)
    out = np.full((len(xy_l0), job.model.size), np.nan, np.float32)
    for index in np.unique(tiles[tiles >= 0]).tolist():
        rows = np.flatnonzero(tiles == index)
        tile, pixels = grid.tile(index), _pixels(source, grid, scale, index)
        rows = rows[~in_gaps(pixels.gaps, xy_l0[rows])]
        if pixels.rgb is not None and len(rows):
            xy_tile = (xy_grid[rows] - (tile.read_box.x0, tile.read_box.y0)).astype(np.float32)
            batch = TileBatch(pixels.rgb[None], (tile,))
            out[rows] = model.look(batch).embed(xy_tile, np.zeros(len(rows), np.int64)).get()
    return out


def _pixels(source: SlideSource, grid: TileGrid, scale: Scale, index: int) -> TilePixels:
    region = grid.region(index, np.array([index]))
    (pixels,) = read_region(source, RegionTask(region, grid, scale, ()))
    return pixels


@lru_cache(maxsize=1)
def _model(ref: ModelRef) -> NucleiModel:
    return load_model(ref.model, ref.device, dict(ref.options) or None)
