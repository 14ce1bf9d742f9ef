"""A histogram as SVG text: no library, no script, sharp on every screen."""

from __future__ import annotations

import numpy as np

from wsi_nuc.cohort.report.outliers import Figure
from wsi_nuc.types import Float64

BINS = 32
WIDTH, HEIGHT, FOOT = 320, 110, 18
# From this ratio of the largest to the smallest value on, the axis is logarithmic.
WIDE = 10.0


def histogram(figure: Figure, values: Float64) -> str:
    """`values`: at least one, all finite; positive where the figure spreads by factors."""
    wide = figure.log and values.max() > WIDE * values.min()
    scaled = np.log10(values) if wide else values
    low, high = float(scaled.min()), float(scaled.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(scaled, BINS, (low, high))
    step, top = WIDTH / BINS, max(1, int(counts.max()))
    bars = [_bar(i * step, step, HEIGHT * count / top) for i, count in enumerate(counts.tolist()) if count]
    at = (float(np.median(scaled)) - low) / (high - low) * WIDTH
    median = f'<line class="median" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}"/>'
    ends = f"{number(float(values.min()))}", f"{number(float(values.max()))}"
    middle = f"median {number(float(np.median(values)))}{', log scale' if wide else ''}"
    foot = (
        f'<text x="0" y="{HEIGHT + 14}">{ends[0]}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 14}" text-anchor="middle">{middle}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 14}" text-anchor="end">{ends[1]}</text>'
    )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT + FOOT}"'
    return f'<svg {size} role="img">{"".join(bars)}{median}{foot}</svg>'


def _bar(x: float, width: float, height: float) -> str:
    tall = max(height, 1.0)
    return f'<rect x="{x + 0.5:.1f}" y="{HEIGHT - tall:.1f}" width="{width - 1:.1f}" height="{tall:.1f}"/>'


def number(value: float) -> str:
    """Short: three digits below a thousand, whole above."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
