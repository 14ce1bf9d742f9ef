"""One row of figures per slide, from its published store alone.

No pixels are read, and only one row group, or one stretch of the feature table, is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_nuc.features import dab, squares
from wsi_nuc.features.job import has_features
from wsi_nuc.features.means import feature_means
from wsi_nuc.features.neighbourhood import (
    ENRICHMENT_FIGURE,
    FARTHEST_UM,
    NEAREST_FIGURE,
    NEIGHBOURS_UM,
    PairCounter,
    Surroundings,
)
from wsi_nuc.features.registry import TABLE
from wsi_nuc.store import classes as class_figures
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.classes import ClassCounter, ClassRow
from wsi_nuc.store.column_record import SAME, SUM, Column, about_mean_by, find, mean_by
from wsi_nuc.store.reading import NucleiFile, class_names, read_tissue

Figure = float | int | str

_OF_SLIDE = (
    Column("slide", "", "name of the slide's file", "text", kind=str),
    Column("slide_sha256", "", "hash of the slide's content", "64 hexadecimal digits", kind=str),
    Column(
        "model",
        "",
        "the model that found the nuclei; `import: FORMAT` for cells from elsewhere",
        "text",
        kind=str,
        patient=SAME,
    ),
    Column(
        "weights_sha256",
        "",
        "hash of the model's weights; of the imported file for cells from elsewhere",
        "64 hexadecimal digits",
        kind=str,
        patient=SAME,
    ),
    Column("mpp", "um/px", "microns per level-0 pixel that the run worked with", "above 0", patient=SAME),
    Column("width_px", "px", "width of level 0", "whole numbers from 1", kind=int),
    Column("height_px", "px", "height of level 0", "whole numbers from 1", kind=int),
    Column(
        "unlike_training_images",
        "",
        "in which way the slide looks unlike the images that the model was trained on",
        'text; "" if nothing was noticed, or if nothing is known of the model\'s images',
        kind=str,
    ),
    *(
        Column(f"tiles_{name}", "", about, "whole numbers from 0", kind=int, patient=SUM)
        for name, about in (
            ("processed", "tiles that the model looked at; 0 for cells from elsewhere"),
            ("background", "tiles without tissue"),
            ("missing", "tiles in tissue for which the file holds no data"),
            ("failed", "tiles that could not be computed, in a result that was allowed to lack them"),
        )
    ),
    *class_figures.TISSUE,
    Column("nuclei", "", "number of nuclei", "whole numbers from 0", kind=int, patient=SUM),
    Column(
        "nuclei_per_mm2",
        "1/mm2",
        "`nuclei` / `usable_mm2`",
        "from 0",
        "no usable tissue",
        "density",
        patient=mean_by("usable_mm2"),
    ),
    Column(
        "nuclei_area_share",
        "",
        "total area of all nuclei over `usable_mm2`",
        "from 0; above 1 only if outlines lie outside of the tissue",
        "no usable tissue",
        "density",
        patient=mean_by("usable_mm2"),
    ),
)
_OF_FEATURES = tuple(
    Column(
        f"feature_{short}_{{feature}}",
        "of {feature}",
        f"{long} of `{{feature}}` over the nuclei that have it",
        reach,
        "no features were measured, or no nucleus has this one",
        "feature",
        patient=about_mean_by("nuclei"),
    )
    for short, long, reach in (
        ("mean", "mean", "that of {feature}"),
        ("sd", "standard deviation (over n)", "from 0"),
    )
)
FIGURES: tuple[Column, ...] = (
    *_OF_SLIDE,
    replace(NEAREST_FIGURE, family="neighbourhood"),
    *(
        replace(
            column,
            name=f"{column.name}_{{class}}",
            about=column.about.replace("`count`", "`count_{class}`"),
            family="class",
        )
        for column in class_figures.FIGURES
    ),
    replace(ENRICHMENT_FIGURE, family="neighbourhood"),
    *(replace(column, family="spread") for column in squares.FIGURES),
    *dab.FIGURES,
    *_OF_FEATURES,
)
"""The figures of a slide, in the order of `slide_summary`."""


def figure_column(name: str) -> Column:
    """What the figure `name` means. KeyError for a name that `slide_summary` does not give."""
    column = find(FIGURES, name)
    for pattern in _OF_FEATURES:
        prefix = pattern.name.partition("{")[0]
        if name.startswith(prefix):
            feature = find(TABLE, name.removeprefix(prefix))
            reach = feature.range if pattern.range.startswith("that") else pattern.range
            return replace(column, unit=feature.unit, range=reach, family=feature.family)
    return column


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
    usable = usable_tissue(tissue, manifest)
    usable_mm2 = _usable_mm2(manifest, tissue_mm2, usable, mpp)
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
        **counted.squares.figures(usable, mpp),
        **(dab.positive_figures(store) if dab.is_measured(store) else {}),
        **(feature_means(store, total) if has_features(manifest["made_from"]) else {}),
    }


@dataclass(frozen=True, slots=True)
class _Counted:
    areas: ClassCounter
    pairs: PairCounter
    squares: squares.SquareCounter


def _count(store: Path, mpp: float, classes: Sequence[str]) -> _Counted:
    counted = _Counted(ClassCounter(classes), PairCounter(classes), squares.SquareCounter(len(classes)))
    with NucleiFile(store) as file:
        around = Surroundings(file, mpp, max(NEIGHBOURS_UM, FARTHEST_UM))
        for group in range(file.groups):
            scene = around.scene(group)
            own = scene.class_id[: scene.own]
            counted.areas.add(own, scene.area_um2)
            counted.pairs.add(scene)
            counted.squares.add(scene.xy_um[: scene.own], own)
    return counted


def usable_tissue(tissue: Any, manifest: dict[str, Any]) -> Any:
    """The polygons without the places that could not be analysed, since a square there is not an empty one."""
    boxes = manifests.lost_boxes(manifest["tiles"])
    if not boxes:
        return tissue
    lost = shapely.union_all(shapely.box(*np.array(boxes, np.float64).T))
    return shapely.get_parts(shapely.difference(tissue, lost))


def _usable_mm2(manifest: dict[str, Any], tissue_mm2: float, usable: Any, mpp: float) -> float:
    """What the manifest says. Those of old versions and of imports say nothing; then it is what is left of the
    tissue."""
    stated = manifest["counts"].get("usable_mm2")
    if stated is not None:
        return float(stated)
    left = float(np.sum(shapely.area(usable))) * (mpp / 1000) ** 2
    return min(left, tissue_mm2) if manifests.lost_boxes(manifest["tiles"]) else tissue_mm2


def _facts(manifest: dict[str, Any]) -> dict[str, Figure]:
    """What the manifest says about the slide and the run, as numbers and names."""
    slide, tiles = manifest["slide"], manifest["tiles"]
    key = manifest["made_from"]
    facts: dict[str, Figure] = {
        "slide": str(slide.get("file", "")),
        "slide_sha256": str(key.get("slide_sha256", "")),
        "model": str(key.get("config", {}).get("model", "")),
        "weights_sha256": str(key.get("weights_sha256", "")),
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
