"""One row of figures a slide, from its published store alone: no pixels, one row group in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_nuc.features.around import Surroundings
from wsi_nuc.features.identity import has_features
from wsi_nuc.features.means import feature_means
from wsi_nuc.features.pairs import FARTHEST_UM, NEIGHBOURS_UM, PairCounter
from wsi_nuc.features.squares import SquareCounter
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.classes import ClassCounter, ClassRow
from wsi_nuc.store.reading import NucleiFile, class_names, read_tissue

Figure = float | int | str
KINDS = ("missing", "damaged", "failed")


def slide_summary(store: Path) -> dict[str, Figure]:
    """Counts, densities, quantiles of the area, mixture of classes and spread of one published slide.

    Plain names to plain values, in a fixed order that only the classes of the store decide; a store with features
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
    """The polygons without the places that could not be looked at: a square there is not one without nuclei."""
    boxes = [box for kind in KINDS for box in manifest["tiles"].get(f"{kind}_boxes_l0", [])]
    if not boxes:
        return tissue
    lost = shapely.union_all(shapely.box(*np.array(boxes, np.float64).T))
    return shapely.get_parts(shapely.difference(tissue, lost))


def _facts(manifest: dict[str, Any]) -> dict[str, Figure]:
    """What the manifest knows of the slide and the run, by numbers and names only."""
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
    found = pairs.enrichment(counts)
    return {f"enrichment_{a}_{b}": value for (a, b), value in found.items()}
