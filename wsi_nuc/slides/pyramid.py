"""Which images of a file form its pyramid, and the downsample of each level."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.limits import check_size
from wsi_nuc.types import Level

Size = tuple[int, int]
ASPECT_TOLERANCE = 0.01


def downsample(base: Size, size: Size) -> float:
    """Level-0 pixels per pixel of a level of `size`.

    A scanner shrinks by a whole factor and rounds the size to whole pixels, so the ratio of the sizes is slightly
    off the true factor. 4443 -> 2221 is a factor of 2, not 2.0005, which would be 4 px off at the far edge of a
    slide of 16,000 px. The factor is therefore whole if it explains both sizes by rounding down or up; being close
    to a whole number is not enough. Otherwise it is the mean ratio.
    """
    ratio = (base[0] / size[0] + base[1] / size[1]) / 2
    whole = max(1, round(ratio))
    if all(side in (full // whole, -(-full // whole)) for full, side in zip(base, size, strict=True)):
        return float(whole)
    return max(1.0, ratio)


def same_picture(base: Size, size: Size) -> bool:
    """Whether a smaller image of `size` has the aspect of `base`, within a pixel or 1 %."""
    scale = max(base[0] / size[0], base[1] / size[1])
    fits = (base[0] / scale, base[1] / scale)
    return all(
        abs(want - side) <= max(1.0, ASPECT_TOLERANCE * side) for want, side in zip(fits, size, strict=True)
    )


def select_levels(name: str, sizes: Sequence[Size]) -> tuple[list[int], tuple[Level, ...]]:
    """Indices of the images that are levels, largest first, and their `Level`s.

    The first image is level 0. Smaller images with its aspect follow, in descending size. A thumbnail, label or
    macro image with another aspect is dropped.
    """
    if not sizes:
        raise SlideError(name, "holds no image", "check that the file is a slide")
    base = sizes[0]
    check_size(name, *base)
    kept: list[int] = []
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i][0] * sizes[i][1], i))
    for index in order:
        width, height = sizes[index]
        last = sizes[kept[-1]] if kept else (width + 1, height + 1)
        if min(width, height) > 0 and width < last[0] and height <= last[1] and same_picture(base, sizes[index]):
            kept.append(index)
    return kept, tuple(Level(*sizes[i], downsample(base, sizes[i])) for i in kept)
