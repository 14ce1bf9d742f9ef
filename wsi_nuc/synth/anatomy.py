"""Where tissue, glands, tumour, inflammation, fibres and ink are, in micrometres from the slide's corner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from wsi_nuc.synth.noise import Field, Noise, uniform
from wsi_nuc.synth.spec import SynthSpec
from wsi_nuc.types import Bool, Float32, Float64

BoxUm = tuple[float, float, float, float]

GLAND_PITCH_UM = 112.0
# Outlines of a gland as shares of its radius: its border, its nuclei, and the beginning of its lumen.
BASAL, NUCLEAR, APICAL = 1.0, 0.83, 0.46
_FINEST_EDGE_UM = 24.0
_GLAND_CHANNEL = 40
# Field values (of variance 1) above which a place counts as tumour, as inflammation and as gland.
TUMOUR_LEVEL, LYMPH_LEVEL, GLAND_LEVEL = 0.55, 1.15, 0.05


@dataclass(frozen=True, slots=True)
class Glands:
    """G glands."""

    xy_um: Float64
    """G x 2: centres."""
    radius_um: Float64
    """G."""
    wobble: Float64
    """G x 3: amplitudes of the waves of the outline, as shares of the radius."""
    phase: Float64
    """G x 3: phases of these waves, in radians."""
    key: Float64
    """G x 2: column and row on the lattice of glands."""

    def outline_um(self, angle: Float64) -> Float64:
        """G x M: the radius at these angles (G x M, in radians)."""
        waves = np.cos(angle[..., None] * np.array([2, 3, 5]) + self.phase[:, None, :])
        return np.asarray(self.radius_um[:, None] * (1 + (waves * self.wobble[:, None, :]).sum(-1)))

    def ring_um(self, share: float, vertices: int = 64) -> Float64:
        """G x vertices x 2: the outline, scaled about the centre."""
        angle = np.broadcast_to(np.arange(vertices) * (2 * np.pi / vertices), (len(self.radius_um), vertices))
        unit = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        return np.asarray(self.xy_um[:, None, :] + unit * (share * self.outline_um(angle))[..., None])


class Anatomy:
    """The fields of a slide. Everything here depends only on the spec and the place."""

    def __init__(self, spec: SynthSpec) -> None:
        self.spec = spec
        self.tumour = self._field(1, (1.0, 230), (0.25, 45))
        self.gland = self._field(2, (1.0, 300))
        self.lymph = self._field(3, (1.0, 120), (0.3, 30))
        self.stain = self._field(4, (0.8, 2500), (0.6, 400))
        self.warp = self._field(5, (190.0, 800), (34.0, 170), (4.5, 42))
        self.along = self._field(6, (30.0, 150))
        self.drift = self._field(7, (34.0, 330)), self._field(9, (34.0, 330))
        self.heading = float(uniform(spec.seed, 70) * np.pi)

    def _field(self, channel: int, *parts: tuple[float, float]) -> Field:
        noises = (
            (amount, Noise(self.spec.seed, 10 * channel + i, scale)) for i, (amount, scale) in enumerate(parts)
        )
        return Field(tuple(noises))

    @cached_property
    def tissue(self) -> Field:
        """A fractal coast: each octave is about as much weaker as it is finer, so islands stay rare."""
        coarsest = max(60.0, max(self.spec.extent_um) / 4)
        scales = [coarsest]
        while scales[-1] / 3 > _FINEST_EDGE_UM:
            scales.append(scales[-1] / 3)
        return self._field(8, *(((scale / coarsest) ** 0.85, scale) for scale in scales))

    @cached_property
    def edge(self) -> float:
        """How much the tissue field changes over about 5 um at the coast."""
        amount, noise = self.tissue.parts[-1]
        return 6.0 * amount / noise.scale_um

    @cached_property
    def tissue_level(self) -> float:
        """The field value at the coast, chosen so that the wanted share of tissue lies above it."""
        share = self.spec.tissue_share
        if share in (0.0, 1.0):
            return np.inf if share == 0 else -np.inf
        x_um, y_um = (np.linspace(0, side, 97) for side in self.spec.extent_um)
        return float(np.quantile(self.tissue.grid(x_um, y_um), 1 - share))

    def in_tissue(self, x_um: Float64, y_um: Float64, inset: float = 1.5) -> Bool:
        """Whether the points lie in tissue, at least about `inset` x 5 um away from the coast."""
        if not np.isfinite(self.tissue_level):
            return np.full(len(x_um), self.tissue_level < 0)
        return np.asarray(self.tissue.at(x_um, y_um) > self.tissue_level + inset * self.edge)

    def is_glass(self, box_um: BoxUm) -> bool:
        """Whether the box holds neither tissue nor ink."""
        if any(shapely.distance(line, shapely.box(*box_um)) < width for line, width in self.ink):
            return False
        if not np.isfinite(self.tissue_level):
            return self.tissue_level > 0
        x0, y0, x1, y1 = box_um
        steps = max(4, int((x1 - x0) / (_FINEST_EDGE_UM / 2)))
        field = self.tissue.grid(np.linspace(x0, x1, steps), np.linspace(y0, y1, steps))
        return bool(field.max() < self.tissue_level - 2 * self.edge)

    def fibre_phase(self, x_um: Float64, y_um: Float64) -> Float32:
        """Grid of the coordinate across the fibres, in um. Fibres follow its level sets."""
        linear = np.cos(self.heading) * x_um[None, :] + np.sin(self.heading) * y_um[:, None]
        return np.asarray(linear.astype(np.float32) + self.warp.grid(x_um, y_um))

    def fibre_angle(self, x_um: Float64, y_um: Float64) -> Float64:
        """Direction of the fibres at N points, in radians."""
        step_um = 3.0
        across_x = np.cos(self.heading) + (self.warp.at(x_um + step_um, y_um) - self.warp.at(x_um, y_um)) / step_um
        across_y = np.sin(self.heading) + (self.warp.at(x_um, y_um + step_um) - self.warp.at(x_um, y_um)) / step_um
        return np.asarray(np.arctan2(across_x, -across_y))

    def glands(self, box_um: BoxUm) -> Glands:
        """Every gland that can reach into the box, and more glands around it."""
        first, last = (np.floor(np.array(xy) / GLAND_PITCH_UM).astype(int) for xy in (box_um[:2], box_um[2:]))
        # Two places beyond, because a smooth drift moves the glands by up to one pitch to hide their rows.
        ranges = (np.arange(a - 2, b + 3) for a, b in zip(first, last, strict=True))
        column, row = (g.ravel() for g in np.meshgrid(*ranges))
        lots = [uniform(self.spec.seed, _GLAND_CHANNEL, column, row, k) for k in range(10)]
        place = column + 0.5 * (row % 2), row
        still_um = [(p + 0.35 + 0.3 * lot) * GLAND_PITCH_UM for p, lot in zip(place, lots, strict=False)]
        x_um, y_um = (c + drift.at(*still_um) for c, drift in zip(still_um, self.drift, strict=True))
        present = (self.gland.at(x_um, y_um) > GLAND_LEVEL) & (self.tumour.at(x_um, y_um) < TUMOUR_LEVEL - 0.3)
        present &= (lots[2] < 0.88) & self.in_tissue(x_um, y_um)
        wobble = np.stack(lots[4:7], axis=1) * np.array([0.20, 0.11, 0.06])
        return Glands(
            np.stack([x_um, y_um], axis=1)[present],
            (GLAND_PITCH_UM * (0.23 + 0.13 * lots[3]))[present],
            wobble[present],
            (np.stack(lots[7:10], axis=1) * 2 * np.pi)[present],
            np.stack([column, row], axis=1)[present],
        )

    @cached_property
    def ink(self) -> list[tuple[shapely.LineString, float]]:
        """Pen strokes, wavy lines across the slide: centre lines and widths in um."""
        if not self.spec.pen:
            return []
        return [self._stroke(number) for number in range(2)]

    def _stroke(self, number: int) -> tuple[shapely.LineString, float]:
        width_um, height_um = self.spec.extent_um
        lots = uniform(self.spec.seed, 90, number, np.arange(8))
        s = np.linspace(0.05, 0.95, 40)
        wave = 0.08 * np.sin(2 * np.pi * (s * (1 + lots[0]) + lots[1]))
        across = 0.15 + 0.7 * lots[2] + (lots[3] - 0.5) * 0.3 * s + wave
        x, y = (s, across) if number % 2 else (across, s)
        return shapely.LineString(np.stack([x * width_um, y * height_um], axis=1)), self.pen_width_um

    @property
    def pen_width_um(self) -> float:
        return float(np.clip(0.035 * max(self.spec.extent_um), 25, 700))
