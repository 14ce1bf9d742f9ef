"""The thumbnail as an OME-Zarr image that lies over the polygons."""

from __future__ import annotations

import numpy as np

from wsi_nuc.store import layout
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import UInt8


def write_thumbnail(folder: ZarrFolder, rgb: UInt8, l0_per_px: float) -> None:
    """`rgb`: H x W x 3. One chunk: a thumbnail is read whole."""
    layout.raster_group(folder, layout.THUMBNAIL, "cyx", [1.0], l0_per_px)
    planes = np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
    folder.array(f"{layout.THUMBNAIL}/s0", planes, names=list("cyx"))
