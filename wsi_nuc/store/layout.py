"""SpatialData's layout on disk: where the elements lie and what their groups say. Written without spatialdata.

SpatialData requires names that are unique over shapes, labels and tables, hence the suffixes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from wsi_nuc.store.manifest import canonical, sha256_of
from wsi_nuc.store.zarrfile import ZarrFolder

Json = dict[str, Any]

NUCLEI_SHAPES = "shapes/nuclei"
TISSUE_SHAPES = "shapes/tissue"
NUCLEI_TABLE = "tables/nuclei_table"
THUMBNAIL = "images/thumbnail"
NUCLEI_LABELS = "labels/nuclei_labels"
PARQUET = "shapes.parquet"
REGION, REGION_KEY, INSTANCE_KEY = "nuclei", "region", "id"

_RASTER_VERSION = "0.5-dev-spatialdata"


def _space(axes: str, name: str) -> Json:
    described = [
        {"name": a, "type": "channel"} if a == "c" else {"name": a, "type": "space", "unit": "unit"} for a in axes
    ]
    return {"name": name, "axes": described}


def to_global(axes: str, scale: float = 1.0) -> list[Json]:
    """The transformation from pixels of the element to level-0 pixels, which are the "global" coordinates here."""
    ends = {"input": _space(axes, axes), "output": _space(axes, "global")}
    if scale == 1.0:
        return [{"type": "identity", **ends}]
    return [{"type": "scale", "scale": [1.0 if a == "c" else scale for a in axes], **ends}]


def shapes_group(folder: ZarrFolder, path: str, count: int) -> None:
    """Make the Parquet file below `path` an element, if it has rows: SpatialData refuses empty ones."""
    if not count:
        return
    attributes = {
        "encoding-type": "ngff:shapes",
        "axes": ["x", "y"],
        "coordinateTransformations": to_global("xy"),
        "spatialdata_attrs": {"version": "0.3"},
    }
    folder.group(path, attributes)


def raster_group(folder: ZarrFolder, path: str, axes: str, levels: list[float], l0_per_px: float) -> None:
    """The group of a pyramid of arrays s0, s1, ... `levels`: pixels of s0 per pixel of each array. `l0_per_px`:
    level-0 pixels per pixel of s0."""
    datasets = [
        {
            "path": f"s{i}",
            "coordinateTransformations": [{"type": "scale", "scale": [1.0 if a == "c" else f for a in axes]}],
        }
        for i, f in enumerate(levels)
    ]
    multiscale = {
        "datasets": datasets,
        "name": path.partition("/")[2],
        "axes": [{"name": a, "type": "channel" if a == "c" else "space"} for a in axes],
        "coordinateTransformations": to_global(axes, l0_per_px),
    }
    ome: Json = {"version": _RASTER_VERSION, "multiscales": [multiscale]}
    if "c" in axes:
        ome["omero"] = {"channels": [{"label": label} for label in "rgb"]}
    folder.group(path, {"ome": ome, "spatialdata_attrs": {"version": "0.3"}})


def seal(folder: ZarrFolder, made_from: Json, classes: Sequence[Json] = (), labels: bool = False) -> None:
    """Write the root and the groups above the elements. Call it when all elements are written.

    The root keeps a copy of what the result was made from, so that a store is still known if it lost its manifest.
    It also keeps the figures of the `classes`, which SpatialData shows as `attrs`.
    """
    folder.group("images")
    folder.group("shapes")
    folder.group("tables")
    if labels:
        folder.group("labels", {"ome": {"labels": [NUCLEI_LABELS.partition("/")[2]]}})
    # In the same order wherever the document came from, so that equal results have equal bytes.
    made_from = json.loads(canonical(made_from))
    identity = sha256_of(made_from)
    software = {"version": "0.2", "spatialdata_software_version": "0.7.3"}
    own = {"identity": identity, "made_from": made_from, **({"classes": list(classes)} if classes else {})}
    folder.seal({"spatialdata_attrs": software, "wsi_nuc": own})
