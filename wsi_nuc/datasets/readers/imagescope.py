"""Kumar and MoNuSeg as published: TIFF images and ImageScope XML with the vertices of one region per nucleus.

Vertices are positions on a plane on which a pixel covers [i, i + 1). Label images that other tools made from the
same XML may be larger and shifted by up to a pixel.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from wsi_nuc.datasets.cards import Card
from wsi_nuc.datasets.files import IMAGES, read_rgb
from wsi_nuc.datasets.labels import labels_of_polygons
from wsi_nuc.datasets.record import DataError, Entry, LabelledImage
from wsi_nuc.types import Float64

# Parts of a folder's name, and the split that they stand for; the first that fits counts.
_SPLITS = {"test_same": "test_same", "test_diff": "test_diff", "test": "test", "val": "val", "train": "train"}
# Folders whose pictures are labels.
_NO_IMAGES = {"labels", "masks", "types", "binary_masks"}


def recognises(root: Path) -> bool:
    return any(root.glob("**/*.xml"))


def entries(root: Path, card: Card) -> list[Entry]:
    images: dict[str, list[Path]] = {}
    for path in sorted(root.glob("**/*")):
        if path.suffix.lower() in IMAGES and path.parent.name.lower() not in _NO_IMAGES:
            images.setdefault(path.stem, []).append(path)
    listed = []
    for xml in sorted(root.glob("**/*.xml")):
        image = _image_of(xml, images.get(xml.stem, []))
        # TCGA-XX-YYYY names the patient.
        patient = "-".join(xml.stem.split("-")[:3]) if xml.stem.startswith("TCGA-") else xml.stem
        listed.append(Entry(xml.stem, partial(load, xml, image, card), patient, split_of(xml, root)))
    return listed


def _image_of(xml: Path, candidates: list[Path]) -> Path:
    beside = [path for path in candidates if path.parent == xml.parent]
    if beside:
        return beside[0]
    if len(candidates) != 1:
        which = f"{len(candidates)} images" if candidates else "no image"
        raise DataError(
            xml, f"has {which} of the same name", "put the image beside it, or name the folder that holds both"
        )
    return candidates[0]


def split_of(path: Path, root: Path) -> str:
    """The split that the name of a folder between `root` and the file stands for; "" if there is none."""
    for part in reversed(path.relative_to(root).parts[:-1]):
        for word, split in _SPLITS.items():
            if word in part.lower():
                return split
    return ""


def load(xml: Path, image: Path, card: Card) -> LabelledImage:
    repairs: Counter[str] = Counter()
    rgb = read_rgb(image, repairs)
    regions, mpp = read_regions(xml, repairs)
    labels, types = labels_of_polygons(
        [[ring] for ring in regions], np.full(len(regions), -1, np.int64), rgb, xml, repairs
    )
    return LabelledImage(
        xml.stem, rgb, labels, types, mpp=mpp or card.mpp, classes=card.classes, source=card.name, repairs=repairs
    )


def read_regions(xml: Path, repairs: Counter[str]) -> tuple[list[Float64], float | None]:
    """Outlines of all regions, and microns per pixel if the file says so. Regions of fewer than three vertices
    (clicks) are dropped and counted."""
    try:
        tree = ElementTree.parse(xml).getroot()
        rings = [
            np.array([[float(vertex.attrib[axis]) for axis in "XY"] for vertex in region.iter("Vertex")]).reshape(
                -1, 2
            )
            for region in tree.iter("Region")
        ]
        mpp = float(tree.attrib.get("MicronsPerPixel") or 0) or None
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(xml, f"is not an ImageScope annotation ({error!r})", "export it again") from error
    kept = [ring for ring in rings if len(ring) >= 3]
    if len(kept) < len(rings):
        repairs["outlines under three vertices (dropped)"] += len(rings) - len(kept)
    return kept, mpp
