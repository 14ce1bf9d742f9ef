"""Places of a slide that a run treated in some way: searched, skipped, lost; as outlines in level-0 pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.quality.tilegrid import CoreGrid, core_grid
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.manifest import Json
from wsi_nuc.store.reading import NucleiFile, read_tissue

# Outlines with more vertices are simplified to about two microns.
MOST_VERTICES, COARSE_UM = 200_000, 2.0
MOST_BOXES = 50_000


def layers_of(store: Path, manifest: Json, roi: str | None) -> Json:
    """`roi`: the file of the ROI, if it is known. A store keeps its hash, and the area that was searched in it."""
    tiles, mpp = manifest["tiles"], float(manifest["slide"]["mpp"])
    with NucleiFile(store) as file:
        grid, groups = core_grid(file, manifest), file.group_boxes_l0
    tissue = _tissue(store)
    area, problem = _roi(manifest, roi)
    return {
        "tissue": _rings(tissue, mpp),
        "roi": _rings(area, mpp),
        "roiIs": problem,
        "grid": None if grid is None else [grid.edge_l0, grid.columns, grid.rows],
        "skipped": [] if grid is None else _skipped(grid, tissue),
        "lost": {kind: tiles.get(f"{kind}_boxes_l0", [])[:MOST_BOXES] for kind in manifests.LOST},
        "groups": np.round(groups[:MOST_BOXES], 1).tolist(),
    }


def _tissue(store: Path) -> Any:
    try:
        return read_tissue(store)[0]
    except StorageError:
        return np.zeros(0, object)


def _roi(manifest: Json, roi: str | None) -> tuple[Any, str]:
    """The polygons of the ROI, and why there are none although the run had one."""
    from wsi_nuc.tissue.geojson import parse_polygons

    nothing, sha256 = np.zeros(0, object), manifest["made_from"].get("config", {}).get("roi")
    if not sha256:
        return nothing, "the result was made without a ROI" if roi else ""
    if roi is None:
        return nothing, "the file of the ROI is not known: give it with --roi"
    try:
        if manifests.hash_file(Path(roi)) != sha256:
            return nothing, "the file of the ROI is not the one that the result was made with"
        return np.array([parse_polygons("the ROI", json.loads(Path(roi).read_bytes()))], object), ""
    except (OSError, ValueError, RecursionError, UsageError):
        return nothing, "the file of the ROI cannot be read"


def _rings(polygons: Any, mpp: float) -> list[list[list[float]]]:
    import shapely

    if shapely.get_num_coordinates(polygons).sum() > MOST_VERTICES:
        polygons = shapely.simplify(polygons, COARSE_UM / mpp)
    rings = shapely.get_rings(shapely.get_parts(polygons))
    return [np.round(shapely.get_coordinates(ring), 1).tolist() for ring in rings]


def _skipped(grid: CoreGrid, tissue: Any) -> list[list[float]]:
    """The tiles that have nothing to search in them."""
    import shapely

    if not len(tissue) or grid.columns * grid.rows > MOST_BOXES:
        return []
    boxes = grid.boxes_l0()
    met = np.unique(shapely.STRtree(tissue).query(shapely.box(*boxes.T), predicate="intersects")[0])
    skipped: list[list[float]] = np.round(boxes[np.setdiff1d(np.arange(len(boxes)), met)], 1).tolist()
    return skipped
