"""This program's results as labels, corrected or as they are: `NAME.zarr` (or `.zarr.zip`) beside the image NAME.

This is a reader of `wsi_nuc.datasets`, whose registry names it. It lies here because it opens slides and stores.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.datasets.cards import Card
from wsi_nuc.datasets.labels import class_index, labels_of_polygons
from wsi_nuc.datasets.record import DataError, Entry, LabelledImage
from wsi_nuc.safezip import SUFFIX, contents, flaw_of, for_arrow
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store import manifest
from wsi_nuc.store.layout import NUCLEI_SHAPES, PARQUET
from wsi_nuc.types import SlideRef

SHAPES = f"{NUCLEI_SHAPES}/{PARQUET}"
LARGEST_PX = 100_000_000


def recognises(root: Path) -> bool:
    return bool(_stores(root))


def _stores(root: Path) -> list[Path]:
    folders = [path.parents[2] for path in root.glob(f"*.zarr/{SHAPES}")]
    return sorted([*folders, *filter(_has_shapes, root.glob(f"*{SUFFIX}"))])


def _has_shapes(packed: Path) -> bool:
    """A file that cannot be opened counts as a result too, so that its reader reports what is wrong."""
    return bool(flaw_of(packed)) or (contents(packed) / SHAPES).is_file()


def entries(root: Path, card: Card) -> list[Entry]:
    stores = _stores(root)
    if not card.classes:
        # In the order of the model that wrote them, with the classes that have no nuclei.
        names = dict.fromkeys(name for store in stores for name in _classes(_read(store)))
        card = replace(card, classes=tuple(names))
    listed = []
    for store in stores:
        name = store.name.removesuffix(".zip").removesuffix(".zarr")
        image = next((path for path in (root / name, root / "images" / name) if path.is_file()), None)
        if image is None:
            raise DataError(
                store, f"the image {name} is neither beside it nor in images/", "copy or link it there"
            )
        listed.append(Entry(name, partial(load, store, image, card), name))
    return listed


def load(store: Path, image: Path, card: Card) -> LabelledImage:
    """Pixels and nuclei of the whole image, which must therefore be of moderate size."""
    import shapely

    repairs: Counter[str] = Counter()
    source = open_slide(SlideRef(str(image)))
    info = source.info
    try:
        if info.box_l0.area > LARGEST_PX:
            raise DataError(
                image, f"has {info.box_l0.area / 1e6:.0f} Mpx, {LARGEST_PX / 1e6:.0f} at most", "label crops of it"
            )
        block = source.read(0, info.box_l0)
    finally:
        source.close()
    table = _read(store)
    polygons = np.asarray(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)), object)
    names = table["class"].to_pylist()
    kinds = np.array([class_index(name or "", card.classes, store) for name in names], np.int64)
    rings = [[shapely.get_coordinates(ring) for ring in shapely.get_rings(polygon)] for polygon in polygons]
    labels, types = labels_of_polygons(rings, kinds, block.rgb, store, repairs)
    return LabelledImage(
        image.name,
        block.rgb,
        labels,
        types,
        mpp=_mpp(store) or info.mpp or card.mpp,
        classes=card.classes,
        source=card.name,
        repairs=repairs,
    )


def _read(store: Path) -> Any:
    import pyarrow
    import pyarrow.parquet as pq

    path = contents(store) / SHAPES
    try:
        return pq.read_table(for_arrow(path), columns=["class", "geometry"])
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise DataError(path, f"cannot be read ({error})", "check the result with `wsi-nuc verify`") from error


def _classes(table: Any) -> list[str]:
    import pyarrow

    column = table["class"].combine_chunks()
    if isinstance(column, pyarrow.ChunkedArray):  # of a table without rows
        return []
    named = column.dictionary if pyarrow.types.is_dictionary(column.type) else column.unique().sort()
    return [name for name in named.to_pylist() if name]


def _mpp(store: Path) -> float | None:
    """As the manifest says; None without a manifest. A manifest that was changed afterwards is an error."""
    document, problem = manifest.load(store)
    path = contents(store) / manifest.MANIFEST
    if problem and path.is_file():
        raise DataError(path, problem, "run the slide again")
    mpp = document.get("slide", {}).get("mpp")
    return float(mpp) if isinstance(mpp, int | float) else None
