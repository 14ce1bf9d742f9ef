"""One row of figures per slide, from its published store alone.

No pixels are read, and only one row group, or one stretch of the feature table, is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_nuc.errors import StorageError
from wsi_nuc.features.job import has_features
from wsi_nuc.features.neighbourhood import FARTHEST_UM, NEIGHBOURS_UM, PairCounter, Surroundings
from wsi_nuc.features.squares import SquareCounter
from wsi_nuc.safezarr import open_array, read_array
from wsi_nuc.safezip import contents
from wsi_nuc.store import layout
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.classes import ClassCounter, ClassRow
from wsi_nuc.store.reading import NucleiFile, class_names, read_tissue
from wsi_nuc.types import Float64, Int64

# Columns whose mean says nothing: the probabilities of classes, an embedding, a direction.
LEFT_OUT_FAMILIES = ("class", "embedding")
LEFT_OUT = ("orientation_rad",)
KINDS = ("missing", "damaged", "failed")
_ROWS = 16_384
_MOST_FEATURES = 100_000
Figure = float | int | str


def slide_summary(store: Path) -> dict[str, Figure]:
    """Counts, densities, quantiles of the area, mixture of classes and spread of one published slide.

    Maps plain names to plain values. Their order depends on the classes of the store alone. A store with features
    has the mean and the standard deviation of each, too. What cannot be known (no nucleus of a class, no tissue)
    is NaN. Raises StorageError where the store cannot be read.
    """
    store = Path(store)
    manifest = manifests.read(store)
    mpp, classes = float(manifest["slide"]["mpp"]), class_names(store)
    tissue, tissue_mm2 = read_tissue(store)
    usable_mm2 = float(manifest["counts"].get("usable_mm2", tissue_mm2))
    counted = _count(store, mpp, classes)
    areas, counts = counted.areas, counted.areas.counts
    total = sum(counts)
    return {
        **_facts(manifest),
        "tissue_mm2": tissue_mm2,
        "usable_mm2": usable_mm2,
        "nuclei": total,
        "nuclei_per_mm2": total / usable_mm2 if usable_mm2 else float("nan"),
        "nuclei_area_share": areas.area_um2 / (usable_mm2 * 1e6) if usable_mm2 else float("nan"),
        "nearest_um_mean": counted.pairs.nearest_um,
        **_of_classes(areas.rows(usable_mm2)),
        **_of_pairs(counted.pairs, counts),
        **counted.squares.figures(_usable(tissue, manifest), mpp),
        **(feature_means(store, total) if has_features(manifest["made_from"]) else {}),
    }


@dataclass(frozen=True, slots=True)
class _Counted:
    areas: ClassCounter
    pairs: PairCounter
    squares: SquareCounter


def _count(store: Path, mpp: float, classes: Sequence[str]) -> _Counted:
    counted = _Counted(ClassCounter(classes), PairCounter(classes), SquareCounter(len(classes)))
    with NucleiFile(store) as file:
        around = Surroundings(file, mpp, max(NEIGHBOURS_UM, FARTHEST_UM))
        for group in range(file.groups):
            scene = around.scene(group)
            own = scene.class_id[: scene.own]
            counted.areas.add(own, scene.area_um2)
            counted.pairs.add(scene)
            counted.squares.add(scene.xy_um[: scene.own], own)
    return counted


def _usable(tissue: Any, manifest: dict[str, Any]) -> Any:
    """The polygons without the places that could not be analysed, since a square there is not an empty one."""
    boxes = [box for kind in KINDS for box in manifest["tiles"].get(f"{kind}_boxes_l0", [])]
    if not boxes:
        return tissue
    lost = shapely.union_all(shapely.box(*np.array(boxes, np.float64).T))
    return shapely.get_parts(shapely.difference(tissue, lost))


def _facts(manifest: dict[str, Any]) -> dict[str, Figure]:
    """What the manifest says about the slide and the run, as numbers and names."""
    slide, tiles = manifest["slide"], manifest["tiles"]
    key = manifest["made_from"]
    facts: dict[str, Figure] = {
        "slide": str(slide.get("file", "")),
        "slide_sha256": str(key.get("slide_sha256", "")),
        "model": str(key.get("config", {}).get("model", "")),
        "mpp": float(slide["mpp"]),
        "width_px": int(slide.get("width_px", 0)),
        "height_px": int(slide.get("height_px", 0)),
        "unlike_training_images": "; ".join(manifest["counts"].get("unlike_training_images", [])),
    }
    return facts | {f"tiles_{name}": int(tiles[name]) for name in ("processed", "background", "missing", "failed")}


def _of_classes(rows: Sequence[ClassRow]) -> dict[str, Figure]:
    out: dict[str, Figure] = {}
    for row in rows:
        out |= {f"{figure}_{row.name}": value for figure, value in row.figures().items()}
    return out


def _of_pairs(pairs: PairCounter, counts: Sequence[int]) -> dict[str, Figure]:
    return {f"enrichment_{a}_{b}": value for (a, b), value in pairs.enrichment(counts).items()}


def feature_means(store: Path, nuclei: int) -> dict[str, float]:
    """`feature_mean_NAME` and `feature_sd_NAME` over the nuclei that have a value; NaN where none has.

    `nuclei`: how many rows the table must have.
    """
    table = contents(store) / layout.NUCLEI_TABLE
    try:
        values = open_array(table / "X")
        names, families = (
            read_array(table / "var" / name, _MOST_FEATURES).tolist() for name in ("_index", "family")
        )
        if values.shape != (nuclei, len(names)):
            raise ValueError(f"its shape {values.shape} is not that of {len(names)} columns for {nuclei} nuclei")
        kept = [i for i, name in enumerate(names) if families[i] not in LEFT_OUT_FAMILIES and name not in LEFT_OUT]
        mean, sd = _mean_sd(values, np.array(kept, np.int64))
    except (OSError, KeyError, ValueError) as error:
        raise StorageError(table, f"cannot be read ({error})", "`wsi-nuc verify` says what is wrong") from None
    out = {f"feature_mean_{names[i]}": float(value) for i, value in zip(kept, mean, strict=True)}
    return out | {f"feature_sd_{names[i]}": float(value) for i, value in zip(kept, sd, strict=True)}


def _mean_sd(values: Any, columns: Int64) -> tuple[Float64, Float64]:
    """Merges stretches of rows as Chan, Golub and LeVeque do, which never subtracts large squares."""
    count, mean, squares = (np.zeros(len(columns)) for _ in range(3))
    for start in range(0, values.shape[0], _ROWS):
        stretch = np.asarray(values[start : start + _ROWS], np.float64)[:, columns]
        known = np.isfinite(stretch)
        n = known.sum(axis=0)
        here = np.where(known, stretch, 0).sum(axis=0) / np.maximum(n, 1)
        off = np.where(known, stretch - here, 0)
        total, gap = count + n, here - mean
        mean = mean + gap * n / np.maximum(total, 1)
        squares = squares + (off**2).sum(axis=0) + gap**2 * count * n / np.maximum(total, 1)
        count = total
    spread = np.sqrt(squares / np.maximum(count, 1))
    return np.where(count > 0, mean, np.nan), np.where(count > 0, spread, np.nan)
