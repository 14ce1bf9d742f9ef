"""How pixels look, in five numbers, and whether training images looked like that too.

A model is only known to work on images like those it was trained on. The numbers are chosen so that each can be
put in a word: too pale, too dark, another hue, no contrast, blurred.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np

from wsi_nuc.types import Float64, UInt8

NAMES = ("density", "red share", "blue share", "contrast", "sharpness")
WORDS = {
    "density": ("paler", "darker"),
    "red share": ("redder", "bluer"),
    "blue share": ("bluer or greener", "yellower or browner"),
    "contrast": ("flatter", "harsher"),
    "sharpness": ("blurred", "noisier"),
}
STAINED = 0.08  # optical density; below lies the glass
LEAST_STAINED = 0.02  # share of a tile; with less there is nothing to judge
# Median areas in um2. They were 8 to 66 on 60 images of known resolution, by the default and the classical model.
# With half of the true um per pixel, two of three were below that by the default model.
USUAL_MEDIAN_UM2 = (8.0, 120.0)
FEWEST_NUCLEI = 10
COARSER, MUCH_COARSER = 1.5, 3.0  # scans by which factor are noted, and doubted
# Of many training images, this percentage at either end is left out, since odd images say little about the rest.
MANY_IMAGES, ODD_PERCENT, SLACK, SLACK_OF_MANY = 100, 1.0, 1.2, 1.05
_DENSITY = -np.log10((np.arange(256) + 1) / 256).astype(np.float32)

Limits = Mapping[str, tuple[float, float]]


def looks_of(rgb: UInt8) -> tuple[float, ...] | None:
    """The numbers of `NAMES` of an H x W x 3 tile, four decimals each; None where nearly all of it is glass.

    Density: mean optical density of the stained pixels. Red share, blue share: of the sum of the three channels.
    Contrast: standard deviation of the density. Sharpness: mean second difference of the density, divided by the
    contrast.
    """
    density = _DENSITY[rgb]
    grey = density.mean(2)
    stained = grey > STAINED
    if stained.mean() < LEAST_STAINED:
        return None
    channels = density[stained].mean(0, dtype=np.float64)
    total = max(float(channels.sum()), 1e-6)
    contrast = float(grey[stained].std(dtype=np.float64))
    edges = np.abs(cv2.Laplacian(grey, cv2.CV_32F))[stained]
    sharpness = float(edges.mean(dtype=np.float64)) / max(contrast, 1e-3)
    values = (total / 3, channels[0] / total, channels[2] / total, contrast, sharpness)
    return tuple(round(float(value), 4) for value in values)


def domain_of(images: Iterable[UInt8]) -> dict[str, tuple[float, float]]:
    """How images (each H x W x 3) look, as a model file says it of its training images."""
    looks = (looks_of(rgb) for rgb in images)
    return limits_of([numbers for numbers in looks if numbers is not None])


def limits_of(looks: Sequence[tuple[float, ...]]) -> dict[str, tuple[float, float]]:
    """The range of each number over the training images, a little widened on both sides. A few images are taken as
    they are; of many, the oddest at either end are left out."""
    table, many = np.array(looks), len(looks) >= MANY_IMAGES
    odd, slack = (ODD_PERCENT, SLACK_OF_MANY) if many else (0.0, SLACK)
    lows, highs = np.percentile(table, (odd, 100 - odd), axis=0)
    return {
        name: (round(float(low / slack), 4), round(float(high * slack), 4))
        for name, low, high in zip(NAMES, lows, highs, strict=True)
    }


def unlike(looks: Sequence[tuple[float, ...]], limits: Limits) -> list[str]:
    """How the tiles of a slide differ from the training images, in words. Empty where they do not differ or where
    nothing is known. The median over the tiles counts, so a pen mark or a fold does not."""
    if not looks or not limits:
        return []
    middle: Float64 = np.median(np.array(looks), axis=0)
    differences = []
    for name, value in zip(NAMES, middle, strict=True):
        low, high = limits[name]
        if not low <= value <= high:
            word = WORDS[name][int(value > high)]
            differences.append(f"{word} ({name} {value:.2f}, training images {low:.2f} to {high:.2f})")
    return differences


def enlarged(mpp: float, model_mpp: float, model: str) -> str:
    """What to say of a scan that is coarser than what a model works at; "" for one that is not."""
    if mpp < COARSER * model_mpp:
        return ""
    times = f"the scan has {mpp:.3g} um per pixel and was enlarged {mpp / model_mpp:.2g} times for {model}"
    return f"{times}, which works at {model_mpp:g}: small and crowded nuclei are less certain"


def implausible_size(median_um2: float, nuclei: int) -> str:
    """Why the areas of these nuclei can hardly be right; "" if nothing speaks against them. Fewer than
    `FEWEST_NUCLEI` say nothing."""
    low, high = USUAL_MEDIAN_UM2
    if nuclei < FEWEST_NUCLEI or low <= median_um2 <= high:
        return ""
    fine = "fine" if median_um2 < low else "coarse"
    sizes = f"the median area of {nuclei:,} nuclei is {median_um2:.3g} um2, usual are {low:g} to {high:g} um2"
    return f"{sizes}: the resolution may be too {fine}, or these are not nuclei"
