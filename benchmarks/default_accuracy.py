"""How good a packaged model is, on clean and on spoiled images, and wherever the grid of tiles begins.

CoNSeP's validation images and NuInsSeg's validation organs chose its cuts; MoNuSeg was never seen.
`python -m benchmarks.default_accuracy [MODEL]` prints the whole table, of `large` or a file if one is named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.table import NO_TARGET, Row, print_rows
from wsi_nuc.datasets.images import load_images
from wsi_nuc.datasets.record import LabelledImage, SourceConfig
from wsi_nuc.evaluation.evaluate import Scoring, evaluate_images, predict_table
from wsi_nuc.evaluation.protocol import Means, image_means
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.registry import load_model
from wsi_nuc.nuclei import GridNuclei
from wsi_nuc.rings import Rings
from wsi_nuc.training.compact.scene import STAINS, compress
from wsi_nuc.types import UInt8

DATA = Path(os.environ.get("WSI_NUC_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
CLASSES = ("epithelial", "inflammatory", "connective", "other")
SOURCES = (
    SourceConfig(
        path=DATA / "consep",
        images=tuple(f"train_{i}" for i in range(22, 28)),
        classes={"spindle": "connective"},
    ),
    SourceConfig(path=DATA / "nuinsseg", split="val"),
    SourceConfig(
        path=DATA / "brca_m2c", split="val", classes={"lymphocyte": "inflammatory", "stromal": "connective"}
    ),
    SourceConfig(path=DATA / "monuseg"),
)
# Tiles begin at multiples of 32 px, whatever their size and the region's; tissue lies anywhere.
SHIFTS_PX, SAME_IOU = (32, 8, 37), 0.7
Polygons = np.ndarray[tuple[int], np.dtype[np.object_]]


def stained(rgb: UInt8, haematoxylin: float = 1.35, eosin: float = 0.75) -> UInt8:
    """The same tissue with more of one stain and less of the other."""
    density = -np.log((rgb.astype(np.float32) + 1) / 256) @ np.linalg.inv(STAINS).astype(np.float32)
    density *= np.array([haematoxylin, eosin, 1], np.float32)
    return np.asarray(np.clip(np.exp(-density @ STAINS) * 256 - 1, 0, 255), np.uint8)


def coarse(rgb: UInt8) -> UInt8:
    """The image as if it had been scanned at 20x."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


SPOILED: dict[str, Callable[[UInt8], UInt8]] = {
    "stain shifted": stained,
    "JPEG quality 40": lambda rgb: compress(rgb, 40),
    "blurred by 1 px": lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), 1.0), np.uint8),
    "20x, resampled": coarse,
}


def measure(small: bool = False, model: str = "default") -> list[Row]:
    """Needs the data sets, and says so where they are not."""
    if not DATA.is_dir():
        return [Row(f"default model: no data at {DATA}", 0.0, "", "CoNSeP, NuInsSeg, BRCA-M2C and MoNuSeg", False)]
    return rows(load_model(model), small)


def rows(model: NucleiModel, small: bool) -> list[Row]:
    sets = [images(source) for source in SOURCES]
    if small:
        sets = [of_set[:1] for of_set in sets]
    held_out = sets[0]
    clean, organs, dots, outside = (score(model, of_set) for of_set in sets)
    table = [
        *_means("CoNSeP validation", clean, {"PQ": 0.547, "AJI": 0.571, "F1": 0.75}),
        *(
            Row(f"CoNSeP validation, F1 of {name}", detection.f1)
            for name, detection in zip(CLASSES, clean.detection_by_class, strict=True)
        ),
        *_means("NuInsSeg validation", organs, {"PQ": 0.0, "AJI": 0.0, "F1": 0.0}),
        *_means("BRCA-M2C validation", dots, {"F1": 0.0}),
        *(
            Row(f"BRCA-M2C validation, F1 of {name}, HoVer-Net's count", counts.f1)
            for name, counts in zip(CLASSES[:3], dots.hover_by_class, strict=False)
        ),
        *_means("MoNuSeg, unseen", outside, {"PQ": 0.55, "AJI": 0.59, "F1": 0.0}),
    ]
    for what, spoil in SPOILED.items():
        pq = score(model, [replace(image, rgb=spoil(image.rgb)) for image in held_out]).pq
        table.append(_kept(what, pq, clean.pq))
    for factor in (0.8, 1.2):
        pq = score(model, [replace(image, mpp=(image.mpp or 0.25) * factor) for image in held_out]).pq
        table.append(_kept(f"mpp wrong by {factor - 1:+.0%}", pq, clean.pq))
    shares = np.mean([same_shares(model, image) for image in held_out[:3]], axis=0)
    for shift, share in zip(SHIFTS_PX, shares.tolist(), strict=True):
        table.append(Row(f"same nuclei (IoU {SAME_IOU}) {shift} px beside", share, "", ">= 0.97", share >= 0.97))
    return table


def images(source: SourceConfig) -> Sequence[LabelledImage]:
    return load_images([source], CLASSES, 0.25).images


def score(model: NucleiModel, chosen: Sequence[LabelledImage]) -> Means:
    return image_means(evaluate_images(model, chosen, Scoring()))


def same_shares(model: NucleiModel, image: LabelledImage) -> list[float]:
    """For each shift, the share of the nuclei in the middle of the image that it leaves as they are, or that it
    does not add: the smaller one."""
    nuclei = polygons(predict_table(model, image)[0])
    moved = [replace(image, rgb=np.ascontiguousarray(image.rgb[shift:, shift:])) for shift in SHIFTS_PX]
    after_shift = [
        polygons(predict_table(model, beside)[0], shift) for beside, shift in zip(moved, SHIFTS_PX, strict=True)
    ]
    edge = (image.rgb.shape[1], image.rgb.shape[0])
    return [min(_met(nuclei, shifted, edge), _met(shifted, nuclei, edge)) for shifted in after_shift]


def _met(nuclei: Polygons, shifted: Polygons, size: tuple[int, int]) -> float:
    """Share of the `nuclei` in the middle of an image of this size that a polygon of `shifted` covers with
    SAME_IOU."""
    import shapely

    middle = shapely.box(150, 150, size[0] - 100, size[1] - 100)
    nuclei = nuclei[shapely.within(shapely.centroid(nuclei), middle)]
    left, right = shapely.STRtree(shifted).query(nuclei, predicate="intersects")
    common = shapely.area(shapely.intersection(nuclei[left], shifted[right]))
    union = shapely.area(nuclei[left]) + shapely.area(shifted[right]) - common
    best = np.zeros(len(nuclei))
    np.maximum.at(best, left, common / union)
    return float((best >= SAME_IOU).mean())


def polygons(table: GridNuclei, shift_px: float = 0.0) -> Polygons:
    return Rings(table.xy + shift_px, table.offsets).polygons()  # type: ignore[return-value]


def _means(where: str, means: Means, targets: dict[str, float]) -> list[Row]:
    values = {"PQ": means.pq, "AJI": means.aji, "F1": means.detection.f1}
    return [
        Row(f"{where}, {name}", values[name], "", f">= {target}" if target else NO_TARGET, values[name] >= target)
        for name, target in targets.items()
    ]


def _kept(what: str, pq: float, clean: float) -> Row:
    return Row(f"PQ of what is left when {what}", pq / clean, "x", ">= 0.9", pq >= 0.9 * clean)


if __name__ == "__main__":
    print_rows(measure(model=sys.argv[1] if len(sys.argv) > 1 else "default"))
