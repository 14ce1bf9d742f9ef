"""A tiny labelled image, written in every published layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from wsi_nuc.nuclei import NucleiTable

CLASSES = ("round", "long")
# Boxes (x, y, width, height) of three nuclei, and their class indices. The picture is 48 px wide and 40 px high.
BOXES = ((4, 5, 8, 7), (20, 10, 14, 5), (6, 26, 9, 9))
TYPES = (0, 1, 0)
WIDTH, HEIGHT = 48, 40


def rgb(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def labels() -> np.ndarray:
    out = np.zeros((HEIGHT, WIDTH), np.int32)
    for i, (x, y, w, h) in enumerate(BOXES):
        out[y : y + h, x : x + w] = i + 1
    return out


def type_map() -> np.ndarray:
    return np.append(0, np.array(TYPES) + 1)[labels()].astype(np.uint8)


def rings() -> list[list[tuple[int, int]]]:
    return [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h in BOXES]


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def card(root: Path, **extra: object) -> None:
    write(root / "dataset.json", json.dumps({"classes": list(CLASSES), "mpp": 0.25, **extra}))


def plain(root: Path) -> None:
    card(root)
    save(root / "images/one.png", rgb())
    save(root / "labels/one.png", labels().astype(np.uint16))
    save(root / "types/one.png", type_map())


def points(root: Path) -> None:
    card(root)
    save(root / "images/one.png", rgb())
    rows = [f"{x + w // 2},{y + h // 2},{CLASSES[t]}" for (x, y, w, h), t in zip(BOXES, TYPES, strict=True)]
    write(root / "points/one.csv", "\n".join(["x,y,class", *rows]) + "\n")


def foreground(root: Path) -> None:
    card(root)
    save(root / "images/one.png", rgb())
    save(root / "masks/one.png", ((labels() > 0) * 255).astype(np.uint8))


def mat(root: Path) -> None:
    from scipy.io import savemat

    card(root)
    save(root / "Train/Images/one.png", rgb())
    (root / "Train/Labels").mkdir()
    savemat(
        root / "Train/Labels/one.mat",
        {"inst_map": labels().astype(float), "type_map": type_map().astype(float)},
    )


def tnbc(root: Path) -> None:
    card(root)
    save(root / "Slide_01/one.png", rgb())
    save(root / "GT_01/one.png", ((labels() > 0) * 255).astype(np.uint8))


def imagescope(root: Path) -> None:
    regions = "".join(
        "<Region><Vertices>" + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ring) + "</Vertices></Region>"
        for ring in rings()
    )
    text = (
        f'<Annotations MicronsPerPixel="0.25"><Annotation><Regions>{regions}</Regions></Annotation></Annotations>'
    )
    write(root / "train/Annotations/one.xml", text)
    save(root / "train/Tissue Images/one.tif", rgb())


def geojson(root: Path) -> None:
    card(root)
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            "properties": {"objectType": "detection", "classification": {"name": CLASSES[t]}},
        }
        for ring, t in zip(rings(), TYPES, strict=True)
    ]
    write(root / "one.geojson", json.dumps({"type": "FeatureCollection", "features": features}))
    save(root / "one.png", rgb())


def results(root: Path, nuclei: int = len(BOXES)) -> None:
    from wsi_nuc.store.folders import made_folder
    from wsi_nuc.store.nuclei_columns import NucleiWriter
    from wsi_nuc.store.zarrfile import ZarrFolder

    card(root)
    save(root / "one.png", rgb())
    n = len(BOXES)
    certain, xy = np.ones(n, np.float32), np.array(rings(), float).reshape(-1, 2)
    table = NucleiTable(
        xy=xy,
        offsets=np.arange(n + 1) * 4,
        prompt_xy=np.zeros((n, 2)),
        score=certain,
        prompt_score=certain,
        predicted_iou=certain,
        class_probs=np.eye(len(CLASSES), dtype=np.float32)[list(TYPES)],
        tile=np.zeros(n, np.int64),
    )
    folder = ZarrFolder(made_folder(root) / "one.png.zarr")
    with NucleiWriter(
        folder, CLASSES, 0.25, lambda tiles: np.tile([0.0, 0, WIDTH, HEIGHT], (len(tiles), 1))
    ) as writer:
        writer.append(table.select(np.arange(nuclei)))
        writer.finish(1.0)


def pannuke(root: Path, classes: int = len(CLASSES)) -> None:
    """Three folds of the same two images of 48 x 40; the second image is empty."""
    card(root, reader="pannuke")
    channels = np.zeros((2, HEIGHT, WIDTH, classes + 1))
    for i, (x, y, w, h) in enumerate(BOXES):
        channels[0, y : y + h, x : x + w, TYPES[i]] = 10 * (i + 1)
    channels[..., -1] = channels[..., :-1].sum(axis=-1) == 0
    for fold in (1, 2, 3):
        images, masks = root / f"Fold {fold}/images/fold{fold}", root / f"Fold {fold}/masks/fold{fold}"
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        np.save(images / "images.npy", np.stack([rgb(), rgb(1)]).astype(float))
        np.save(images / "types.npy", np.array(["Breast", "Colon"]))
        np.save(masks / "masks.npy", channels)


@dataclass(frozen=True)
class Layout:
    """A layout of labelled images."""

    write: Callable[[Path], object]
    """Write the picture below a folder."""
    typed: bool = True
    """Whether it says the class of each nucleus."""


LAYOUTS: dict[str, Layout] = {
    "folder": Layout(plain),
    "mat": Layout(mat),
    "tnbc": Layout(tnbc, typed=False),
    "imagescope": Layout(imagescope, typed=False),
    "geojson": Layout(geojson),
    "results": Layout(results),
    "pannuke": Layout(pannuke),
}
