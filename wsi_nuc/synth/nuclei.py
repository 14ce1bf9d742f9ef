"""Candidate nuclei: where each kind lies, and their outlines. They are a pure function of (spec, place)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import shapely

from wsi_nuc.rings import spans
from wsi_nuc.synth.anatomy import BASAL, LYMPH_LEVEL, NUCLEAR, TUMOUR_LEVEL, Anatomy, BoxUm, Glands
from wsi_nuc.synth.noise import smoothstep, uniform
from wsi_nuc.types import Bool, Float64, Int64

GLAND, TUMOUR, LYMPH, SPINDLE, OTHER = range(5)
# The class of each kind, as an index into spec.CLASSES.
CLASS_OF_KIND = np.array([0, 0, 1, 2, 3])
# No nucleus reaches further than this from its centre.
REACH_UM = 9.5
VERTICES = 36
_LOTS = 14
_RING_PLACES = 48


@dataclass(frozen=True, slots=True)
class Candidates:
    """N nuclei that may be drawn."""

    xy_um: Float64
    """N x 2: centres."""
    semi_um: Float64
    """N x 2: half axes."""
    angle: Float64
    """N: direction of the first axis, in radians."""
    kind: Int64
    """N: GLAND, TUMOUR, LYMPH, SPINDLE or OTHER."""
    lots: Float64
    """N x 14: random numbers in [0, 1), for everything about a nucleus that varies."""

    def __len__(self) -> int:
        return len(self.kind)

    def select(self, rows: Bool | Int64) -> Candidates:
        return Candidates(*(getattr(self, column.name)[rows] for column in fields(self)))

    def outlines_um(self) -> Float64:
        """N x VERTICES x 2: wavy ellipses, some bent like a bean."""
        angle = np.arange(VERTICES) * (2 * np.pi / VERTICES)
        phase = self.lots[:, None, 4:8] * 2 * np.pi
        harmonic = np.array([2, 3, 4, 5])
        rough = np.where(self.kind == LYMPH, 0.5, 1.0)[:, None]
        wave = (np.cos(angle[:, None] * harmonic + phase) * (np.array([0.09, 0.085, 0.045, 0.03]))).sum(-1)
        radius = 1 + rough * wave
        u = self.semi_um[:, :1] * radius * np.cos(angle)
        bend = np.where(self.kind == OTHER, 0.75, 0.25) * (self.lots[:, 8] - 0.4)
        v = self.semi_um[:, 1:] * (radius * np.sin(angle) + bend[:, None] * np.cos(angle) ** 2)
        cos, sin = np.cos(self.angle)[:, None], np.sin(self.angle)[:, None]
        ring = np.stack([u * cos - v * sin, u * sin + v * cos], axis=-1)
        reach = np.sqrt((ring**2).sum(-1)).max(axis=1, initial=0)
        ring *= np.minimum(1, REACH_UM / np.maximum(reach, 1e-9))[:, None, None]
        return np.asarray(ring + self.xy_um[:, None, :])


def candidates(anatomy: Anatomy, box_um: BoxUm) -> Candidates:
    """All candidates whose centre lies in the box."""
    around = (box_um[0] - 1, box_um[1] - 1, box_um[2] + 1, box_um[3] + 1)
    glands = anatomy.glands(around)
    parts = [_tumour(anatomy, around), _lymph(anatomy, around), _stroma(anatomy, around)]
    free = Candidates(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Candidates)))
    free = free.select(_outside_glands(glands, free.xy_um))
    lining = _lining(anatomy, glands)
    both = Candidates(*(np.concatenate([getattr(lining, f.name), getattr(free, f.name)]) for f in fields(free)))
    x, y = both.xy_um.T
    inside = (x >= box_um[0]) & (x < box_um[2]) & (y >= box_um[1]) & (y < box_um[3])
    both = both.select(inside)
    both = both.select(anatomy.in_tissue(both.xy_um[:, 0], both.xy_um[:, 1]))
    # Ink hides what lies below it, so there are no nuclei there, and the truth stays exact.
    points = shapely.points(both.xy_um)
    clear = np.full(len(both), anatomy.spec.density > 0)
    for line, width_um in anatomy.ink:
        clear &= shapely.distance(points, line) > width_um / 2 + REACH_UM + 4
    return both.select(clear)


def _scatter(anatomy: Anatomy, kind: int, pitch_um: float, box_um: BoxUm) -> tuple[Float64, Float64]:
    """Places on a jittered lattice over the box, and their lots. A higher density makes the lattice finer."""
    pitch_um /= np.sqrt(max(anatomy.spec.density, 1e-3))
    ranges = [
        np.arange(np.floor(a / pitch_um) - 1, np.ceil(b / pitch_um) + 1)
        for a, b in zip(box_um[:2], box_um[2:], strict=True)
    ]
    column, row = (g.ravel().astype(np.int64) for g in np.meshgrid(*ranges))
    lots = uniform(anatomy.spec.seed, 100 + kind, column[:, None], row[:, None], np.arange(_LOTS))
    # Every second row is set off by half a pitch, as round things pack.
    place = np.stack([column + 0.5 * (row % 2), row], axis=1) + 0.5 + 0.75 * (lots[:, :2] - 0.5)
    return place * pitch_um, lots


def _tumour(anatomy: Anatomy, box_um: BoxUm) -> Candidates:
    xy_um, lots = _scatter(anatomy, TUMOUR, 11.0, box_um)
    keep = lots[:, 2] < 0.9 * smoothstep(anatomy.tumour.at(*xy_um.T), TUMOUR_LEVEL, TUMOUR_LEVEL + 0.12)
    xy_um, lots = xy_um[keep], lots[keep]
    semi = (4.0 + 2.9 * lots[:, 9] ** 1.5)[:, None] * np.stack(
        [np.ones(len(lots)), 0.68 + 0.3 * lots[:, 10]], axis=1
    )
    return Candidates(xy_um, semi, lots[:, 11] * np.pi, np.full(len(lots), TUMOUR), lots)


def _lymph(anatomy: Anatomy, box_um: BoxUm) -> Candidates:
    xy_um, lots = _scatter(anatomy, LYMPH, 7.2, box_um)
    crowd = smoothstep(anatomy.lymph.at(*xy_um.T), LYMPH_LEVEL - 0.45, LYMPH_LEVEL + 0.4)
    # Only a few lymphocytes enter the tumour.
    crowd *= 1 - 0.75 * smoothstep(anatomy.tumour.at(*xy_um.T), TUMOUR_LEVEL - 0.2, TUMOUR_LEVEL + 0.2)
    keep = lots[:, 2] < 0.02 + 0.8 * crowd
    xy_um, lots = xy_um[keep], lots[keep]
    semi = (2.7 + 0.9 * lots[:, 9])[:, None] * np.stack([np.ones(len(lots)), 0.82 + 0.18 * lots[:, 10]], axis=1)
    return Candidates(xy_um, semi, lots[:, 11] * np.pi, np.full(len(lots), LYMPH), lots)


def _stroma(anatomy: Anatomy, box_um: BoxUm) -> Candidates:
    """Spindles along the fibres, and a few plump or bean-shaped nuclei between them."""
    xy_um, lots = _scatter(anatomy, SPINDLE, 15.0, box_um)
    keep = (lots[:, 2] < 0.72) & (anatomy.tumour.at(*xy_um.T) < TUMOUR_LEVEL - 0.05)
    xy_um, lots = xy_um[keep], lots[keep]
    other = lots[:, 12] < 0.12
    spindle = np.stack([4.6 + 3.8 * lots[:, 9], 1.3 + 1.1 * lots[:, 10]], axis=1)
    plump = np.stack([4.0 + 1.6 * lots[:, 9], 2.7 + 1.2 * lots[:, 10]], axis=1)
    angle = anatomy.fibre_angle(*xy_um.T) + (lots[:, 11] - 0.5) * np.where(other, 3.0, 0.5)
    return Candidates(
        xy_um, np.where(other[:, None], plump, spindle), angle, np.where(other, OTHER, SPINDLE), lots
    )


def _lining(anatomy: Anatomy, glands: Glands) -> Candidates:
    """Columnar nuclei side by side around each gland, their long axis towards the lumen."""
    pitch_um = 6.0 / np.sqrt(max(anatomy.spec.density, 1e-3))
    places = np.minimum(_RING_PLACES, (2 * np.pi * NUCLEAR * glands.radius_um / pitch_um).astype(np.int64))
    gland, number = spans(places)
    lots = uniform(
        anatomy.spec.seed,
        100 + GLAND,
        *(glands.key[gland, i, None] for i in (0, 1)),
        number[:, None],
        np.arange(_LOTS),
    )
    angle = (number + 0.35 * (lots[:, 0] - 0.5)) * 2 * np.pi / np.maximum(places[gland], 1)
    rows = Glands(*(getattr(glands, f.name)[gland] for f in fields(glands)))
    distance = rows.outline_um(angle[:, None])[:, 0] * NUCLEAR + 3.4 * (lots[:, 1] - 0.5)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    semi = np.stack([3.9 + 1.9 * lots[:, 9], 2.3 + 0.8 * lots[:, 10]], axis=1)
    turn = angle + 0.5 * (lots[:, 11] - 0.5)
    return Candidates(rows.xy_um + unit * distance[:, None], semi, turn, np.full(len(gland), GLAND), lots).select(
        lots[:, 2] < 0.96
    )


def _outside_glands(glands: Glands, xy_um: Float64) -> Bool:
    away = xy_um[None, :, :] - glands.xy_um[:, None, :]
    distance = np.sqrt((away**2).sum(-1))
    limit = glands.outline_um(np.arctan2(away[..., 1], away[..., 0])) * BASAL + 1.5
    return np.asarray((distance > limit).all(axis=0))
