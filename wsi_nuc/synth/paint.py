"""Draws the slide block by block. A block has the same pixels alone and in the whole slide.

What is drawn are densities of haematoxylin and eosin. They become RGB by the law of Beer and Lambert, with stains
that vary by slide and by place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.rings import Labels, Rings
from wsi_nuc.synth.anatomy import APICAL, BASAL, TUMOUR_LEVEL, Anatomy
from wsi_nuc.synth.noise import Fibres, Grain, smoothstep, uniform
from wsi_nuc.synth.nuclei import CLASS_OF_KIND, GLAND, REACH_UM, TUMOUR
from wsi_nuc.synth.spec import SynthSpec
from wsi_nuc.synth.truth import Visible, visible_nuclei
from wsi_nuc.types import Box, Float32, Float64, Int64, UInt8

# RGB of the empty glass. It is constant, so that all blank tiles have the same bytes.
GLASS = np.array([243, 242, 244], np.uint8)
BLOCK_PX = 1024
# By kind (gland, tumour, lymph, spindle, other): haematoxylin, and as shares of it the chromatin and the rim.
_DARK = np.array([0.95, 0.66, 1.40, 1.12, 0.85])
_CHROMATIN = np.array([0.20, 0.26, 0.22, 0.16, 0.22])
_RIM = np.array([0.25, 0.42, 0.10, 0.10, 0.25])
_BLUR_UM = 0.28
_NONE = np.zeros(0, object)
_INKS = np.array([[0.10, 0.22, 0.62], [0.06, 0.42, 0.24], [0.12, 0.12, 0.14]])


class Stain:
    """The two stain vectors (optical density per unit, RGB) and the ink of a slide."""

    def __init__(self, seed: int) -> None:
        lots = 2 * uniform(seed, 80, np.arange(12)) - 1
        self.haematoxylin = self._vector(np.array([0.66, 0.69, 0.30]) + lots[0:3] * np.array([0.07, 0.04, 0.07]))
        self.eosin = self._vector(np.array([0.09, 0.90, 0.36]) + lots[3:6] * np.array([0.06, 0.02, 0.14]))
        self.haematoxylin *= 1 + 0.15 * lots[6]
        self.eosin *= 1 + 0.2 * lots[7]
        self.ink = -np.log(_INKS[int((lots[8] + 1) / 2 * len(_INKS))])

    @staticmethod
    def _vector(raw: Float64) -> Float64:
        return np.asarray(raw / np.linalg.norm(raw))

    def rgb(self, haematoxylin: Float32, eosin: Float32, ink: Float32 | None, noise: Float32) -> UInt8:
        """The light that passes the densities. `noise` is an optical density that all channels share."""
        channels = []
        for c in range(3):
            density = haematoxylin * np.float32(-self.haematoxylin[c])
            density -= eosin * np.float32(self.eosin[c])
            density -= noise
            if ink is not None:
                density -= ink * np.float32(self.ink[c])
            channels.append(cv2.convertScaleAbs(cv2.exp(density), alpha=float(GLASS[c])))
        return np.asarray(cv2.merge(channels))


@dataclass(frozen=True, slots=True)
class Block:
    """A drawn block, and the N nuclei whose centres lie in it."""

    rgb: UInt8 | None
    """BLOCK_PX x BLOCK_PX x 3; None if there is only glass."""
    polygon: npt.NDArray[Any]
    """N: shapely polygons in level-0 pixels."""
    class_id: Int64
    """N: index into spec.CLASSES."""


@dataclass(frozen=True, slots=True)
class _Canvas:
    """The square that is drawn for a block: the block and a margin around it."""

    x0_l0: int
    """Column of its first pixel on the slide."""
    y0_l0: int
    """Row of its first pixel on the slide."""
    side_px: int
    mpp: float

    @property
    def x_um(self) -> Float64:
        """Centres of its columns."""
        return np.asarray((self.x0_l0 + np.arange(self.side_px) + 0.5) * self.mpp, np.float64)

    @property
    def y_um(self) -> Float64:
        """Centres of its rows."""
        return np.asarray((self.y0_l0 + np.arange(self.side_px) + 0.5) * self.mpp, np.float64)

    def fill(self, rings_um: Float64, blur_um: float) -> Float32:
        """A soft mask of rings (G x M x 2), from 0 to 1."""
        mask = np.zeros((self.side_px, self.side_px), np.uint8)
        points = np.round((rings_um / self.mpp - (self.x0_l0 + 0.5, self.y0_l0 + 0.5)) * 16).astype(np.int32)
        cv2.fillPoly(mask, list(points), 255, shift=4)
        soft = cv2.GaussianBlur(mask, (0, 0), max(0.5, blur_um / self.mpp))
        return np.asarray(soft.astype(np.float32) / np.float32(255))


class Painter:
    """Holds what all blocks share (fields, stains and textures), and draws blocks."""

    def __init__(self, spec: SynthSpec) -> None:
        self.spec = spec
        self.anatomy = Anatomy(spec)
        self.stain = Stain(spec.seed)
        self.margin_px = int(np.ceil(4.0 / spec.mpp)) + 4
        side = BLOCK_PX + 2 * self.margin_px
        self._chromatin = Grain(spec.seed, 1, 0.42 / spec.mpp, side)
        self._granules = Grain(spec.seed, 2, 0.7 / spec.mpp, side)
        self._sensor = Grain(spec.seed, 3, 0.5, side)
        self._fine, self._middle, self._bundle = (Fibres(spec.seed, channel) for channel in (4, 5, 6))

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows of blocks."""
        return -(-self.spec.size // BLOCK_PX), -(-self.spec.height_px // BLOCK_PX)

    def block(self, column: int, row: int) -> Block:
        margin, mpp = self.margin_px, self.spec.mpp
        canvas = _Canvas(column * BLOCK_PX - margin, row * BLOCK_PX - margin, BLOCK_PX + 2 * margin, mpp)
        x0, y0 = canvas.x0_l0 * mpp, canvas.y0_l0 * mpp
        box_um = (x0, y0, x0 + canvas.side_px * mpp, y0 + canvas.side_px * mpp)
        if self.anatomy.is_glass(box_um):
            return Block(None, _NONE, np.zeros(0, np.int64))
        drawn = visible_nuclei(self.anatomy, tuple(box_um[i] + (-REACH_UM, REACH_UM)[i // 2] for i in range(4)))  # type: ignore[arg-type]
        rgb = self._paint(canvas, drawn)[margin:-margin, margin:-margin]
        home = np.floor(drawn.origin.xy_um / (mpp * BLOCK_PX)).astype(int)
        own = drawn.select((home[:, 0] == column) & (home[:, 1] == row))
        return Block(np.ascontiguousarray(rgb), own.polygon, CLASS_OF_KIND[own.origin.kind])

    def region(self, box_l0: Box) -> UInt8:
        """Pixels of any box inside the block grid."""
        out = np.empty((box_l0.height, box_l0.width, 3), np.uint8)
        out[:] = GLASS
        for row in range(box_l0.y0 // BLOCK_PX, -(-box_l0.y1 // BLOCK_PX)):
            for column in range(box_l0.x0 // BLOCK_PX, -(-box_l0.x1 // BLOCK_PX)):
                rgb = self.block(column, row).rgb
                place = Box(0, 0, BLOCK_PX, BLOCK_PX).shift(column * BLOCK_PX, row * BLOCK_PX)
                part = place.intersect(box_l0)
                if rgb is not None:
                    inner, outer = part.shift(-place.x0, -place.y0), part.shift(-box_l0.x0, -box_l0.y0)
                    out[outer.y0 : outer.y1, outer.x0 : outer.x1] = rgb[inner.y0 : inner.y1, inner.x0 : inner.x1]
        return out

    def _paint(self, canvas: _Canvas, drawn: Visible) -> UInt8:
        x_um, y_um, side = canvas.x_um, canvas.y_um, canvas.side_px
        labels = _labels(canvas, drawn)
        near = cv2.GaussianBlur((labels > 0).astype(np.float32), (0, 0), max(0.5, 1.0 / canvas.mpp))
        haematoxylin, eosin = self._matrix(canvas, near)
        nuclear = self._nuclei(canvas, drawn, labels)
        inside = labels > 0
        haematoxylin = np.where(inside, nuclear, haematoxylin)
        eosin *= np.where(inside, np.float32(0.55), np.float32(1))
        present = self._presence(x_um, y_um)
        stain = 1 + np.float32(0.07) * self.anatomy.stain.grid(x_um, y_um)
        haematoxylin *= present * stain
        eosin *= present * (2 - stain)
        sigma_px = _BLUR_UM / canvas.mpp
        if sigma_px > 0.2:
            haematoxylin, eosin = (
                cv2.GaussianBlur(density, (0, 0), sigma_px) for density in (haematoxylin, eosin)
            )
        noise = self._sensor.window(canvas.x0_l0, canvas.y0_l0, side) * present * np.float32(0.014)
        return self.stain.rgb(haematoxylin, eosin, self._ink(canvas), noise)

    def _presence(self, x_um: Float64, y_um: Float64) -> Float32:
        """1 in tissue, 0 on glass, and soft at the coast."""
        level = self.anatomy.tissue_level
        if not np.isfinite(level):
            return np.full((len(y_um), len(x_um)), level < 0, np.float32)
        field = self.anatomy.tissue.grid(x_um, y_um)
        return np.asarray(smoothstep(field, level, level + self.anatomy.edge))

    def _matrix(self, canvas: _Canvas, near: Float32) -> tuple[Float32, Float32]:
        """Haematoxylin and eosin of everything but nuclei. `near`: 1 in nuclei, and soft around them."""
        x_um, y_um = canvas.x_um, canvas.y_um
        across, along = self.anatomy.fibre_phase(x_um, y_um), self._along(x_um, y_um)
        fine = self._fine.draw(across, along, 1.5, 22.0)
        middle = self._middle.draw(across, along, 4.2, 45.0)
        bundle = self._bundle.draw(across, along, 11.0, 95.0)
        # A crack between the bundles, but never across a nucleus, which always lies on a strand of tissue.
        cleft = smoothstep(bundle + np.float32(0.5) * middle + np.float32(0.25) * fine - 3 * near, 1.35, 2.0)
        weave = np.float32(0.07) * fine + np.float32(0.10) * middle + np.float32(0.09) * np.minimum(bundle, 1)
        eosin = (np.float32(0.43) + weave) * (1 - cleft)
        haematoxylin = np.float32(0.06) * (1 - cleft)
        granules = self._granules.window(canvas.x0_l0, canvas.y0_l0, canvas.side_px)
        tumour = smoothstep(self.anatomy.tumour.grid(x_um, y_um), TUMOUR_LEVEL - 0.06, TUMOUR_LEVEL + 0.08)
        glands = self.anatomy.glands((x_um[0], y_um[0], x_um[-1], y_um[-1]))
        body = canvas.fill(glands.ring_um(BASAL), 0.7)
        lumen = canvas.fill(glands.ring_um(APICAL), 0.9)
        cells = np.maximum(tumour, body)
        # Cytoplasm is darker between crowded nuclei and fades away from them.
        shade = (
            np.float32(0.24) + np.float32(0.16) * near + np.float32(0.045) * granules + np.float32(0.035) * middle
        )
        eosin += cells * (shade - eosin)
        haematoxylin += cells * (np.float32(0.17) + np.float32(0.03) * granules - haematoxylin)
        eosin *= 1 - np.float32(0.93) * lumen
        haematoxylin *= 1 - np.float32(0.9) * lumen
        return np.maximum(haematoxylin, 0), np.maximum(eosin, 0)

    def _along(self, x_um: Float64, y_um: Float64) -> Float32:
        heading = self.anatomy.heading
        linear = -np.sin(heading) * x_um[None, :] + np.cos(heading) * y_um[:, None]
        return np.asarray(linear.astype(np.float32) + self.anatomy.along.grid(x_um, y_um))

    def _nuclei(self, canvas: _Canvas, drawn: Visible, labels: Labels) -> Float32:
        """Haematoxylin inside nuclei: vesicular or dense, with a rim, chromatin and nucleoli."""
        kind, lots = drawn.origin.kind, drawn.origin.lots
        dark = _DARK[kind] * (0.76 + 0.36 * lots[:, 13] + 0.4 * lots[:, 13] ** 8)
        base, chromatin, rim = (
            np.concatenate([[0], column]).astype(np.float32)[labels]
            for column in (dark, dark * _CHROMATIN[kind], dark * _RIM[kind])
        )
        grain = self._chromatin.window(canvas.x0_l0, canvas.y0_l0, canvas.side_px)
        edge = np.exp(_depth_px(labels) * np.float32(-canvas.mpp / 0.55))
        density = base * np.float32(0.92) + chromatin * grain + rim * (edge * 2 - np.float32(0.5))
        density += _nucleoli(canvas, drawn)
        return np.asarray(np.maximum(density, base * np.float32(0.45)))

    def _ink(self, canvas: _Canvas) -> Float32 | None:
        side, mpp = canvas.side_px, canvas.mpp
        if not self.anatomy.ink:
            return None
        mask = np.zeros((side, side), np.uint8)
        for line, width_um in self.anatomy.ink:
            points = shapely.get_coordinates(line) / mpp - (canvas.x0_l0, canvas.y0_l0)
            cv2.polylines(mask, [np.round(points).astype(np.int32)], False, 255, max(1, int(width_um / mpp)))
        if not mask.any():
            return None
        soft = cv2.GaussianBlur(mask, (0, 0), max(0.5, 1.5 / mpp)).astype(np.float32) / 255
        grain = self._granules.window(canvas.x0_l0, canvas.y0_l0, side)
        return np.asarray(soft * (np.float32(0.9) + np.float32(0.05) * grain))


def _labels(canvas: _Canvas, drawn: Visible) -> Labels:
    box_l0 = Box(0, 0, canvas.side_px, canvas.side_px).shift(canvas.x0_l0, canvas.y0_l0)
    return Rings.of_polygons(drawn.polygon).fill(np.arange(1, len(drawn) + 1), box_l0)


def _depth_px(labels: Labels) -> Float32:
    """Distance of each pixel in a nucleus from the nearest outline, its own or a neighbour's."""
    solid = (labels > 0).astype(np.uint8)
    solid[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    solid[1:][labels[1:] != labels[:-1]] = 0
    return np.asarray(cv2.distanceTransform(solid, cv2.DIST_L2, 3))


def _nucleoli(canvas: _Canvas, drawn: Visible) -> Float32:
    """One or two dark dots in each large pale nucleus."""
    dots = np.zeros((canvas.side_px, canvas.side_px), np.float32)
    origin = drawn.origin.select((drawn.origin.kind == TUMOUR) | (drawn.origin.kind == GLAND))
    for number in range(2):
        row = origin.select(origin.lots[:, 12] > (0.15, 0.6)[number])
        turn = row.lots[:, 5 + number] * 2 * np.pi
        offset = 0.42 * row.semi_um.min(axis=1) * row.lots[:, 7 + number]
        centre_um = row.xy_um + offset[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        centre = (centre_um / canvas.mpp - (canvas.x0_l0 + 0.5, canvas.y0_l0 + 0.5)) * 16
        radius = np.where(row.kind == TUMOUR, 0.55, 0.35) * (0.8 + 0.6 * row.lots[:, 8]) / canvas.mpp * 16
        for (x, y), r in zip(np.round(centre).astype(int).tolist(), radius.astype(int).tolist(), strict=True):
            cv2.circle(dots, (x, y), r, 0.5, -1, shift=4)
    return dots
