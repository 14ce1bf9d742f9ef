"""Unlabelled tissue: the slides of a folder, cut into fields. `reader: slides` asks for it; nothing detects it.

A slide is left out with a warning if it cannot be opened, is not stained tissue on glass, or does not say its
microns per pixel.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import shapely

from wsi_nuc.datasets.cards import Card
from wsi_nuc.datasets.record import Entry, LabelledImage
from wsi_nuc.errors import WsiNucError
from wsi_nuc.slides.mpp import require_mpp
from wsi_nuc.slides.overview import overview
from wsi_nuc.slides.pixels import read_around
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.tissue.find import find_tissue
from wsi_nuc.tissue.stain import DARK_FIELD
from wsi_nuc.types import Box, SlideRef

FIELD_UM = 150.0
LEAST_TISSUE = 0.5  # share of a field
COARSEST_MPP = 0.6  # coarser slides show too little of a nucleus

_log = logging.getLogger(__name__)


def recognises(root: Path) -> bool:
    return False


def entries(root: Path, card: Card) -> list[Entry]:
    return [entry for path in sorted(root.iterdir()) if path.is_file() for entry in _fields(path)]


def _fields(path: Path) -> Iterator[Entry]:
    ref = SlideRef(str(path))
    try:
        source = open_slide(ref)
        mpp = require_mpp(source.info)
        if mpp > COARSEST_MPP:
            raise ValueError(f"it has {mpp:g} um per pixel, and tissue to learn from at most {COARSEST_MPP:g}")
        tissue = find_tissue(overview(source, mpp))
        if tissue.method.startswith(DARK_FIELD):
            raise ValueError("it is bright on a dark ground")
    except (WsiNucError, ValueError) as error:
        _log.warning("%s is left out: %s", path.name, error)
        return
    edge = round(FIELD_UM / mpp)
    for y in range(0, source.info.height - edge + 1, edge):
        for x in range(0, source.info.width - edge + 1, edge):
            inside = shapely.intersection(tissue.polygons, shapely.box(x, y, x + edge, y + edge)).area
            if inside >= LEAST_TISSUE * edge * edge:
                box = Box(x, y, x + edge, y + edge)
                yield Entry(f"{path.stem}-{x}-{y}", partial(_read, ref, box, mpp, path.stem), group=path.stem)


def _read(ref: SlideRef, box: Box, mpp: float, slide: str) -> LabelledImage:
    block = read_around(open_slide(ref), 0, box)
    return LabelledImage(f"{slide}-{box.x0}-{box.y0}", np.ascontiguousarray(block.rgb), mpp=mpp, source=slide)
