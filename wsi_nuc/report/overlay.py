"""The picture of a field: the outlines of one model or of several side by side, and what they count."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsi_nuc.datasets.sheet import COLOURS
from wsi_nuc.quality.trial import Trial
from wsi_nuc.report.pictures import SHIFT, fixed_points
from wsi_nuc.types import Box, SlideSource, UInt8

EDGE_PX, LINE_PX, GAP_PX, LETTER_PX = 900, 22, 12, 16
_INK, _PAPER = (235, 238, 245), (24, 28, 36)


def overlay(source: SlideSource, field: Box, mpp: float, trials: Sequence[Trial], workers: int) -> bytes:
    """A PNG with one picture per trial."""
    rgb = source.read(0, field).rgb
    scale = EDGE_PX / max(rgb.shape[:2])
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    plain = np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8)
    words = [_words(trial, field, mpp, workers) for trial in trials]
    head = LINE_PX * max(map(len, words)) + GAP_PX
    width = len(trials) * (plain.shape[1] + GAP_PX) - GAP_PX
    page = Image.new("RGB", (width, plain.shape[0] + head), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(LETTER_PX)
    for number, (trial, lines) in enumerate(zip(trials, words, strict=True)):
        left = number * (plain.shape[1] + GAP_PX)
        page.paste(Image.fromarray(_outlined(plain, trial, field, scale)), (left, head))
        for row, (colour, text) in enumerate(lines):
            top = GAP_PX // 2 + row * LINE_PX
            if colour is not None:
                draw.rectangle((left + 6, top + 5, left + 18, top + 17), fill=colour)
            draw.text((left + (26 if colour is not None else 6), top), text, fill=_INK, font=font)
    packed = BytesIO()
    page.save(packed, "PNG")
    return packed.getvalue()


def _words(trial: Trial, field: Box, mpp: float, workers: int) -> list[tuple[tuple[int, int, int] | None, str]]:
    """Colour of a square before the line, if any, and the line."""
    um = (field.x1 - field.x0) * mpp
    middle = f"{(field.x0 + field.x1) // 2},{(field.y0 + field.y1) // 2}"
    where = f"{um:.0f} um around {middle}"
    lines: list[tuple[tuple[int, int, int] | None, str]] = [
        (None, f"{trial.model}: {len(trial.nuclei):,} nuclei, {where}"),
        (None, f"whole slide: {in_words(trial.slide_seconds(workers))} with {workers} worker(s)"),
    ]
    counted = enumerate(trial.counts.items())
    return lines + [(COLOURS[i % len(COLOURS)], f"{name} {count:,}") for i, (name, count) in counted]


def in_words(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _outlined(plain: UInt8, trial: Trial, field: Box, scale: float) -> UInt8:
    picture = plain.copy()
    corner = np.array([field.x0, field.y0])
    nuclei = trial.nuclei
    for row, kind in enumerate(nuclei.class_id.tolist()):
        points = fixed_points((nuclei.ring(row) - corner) * scale)
        cv2.polylines(picture, [points], True, COLOURS[kind % len(COLOURS)], 2, cv2.LINE_AA, SHIFT)
    return picture
