"""Computes all features of one row group of a store, which is one task, from the store and the slide alone.

For the features of pixels, the nuclei are sorted into squares. Each square is read once, and only one is in memory
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from wsi_nuc.errors import about
from wsi_nuc.features.border import Analysed, border_features
from wsi_nuc.features.coverage import RING_UM, Coverage, cover
from wsi_nuc.features.dab import dab_features, density_of
from wsi_nuc.features.embed import embeddings
from wsi_nuc.features.job import GroupJob, Vectors
from wsi_nuc.features.neighbourhood import Surroundings, neighbourhood_features
from wsi_nuc.features.pixels import feature_scale, read_grid, unmixed
from wsi_nuc.features.registry import COARSEST_UM, REACH_UM, features_of
from wsi_nuc.features.shape import ratio, shape_features
from wsi_nuc.features.squares import rows_by_square
from wsi_nuc.features.texture import boundary_features, stain_features, texture_features
from wsi_nuc.rings import Rings
from wsi_nuc.slides.address import shown
from wsi_nuc.slides.cache import cached_slide
from wsi_nuc.store.reading import NucleiFile, StoredRings, read_tissue
from wsi_nuc.tiling.scale import Scale
from wsi_nuc.types import Bool, Box, Float32, Float64, Int64, SlideSource

# A square is read together with the nuclei that reach out of it. What is larger than LARGEST_UM is not a nucleus,
# and would take memory without bound.
SQUARE_UM, LARGEST_UM, AROUND_UM = 512.0, 256.0, 4.0
Columns = dict[str, Float64]


def measure(job: GroupJob) -> Float32:
    """N x F, with the columns that `features_of` lists. The same job gives the same bytes each time."""
    cv2.setNumThreads(1)
    with about(shown(job.slide.path)):
        return _measured(job, cached_slide(job.slide))


def _measured(job: GroupJob, source: SlideSource) -> Float32:
    scale = feature_scale(source.info, job.mpp)
    size = job.model.size if job.model else 0
    names = {
        feature.name: column for column, feature in enumerate(features_of(job.classes, size, job.dab is not None))
    }
    with NucleiFile(Path(job.store)) as file:
        own, near = file.rings(job.group), _near(file, job.group, AROUND_UM / job.mpp)
        scene = Surroundings(file, job.mpp, REACH_UM).scene(job.group)
        box_l0 = file.group_boxes_l0[job.group]
    out = np.full((len(own), len(names)), np.nan, np.float32)
    if len(own):
        columns = shape_features(Rings(own.xy * job.mpp, own.offsets))
        columns |= neighbourhood_features(scene, job.classes)
        tissue, _ = read_tissue(Path(job.store))
        columns |= border_features(scene, Analysed.near(box_l0, tissue, job, source.info.box_l0), columns)
        for name, values in columns.items():
            out[:, names[name]] = values
        for rows, columns in pixel_features(source, scale, own, near, job.dab) if job.mpp <= COARSEST_UM else ():
            for name, values in columns.items():
                out[rows, names[name]] = values
        out[:, names["h_total_um2"]] = out[:, names["h_mean"]] * out[:, names["area_um2"]]
    if job.model is not None:
        out[:, len(names) - size :] = embeddings(source, job, scene.xy_um[: len(own)] / job.mpp)
    return out


def _near(file: NucleiFile, group: int, around_l0: float) -> StoredRings:
    """Outlines of other row groups that come near those of this one."""
    x0, y0, x1, y1 = file.group_boxes_l0[group].tolist()
    box = (x0 - around_l0, y0 - around_l0, x1 + around_l0, y1 + around_l0)
    none = StoredRings(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)))
    return StoredRings.concat(
        [none, *(file.rings(neighbour).within(box) for neighbour in file.meeting(box) if neighbour != group)]
    )


def pixel_features(
    source: SlideSource, scale: Scale, own: StoredRings, near: StoredRings, dab: Vectors | None = None
) -> Iterator[tuple[Int64, Columns]]:
    """Rows of `own` and their columns, square by square. Rows without pixels are left out.

    `near`: nuclei of other row groups, whose pixels do not belong to any ring. `dab`: the stains where DAB is
    measured.
    """
    boxes = own.bounds_l0 / scale.l0_per_grid
    small = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) <= LARGEST_UM / scale.grid_mpp)
    square = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 * scale.grid_mpp / SQUARE_UM)
    for rows in rows_by_square(square, small):
        yield _read(source, scale, rows, (own, near), dab)


def _read(
    source: SlideSource, scale: Scale, rows: Int64, rings: tuple[StoredRings, StoredRings], dab: Vectors | None
) -> tuple[Int64, Columns]:
    """The rows that have all their pixels, and their columns."""
    own = rings[0].select(rows)
    box = _box(own, scale)
    rgb, lost = read_grid(source, scale, box)
    haematoxylin, eosin = unmixed(rgb)
    here = _with_others(rings, rows, box, scale)
    grid = Rings(here.xy / scale.l0_per_grid - (box.x0, box.y0), here.offsets)
    ring_px = max(1, round(RING_UM / scale.grid_mpp))
    covered = cover(grid, here.ids, len(rows), rgb.shape[:2], ring_px)
    columns = {
        **stain_features("h", haematoxylin, covered, quantiles=True),
        **stain_features("e", eosin, covered, quantiles=False),
        **texture_features(haematoxylin, covered, scale.grid_mpp),
        **boundary_features(haematoxylin, grid.between(0, len(rows)), scale.grid_mpp),
    }
    if dab is not None:
        columns |= dab_features(density_of(rgb, dab), covered.inside)
    known = np.ones(len(rows), np.bool_) if lost is None else ~_touched(covered, lost)
    return rows[known], {name: values[known] for name, values in columns.items()}


def _box(own: StoredRings, scale: Scale) -> Box:
    """The box, in pixels of `scale`, around the nuclei and the surroundings that are measured."""
    bounds, around = own.bounds_l0 / scale.l0_per_grid, int(np.ceil(AROUND_UM / scale.grid_mpp))
    low, high = np.floor(bounds[:, :2].min(axis=0)).astype(int), np.ceil(bounds[:, 2:].max(axis=0)).astype(int)
    return Box(*low.tolist(), *high.tolist()).grow(around)


def _with_others(rings: tuple[StoredRings, StoredRings], rows: Int64, box: Box, scale: Scale) -> StoredRings:
    """The `rows`, then all others that reach into the box."""
    own, near = rings
    side = scale.l0_per_grid
    box_l0 = (box.x0 * side, box.y0 * side, box.x1 * side, box.y1 * side)
    rest = np.ones(len(own), np.bool_)
    rest[rows] = False
    others = own.select(np.flatnonzero(rest)).within(box_l0)
    return StoredRings.concat([own.select(rows), others, near.within(box_l0)])


def _touched(covered: Coverage, lost: Bool) -> Bool:
    """N bool: whether the file lacks a part of the nucleus or of its ring."""
    flat = lost.ravel()
    lacking = covered.inside.sum(flat[covered.inside.pixel]) + covered.ring.sum(flat[covered.ring.pixel])
    return np.asarray(ratio(lacking, np.ones_like(lacking)) > 0)
