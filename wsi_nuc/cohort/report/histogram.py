"""What a histogram shows, in shares of its width and height; the template draws it as SVG."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_nuc.cohort.report.outliers import Figure
from wsi_nuc.types import Float64

BINS = 32
WIDTH, HEIGHT, FOOT = 320, 110, 18
# From this ratio of the largest to the smallest value on, the axis is logarithmic.
WIDE = 10.0


@dataclass(frozen=True, slots=True)
class Histogram:
    bars: list[tuple[float, float]]
    """Where each bar that is not empty begins, and its height as a share of the highest."""
    step: float
    """How wide a bar is."""
    middle: float
    """Where the line of the median is."""
    log: bool
    """Whether the axis is logarithmic."""
    slides: int
    least: float
    median: float
    most: float


def histogram(figure: Figure, values: Float64) -> Histogram:
    """`values`: at least one, all finite; positive where the figure spreads by factors."""
    wide = bool(figure.log and values.max() > WIDE * values.min())
    scaled = np.log10(values) if wide else values
    low, high = float(scaled.min()), float(scaled.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(scaled, BINS, (low, high))
    most = max(1, int(counts.max()))
    return Histogram(
        bars=[(i / BINS, count / most) for i, count in enumerate(counts.tolist()) if count],
        step=1 / BINS,
        middle=(float(np.median(scaled)) - low) / (high - low),
        log=wide,
        slides=len(values),
        least=float(values.min()),
        median=float(np.median(values)),
        most=float(values.max()),
    )
