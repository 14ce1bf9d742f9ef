"""The seam audit: do nuclei look different where tiles meet?

It compares the nuclei that cross the lines between tiles with those that cross lines moved by a sixteenth, two
sixteenths and so on of a tile. All these lines cross the same tissue and meet large nuclei more often than small
ones, and how they differ among each other is chance. So what is far outside of that was made by the seams: a
nucleus that is cut has a straight edge on the line and is smaller, and one that was found twice has a twin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from wsi_nuc.store.reading import StoredRings
from wsi_nuc.types import Bool, Float64

# An outline is cut if it runs along a line for this length, and this near to it.
STRAIGHT_UM, NEAR_UM = 2.0, 0.3
# Two nuclei whose centres are nearer than this are one that was found twice.
TWIN_UM = 1.5
# A difference of more than this many standard deviations is a finding.
FAR_SIGMAS = 4.0
PLACES = 16


@dataclass(frozen=True, slots=True)
class Crossing:
    """The nuclei that cross one kind of lines."""

    nuclei: int = 0
    mean_area_um2: float = math.nan
    area_error_um2: float = math.nan
    """Standard error of the mean area."""
    straight: int = 0
    """Nuclei whose outline runs along the line."""
    twins: int = 0
    """Pairs whose centres nearly coincide."""


@dataclass(frozen=True, slots=True)
class SeamAudit:
    tile_um: float
    """From one line to the next."""
    seams: Crossing
    """Lines between tiles."""
    moved: tuple[Crossing, ...]
    """Lines elsewhere, for comparing."""

    @property
    def findings(self) -> list[str]:
        """What differs by more than chance, in words; nothing if all is well."""
        sides = (
            ("nuclei", "nuclei are missing at seams", "there are too many nuclei at seams"),
            ("mean_area_um2", "nuclei at seams are too small", "nuclei at seams are too large"),
            ("straight", "", "nuclei at seams are cut along them"),
            ("twins", "", "nuclei at seams were found twice"),
        )
        texts = []
        for name, less, more in sides:
            sigmas = self.sigmas(name)
            if abs(sigmas) > FAR_SIGMAS:
                texts.append(more if sigmas > 0 else less)
        return [text for text in texts if text]

    def usual(self, name: str) -> float:
        """The mean over the moved lines."""
        return float(np.nanmean([getattr(crossing, name) for crossing in self.moved]))

    def sigmas(self, name: str) -> float:
        """How far the seams are from the moved lines, in standard deviations between these, or of chance if that
        is more; 0 where there is nothing to compare."""
        values = np.array([getattr(crossing, name) for crossing in self.moved], np.float64)
        value, values = float(getattr(self.seams, name)), values[np.isfinite(values)]
        if len(values) < 2 or not math.isfinite(value):
            return 0.0
        usual = float(values.mean())
        chance = self.seams.area_error_um2 if name == "mean_area_um2" else math.sqrt(max(1.0, usual))
        return (value - usual) / max(float(values.std(ddof=1)), chance)


@dataclass(slots=True)
class Crossed:
    """Collects the nuclei of the row groups that cross lines `step` apart, the first one at `first`."""

    step: float
    first: float
    mpp: float
    """Microns per level-0 pixel."""
    _xy: list[Float64] = field(default_factory=list)
    _area_um2: list[Float64] = field(default_factory=list)
    _straight: int = 0

    def add(self, rings: StoredRings, xy_l0: Float64, area_um2: Float64) -> None:
        crossing = np.flatnonzero(self._crosses(rings.bounds_l0))
        self._xy.append(xy_l0[crossing])
        self._area_um2.append(area_um2[crossing])
        self._straight += int(self._cut_straight(rings.select(crossing)).sum())

    def _crosses(self, bounds: Float64) -> Bool:
        cell = np.floor((bounds - self.first) / self.step)
        return np.asarray((cell[:, 0] != cell[:, 2]) | (cell[:, 1] != cell[:, 3]))

    def _cut_straight(self, rings: StoredRings) -> Bool:
        """N: whether each outline runs along a line, in one edge or several."""
        start, end = rings.xy, rings.xy[rings.successors]
        along_um = np.zeros(len(rings))
        owner = np.repeat(np.arange(len(rings)), rings.ring_lengths)
        for axis in (0, 1):
            place = (start[:, axis] - self.first) / self.step
            off_um = np.abs(place - np.round(place)) * self.step * self.mpp
            flat = np.abs(end[:, axis] - start[:, axis]) * self.mpp < NEAR_UM / 2
            length_um = np.abs(end[:, 1 - axis] - start[:, 1 - axis]) * self.mpp
            along_um += np.bincount(owner, length_um * (flat & (off_um < NEAR_UM)), len(rings))
        return along_um >= STRAIGHT_UM

    def result(self) -> Crossing:
        if not self._xy or not sum(map(len, self._xy)):
            return Crossing()
        xy, area = np.concatenate(self._xy), np.concatenate(self._area_um2)
        error = float(area.std() / math.sqrt(len(area)))
        twins = len(cKDTree(xy * self.mpp).query_pairs(TWIN_UM, output_type="ndarray"))
        return Crossing(len(xy), float(area.mean()), error, self._straight, twins)


def crossed_lines(step: float, mpp: float) -> list[Crossed]:
    """The lines between tiles, then those moved by parts of a tile."""
    return [Crossed(step, step * place / PLACES, mpp) for place in range(PLACES)]
