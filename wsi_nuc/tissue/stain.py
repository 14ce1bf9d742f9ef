"""Where an overview shows stained tissue: colour rather than darkness, because dust, edges and shadows are grey.

All of it works in optical density, ``od = -log10(rgb / white)``, where stain adds up and the lamp cancels out.
H&E absorbs green most, inks absorb red (blue, green ink) or all but red, black ink and scanner fill everything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wsi_nuc.tissue.masks import blurred, extremes, grown, without_specks
from wsi_nuc.types import Bool, Float32, Overview, UInt8

# Six grey levels between the channels of near-white: half of what pale eosin shows, twice a lamp's colour cast.
FAINTEST_CHROMA = 0.012
INK_SMALLEST_MM2 = 0.02
INK_FRINGE_UM = 150.0
BLACK = 60
SMOOTH_UM = 12.0
INK_SMOOTH_UM = 4.0
DARK_SIGNAL = 8
# Brown as of DAB: the optical density of blue is at least this many times that of green, and of red. Of 700
# patches of H&E, one of the spleen has the most such pixels, 1.2 %; an immunostain of many positive cells has
# 80 %.
BROWN_OVER_GREEN, BROWN_OVER_RED = 1.2, 1.5
LEAST_BROWN = 0.02
STAINED_OD = 0.12
BRIGHT_FIELD, DARK_FIELD = "bright field", "dark field"


def stained(view: Overview) -> tuple[Bool, str]:
    """Mask of pixels with stain or, on a dark field, with signal, and the name of the method."""
    if _is_dark_field(view.rgb):
        return _dark_field(view), DARK_FIELD
    return _bright_field(view), BRIGHT_FIELD


def optical_density(rgb: UInt8) -> Float32:
    """H x W x 3; 0 for the slide's own white and what is brighter."""
    table = -np.log10(np.maximum(np.arange(256, dtype=np.float32)[:, None], 1) / white_point(rgb))
    table = np.maximum(table, 0).astype(np.float32)
    return np.stack([table[rgb[..., channel], channel] for channel in range(3)], axis=-1)


def white_point(rgb: UInt8) -> Float32:
    """The lamp's colour: the median of the brightest pixels that no stain can have; a neutral one if none are."""
    pixels = rgb.reshape(-1, 3)[:: max(1, rgb.size // 3_000_000)]
    low, high = extremes(pixels)
    green_dip = np.minimum(pixels[:, 0], pixels[:, 2]).astype(np.int16) - pixels[:, 1]
    plain = pixels[(high >= 200) & (high - low < 45) & (green_dip < 8)]
    if len(plain) < 0.005 * len(pixels):
        return np.full(3, 245, np.float32)
    brightness = plain.mean(axis=1)
    # Above the 60th percentile: pale tissue may be most of the plain pixels, but never the brightest of them.
    white: Float32 = np.median(plain[brightness >= np.percentile(brightness, 60)], axis=0).astype(np.float32)
    return white


def brown_share(rgb: UInt8) -> float:
    """The share of the stained pixels (H x W x 3) that are brown as DAB is; 0 where nothing is stained."""
    od = optical_density(rgb)
    red, green, blue = od[od.mean(axis=2) > STAINED_OD].T
    brown = (blue > BROWN_OVER_GREEN * green) & (blue > BROWN_OVER_RED * red)
    return float(brown.mean()) if brown.size else 0.0


def _bright_field(view: Overview) -> Bool:
    od = optical_density(view.rgb)
    hidden = _inked(view, od) | view.unknown
    od[hidden] = 0
    chroma, density = _chroma_density(blurred(od, SMOOTH_UM / view.um_per_px))
    threshold = _threshold(chroma[(density < 0.1) & ~hidden])
    return np.asarray((chroma > threshold) & (chroma > 0.2 * density) & ~hidden)


def _chroma_density(od: Float32) -> tuple[Any, Any]:
    """How much the channels differ, and their mean."""
    low, high = extremes(od)
    return high - low, (od[..., 0] + od[..., 1] + od[..., 2]) / np.float32(3)


def _threshold(pale_chroma: Float32) -> float:
    """Above the background's most frequent chroma by a fixed least step, or by four times its spread if more.

    The spread is that below the peak: above it, pale tissue would be taken for noise.
    """
    counts, edges = np.histogram(pale_chroma, bins=50, range=(0, 0.1))
    if counts.sum() == 0:
        return FAINTEST_CHROMA
    peak = min(float(edges[int(counts.argmax())] + edges[1] / 2), FAINTEST_CHROMA)
    below = peak - pale_chroma[pale_chroma < peak]
    spread = float(np.sqrt(np.mean(below**2))) if below.size else 0.0
    return peak + max(FAINTEST_CHROMA, 4 * spread)


def _inked(view: Overview, od_sharp: Float32) -> Bool:
    """Pen marks of any colour with their fringes, and black fill."""
    od = blurred(od_sharp, INK_SMOOTH_UM / view.um_per_px)
    sharp_black = extremes(view.rgb)[1] < BLACK
    ink = sharp_black.copy()
    smallest_px = INK_SMALLEST_MM2 * 1e6 / view.um_per_px**2
    for seeds, fringe in _ink_colours(od, sharp_black):
        kept = without_specks(seeds, smallest_px)
        if kept.any():
            ink |= kept | (fringe & grown(kept, INK_FRINGE_UM / view.um_per_px))
    return ink


def _ink_colours(od: Float32, black: Bool) -> list[tuple[Bool, Bool]]:
    """For black, blue, green and red ink: pixels that are nothing else, and pixels that may be its fringe."""
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    chroma, density = _chroma_density(od)
    dip = np.minimum(red, blue) - green
    bluish, reddish = red > 1.18 * green, (blue > 0.75 * green) & (red < 0.35 * green)
    return [
        (black | ((density > 0.35) & (chroma < 0.25 * density)), (density > 0.05) & (chroma < 0.3 * density)),
        (bluish & (chroma > 0.45), (red > 1.08 * green) & (chroma > 0.02)),
        ((dip > 0.12) & (density > 0.15), (dip > 0.01)),
        (reddish & (chroma > 0.6), reddish & (chroma > 0.1)),
    ]


def _is_dark_field(rgb: UInt8) -> bool:
    """Mostly black, and what is not black is dim or of pure colours: black fill around a section is not that."""
    low, high = extremes(rgb)
    lit = high >= 50
    return bool(lit.mean() < 0.5 and lit.any() and np.median(low[lit]) < 80)


def _dark_field(view: Overview) -> Bool:
    """Signal above the background's own level; noise of a blank slide stays below the least step."""
    signal = blurred(extremes(view.rgb)[1].astype(np.float32), SMOOTH_UM / view.um_per_px)
    background, spread = np.percentile(signal, 10), np.percentile(signal, 10) - np.percentile(signal, 1)
    return np.asarray(signal > background + max(DARK_SIGNAL, 4 * float(spread))) & ~view.unknown
