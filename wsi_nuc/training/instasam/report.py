"""What the user sees of a training from dots: how many held-back dots are found, whether more dots would help, and
a sheet of pseudo-labels with what was ignored."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import wsi_nuc
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import predict_table
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.rings import Rings
from wsi_nuc.training.instasam.config import InstaSamConfig
from wsi_nuc.training.instasam.first import Dotted, pseudo_labels
from wsi_nuc.training.instasam.pseudo import IGNORED
from wsi_nuc.training.instasam.start import prompted_net
from wsi_nuc.types import Bool, Box, UInt8

REPORT, SHEET = "report.html", "labels.png"
CELL_PX, MOST_CELLS = 256, 6
WIDTH, HEIGHT = 320, 120
# What is drawn over pixels that are ignored, and why they are.
UNCERTAIN, CLAIMED, UNKNOWN = (60, 120, 255), (255, 60, 60), (150, 150, 150)
OUTLINE, DOT = (0, 255, 255), (255, 255, 0)


@dataclass(frozen=True, slots=True)
class Dots:
    """How a model does on dots that it has not seen."""

    found: int
    """Dots inside a nucleus of the model."""
    right_class: int
    """Of these, dots whose class the nucleus has."""
    with_class: int
    """Of the found ones, dots that have a class."""
    all: int

    @property
    def share(self) -> float:
        return self.found / self.all if self.all else 0.0


def dots_found(model: NucleiModel, images: Sequence[LabelledImage]) -> Dots:
    found = right = classed = total = 0
    for image in images:
        if image.points_xy is None:
            continue
        nuclei, scale = predict_table(model, image)
        height, width = image.rgb.shape[:2]
        rings = Rings(nuclei.xy / scale, nuclei.offsets)
        labels = rings.fill(np.arange(1, len(rings) + 1), Box(0, 0, width, height))
        x, y = np.floor(image.points_xy).astype(np.int64).T
        hit = labels[y, x]
        kinds = np.full(len(hit), -1) if image.point_types is None else image.point_types
        given = np.append(-1, nuclei.class_id)[hit]
        found, total = found + int((hit > 0).sum()), total + len(hit)
        classed += int(((hit > 0) & (kinds >= 0)).sum())
        right += int(((hit > 0) & (kinds >= 0) & (kinds == given)).sum())
    return Dots(found, right, classed, total)


def write_report(
    config: InstaSamConfig,
    model: NucleiModel,
    dotted: Sequence[Dotted],
    held_back: Sequence[LabelledImage],
    curve: Sequence[tuple[int, Dots]],
    notes: Sequence[str],
) -> Path:
    """Write the page and the sheet. `curve`: number of dots that were trained on, and what came of it."""
    net = prompted_net(str(config.average))
    chosen = sorted(dotted, key=lambda image: -len(image.xy))[:MOST_CELLS]
    cells, shares = zip(*(_cell(net, image, config) for image in chosen), strict=True)
    sheet = np.concatenate([np.concatenate(row, 1) for row in zip(*cells, strict=True)])
    cv2.imwrite(str(config.out / SHEET), sheet[:, :, ::-1])
    by_class = [
        (name, dots_found(model, [_only(image, kind) for image in held_back]))
        for kind, name in enumerate(model.spec.classes)
    ]
    page = _template().render(
        version=wsi_nuc.__version__,
        config=config,
        found=dots_found(model, held_back),
        by_class=[(name, dots) for name, dots in by_class if dots.all],
        curve=curve,
        line=_line(curve),
        advice=_advice(curve),
        notes=notes,
        ignored=np.mean(shares, axis=0).tolist(),
        sheet=base64.b64encode((config.out / SHEET).read_bytes()).decode(),
        width=WIDTH,
        height=HEIGHT,
    )
    (config.out / REPORT).write_text(page, encoding="utf-8")
    return config.out / REPORT


def _only(image: LabelledImage, kind: int) -> LabelledImage:
    """The image with the dots of one class."""
    if image.points_xy is None or image.point_types is None:
        return replace(image, points_xy=None)
    kept = image.point_types == kind
    return replace(image, points_xy=image.points_xy[kept], point_types=image.point_types[kept])


def _cell(
    net: Any, dotted: Dotted, config: InstaSamConfig
) -> tuple[tuple[UInt8, ...], tuple[float, float, float]]:
    """Three pictures of one image (the dots, the first labels S, the labels S' of the trained network), and which
    shares of it are ignored: uncertain, claimed twice, unknown."""
    pseudo = pseudo_labels(net, dotted.image.rgb, dotted.xy, config.pseudo)
    labels, uncertain, claimed = (part[0].numpy() for part in (pseudo.labels, pseudo.uncertain, pseudo.claimed))
    unknown = np.zeros(labels.shape, np.bool_) if dotted.known is None else ~dotted.known & (labels == 0)
    plain = dotted.image.rgb.copy()
    for x, y in dotted.xy:
        cv2.circle(plain, (int(x), int(y)), 2, DOT, -1)
    first = _outlined(_tinted(dotted.image.rgb, dotted.first == IGNORED, UNCERTAIN), dotted.first)
    second = dotted.image.rgb
    for pixels, colour in ((unknown, UNKNOWN), (uncertain, UNCERTAIN), (claimed, CLAIMED)):
        second = _tinted(second, pixels, colour)
    pictures = tuple(_cut(picture, dotted) for picture in (plain, first, _outlined(second, labels)))
    return pictures, (float(uncertain.mean()), float(claimed.mean()), float(unknown.mean()))


def _tinted(rgb: UInt8, where: Bool, colour: tuple[int, int, int]) -> UInt8:
    out = rgb.copy()
    out[where] = (0.45 * rgb[where] + 0.55 * np.array(colour)).astype(np.uint8)
    return out


def _outlined(rgb: UInt8, labels: Any) -> UInt8:
    inside = np.maximum(labels, 0).astype(np.float32)
    edge = (cv2.dilate(inside, np.ones((3, 3))) != cv2.erode(inside, np.ones((3, 3)))) & (inside > 0)
    out = rgb.copy()
    out[edge] = OUTLINE
    return out


def _cut(rgb: UInt8, dotted: Dotted) -> UInt8:
    """CELL_PX x CELL_PX pixels around the middle of the dots."""
    middle = np.median(dotted.xy, axis=0) if len(dotted.xy) else np.array(rgb.shape[1::-1]) / 2
    left, top = (
        int(np.clip(at - CELL_PX / 2, 0, max(0, length - CELL_PX)))
        for at, length in zip(middle, rgb.shape[1::-1], strict=True)
    )
    cell = np.full((CELL_PX, CELL_PX, 3), 255, np.uint8)
    part = rgb[top : top + CELL_PX, left : left + CELL_PX]
    cell[: part.shape[0], : part.shape[1]] = part
    return cell


def _line(curve: Sequence[tuple[int, Dots]]) -> str:
    """The curve as the points of an SVG line."""
    most = max((dots for dots, _ in curve), default=1)
    return " ".join(f"{dots / most * WIDTH:.1f},{(1 - found.share) * HEIGHT:.1f}" for dots, found in curve)


def _advice(curve: Sequence[tuple[int, Dots]]) -> str:
    if len(curve) < 2 or not curve[-1][1].all:
        return ""
    (_, before), (_, last) = curve[-2:]
    # Two standard deviations of a share that is counted on this many dots.
    noise = 2 * (0.25 / last.all) ** 0.5
    gained = last.share - before.share
    if gained > noise:
        return "The last dots still helped: click more."
    return (
        f"The last dots made a difference of {gained:+.1%}, which {last.all} held-back dots cannot tell from "
        f"chance ({noise:.1%}): more dots of the same kind will help little. Correct what the overlay shows."
    )


def _template() -> Any:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True).get_template("report.html.jinja")
