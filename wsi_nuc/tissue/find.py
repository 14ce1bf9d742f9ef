"""Where the tissue of a slide is: found in a low-resolution view, given by the user, or the whole slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import shapely

from wsi_nuc.tissue.area import polygons_only, whole
from wsi_nuc.tissue.geojson import read_polygons
from wsi_nuc.tissue.outline import cleaned, outline
from wsi_nuc.tissue.stain import stained
from wsi_nuc.types import Overview, UInt8

# A patch half a millimetre wide was cut out of tissue; looking for glass in it can only lose nuclei.
PATCH_MM2 = 0.25


@dataclass(frozen=True, slots=True)
class Tissue:
    """`polygons`: shapely MultiPolygon in level-0 pixels. `thumbnail`: uint8 H x W x 3, `l0_per_px` its scale.

    `share` of the slide that the polygons cover, 0..1; `method` says how they were found.
    """

    polygons: Any
    thumbnail: UInt8
    l0_per_px: float
    share: float
    method: str


def tissue_for(view: Overview, choice: str = "auto") -> Tissue:
    """`choice`: "auto", "none" (the whole slide) or the path of a GeoJSON."""
    if choice == "auto":
        return find_tissue(view)
    if choice == "none":
        return _tissue(whole(view.info.box_l0), view, "whole slide")
    return _tissue(read_polygons(choice, view.info), view, "GeoJSON")


def find_tissue(view: Overview) -> Tissue:
    """The stained parts of the slide, slightly grown; empty on a blank slide."""
    mask, method = stained(view)
    mask = cleaned(mask, view)
    info = view.info
    if mask.any() and info.width * info.height * (view.mpp / 1000) ** 2 <= PATCH_MM2:
        return _tissue(whole(info.box_l0), view, f"{method}, patch")
    return _tissue(outline(mask, view.l0_per_px, info.box_l0), view, method)


def intersect(area: Any, roi: Any) -> Any:
    """The part of the area within a region of interest; empty where the two do not meet."""
    return polygons_only(shapely.intersection(area, roi))


def _tissue(polygons: Any, view: Overview, method: str) -> Tissue:
    share = min(1.0, float(polygons.area) / (view.info.width * view.info.height))
    return Tissue(polygons, view.rgb, view.l0_per_px, share, method)
