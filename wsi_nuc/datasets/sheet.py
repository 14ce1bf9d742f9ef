"""An overlay sheet to look at: labelled images with their outlines, points and foreground drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wsi_nuc.datasets.record import DataError, LabelledImage
from wsi_nuc.types import Bool, UInt8

CELL_PX, TITLE_PX, COLUMNS = 384, 30, 4
# Colours that stand out from pink and purple, by class.
COLOURS = (
    (0, 255, 255),
    (255, 255, 0),
    (0, 230, 0),
    (255, 140, 0),
    (255, 255, 255),
    (90, 160, 255),
    (255, 60, 60),
)
NO_CLASS = (140, 255, 200)


def draw_sheet(images: Sequence[LabelledImage], path: Path) -> None:
    """Draw a cell per image, with the image's middle at twice its size, and write the sheet as PNG."""
    if not images:
        raise DataError(path, "there is no readable image to draw", "mend the broken ones first")
    rows = -(-len(images) // COLUMNS)
    width, height = max(2, min(len(images), COLUMNS)) * CELL_PX, rows * (CELL_PX + TITLE_PX) + TITLE_PX
    sheet = Image.new("RGB", (width, height), (32, 32, 32))
    for i, image in enumerate(images):
        x, y = i % COLUMNS * CELL_PX, i // COLUMNS * (CELL_PX + TITLE_PX)
        sheet.paste(Image.fromarray(overlay(image)), (x, y + TITLE_PX))
        nuclei = "foreground only" if image.count is None else f"{image.count} nuclei"
        ImageDraw.Draw(sheet).text(
            (x + 4, y + 3), f"{image.id[-44:]}\n{nuclei}  {image.split}", fill=(255, 255, 255)
        )
    _legend(sheet, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _legend(sheet: Image.Image, images: Sequence[LabelledImage]) -> None:
    draw, x = ImageDraw.Draw(sheet), 6
    shown = dict.fromkeys(
        [(name, _colour(i)) for image in images for i, name in enumerate(image.classes)]
        + [
            (f"+ {name}", _colour(i))
            for image in images
            for i, name in enumerate(image.point_classes)
            if image.points_xy is not None
        ]
    )
    foreground = [("foreground", COLOURS[0])] if any(image.foreground is not None for image in images) else []
    for name, colour in [*shown, *foreground, ("no class", NO_CLASS)]:
        draw.rectangle((x, sheet.height - 20, x + 12, sheet.height - 8), fill=colour, outline=(255, 255, 255))
        draw.text((x + 18, sheet.height - 20), name, fill=(255, 255, 255))
        x += 34 + int(draw.textlength(name))


def _colour(kind: int) -> tuple[int, int, int]:
    return COLOURS[kind % len(COLOURS)] if kind >= 0 else NO_CLASS


def overlay(image: LabelledImage) -> UInt8:
    """CELL_PX x CELL_PX x 3: a window of the image at twice its size, with outlines inside of the nuclei."""
    half = CELL_PX // 2
    left, top = _corner(image, half)
    window = (slice(top, top + half), slice(left, left + half))
    canvas = np.zeros((CELL_PX, CELL_PX, 3), np.uint8)
    crop = _twice(image.rgb[window])
    if image.foreground is not None:
        crop[_borders(_twice(image.foreground[window].astype(np.int32)))] = COLOURS[0]
    if image.instances is not None:
        ids = _twice(image.instances[window])
        # Entry 0 is the background; ids without a class share one colour.
        kinds = (
            np.full(image.instances.max(initial=0) + 1, -1) if image.types is None else np.append(-1, image.types)
        )
        edge = _borders(ids)
        crop[edge] = np.array([_colour(int(k)) for k in kinds], np.uint8)[ids[edge]]
    canvas[: crop.shape[0], : crop.shape[1]] = crop
    return _with_points(canvas, image, left, top)


def _corner(image: LabelledImage, side: int) -> tuple[int, int]:
    """x, y of a window within the image, around the nucleus that is nearest to the image's middle."""
    size = np.array(image.rgb.shape[1::-1])
    xy = np.zeros((0, 2)) if image.points_xy is None else image.points_xy
    labelled = image.instances if image.instances is not None else image.foreground
    if labelled is not None:
        xy = np.vstack([xy, np.argwhere(labelled)[:, ::-1]])
    middle = xy[((xy - size / 2) ** 2).sum(axis=1).argmin()] if len(xy) else size / 2
    left, top = (int(v) for v in np.clip(middle - side / 2, 0, np.maximum(size - side, 0)))
    return left, top


def _twice(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def _borders(ids: npt.NDArray[np.generic]) -> Bool:
    """Pixels of a nucleus with a neighbour outside of it."""
    edge = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        differs = np.diff(ids, axis=axis) != 0
        after, before = [slice(None)] * 2, [slice(None)] * 2
        after[axis], before[axis] = slice(1, None), slice(None, -1)
        edge[tuple(after)] |= differs
        edge[tuple(before)] |= differs
    return np.asarray(edge & (ids != 0))


def _with_points(canvas: UInt8, image: LabelledImage, left: int, top: int) -> UInt8:
    if image.points_xy is None:
        return canvas
    drawn = Image.fromarray(canvas)
    draw = ImageDraw.Draw(drawn)
    types = np.full(len(image.points_xy), -1) if image.point_types is None else image.point_types
    for (x, y), kind in zip((image.points_xy - (left, top)) * 2, types, strict=True):
        if 0 <= x < CELL_PX and 0 <= y < CELL_PX:
            draw.line((x - 4, y, x + 4, y), fill=_colour(int(kind)), width=2)
            draw.line((x, y - 4, x, y + 4), fill=_colour(int(kind)), width=2)
    return np.asarray(drawn)
