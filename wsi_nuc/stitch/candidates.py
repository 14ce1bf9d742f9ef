"""The candidates that a region delivers, and the checks that the proof rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_nuc.errors import ModelError
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.stitch.geometry import SLACK_L0, StitchGeometry
from wsi_nuc.types import Bool, Float64, Int64


@dataclass(frozen=True, slots=True)
class Candidates:
    """N candidates of any number of regions."""

    table: NucleiTable
    own: Bool
    """N: whether the prompt lies in the core of the candidate's own tile, and not in the margin around it."""
    bounds: Float64
    """N x 4: the box of each outline (x0, y0, x1, y1), in level-0 pixels."""
    written: Bool
    """N: whether the candidate was kept and passed on; it is only needed to cut others."""

    def __len__(self) -> int:
        return len(self.own)

    def select(self, rows: Int64) -> Candidates:
        return Candidates(self.table.select(rows), self.own[rows], self.bounds[rows], self.written[rows])

    @classmethod
    def concat(cls, parts: Sequence[Candidates]) -> Candidates:
        if len(parts) == 1:
            return parts[0]
        return cls(
            NucleiTable.concat([part.table for part in parts]),
            np.concatenate([part.own for part in parts]),
            np.concatenate([part.bounds for part in parts]),
            np.concatenate([part.written for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class RegionCandidates:
    """All candidates of one region."""

    core_box_l0: tuple[float, float, float, float]
    """x0, y0, x1, y1 of the region's core, in level-0 pixels."""
    table: NucleiTable
    own: Bool
    """As in `Candidates`."""


def admit(region: RegionCandidates, geometry: StitchGeometry) -> Candidates:
    """The candidates of a region; an error if one breaks a limit that the independence of the result rests on."""
    table, core = region.table, region.core_box_l0
    if len(region.own) != len(table) or (len(table) and int(table.ring_lengths.min()) < 1):
        raise ValueError(f"region {core}: {len(table)} rows, {len(region.own)} flags; every ring needs a vertex")
    candidates = Candidates(table, region.own, table.bounds(), np.zeros(len(table), np.bool_))
    if len(table):
        _check_prompts(region, geometry)
        _check_reach(candidates, geometry)
    return candidates


def _check_prompts(region: RegionCandidates, geometry: StitchGeometry) -> None:
    core, (x, y) = region.core_box_l0, region.table.prompt_xy.T
    outside = max(core[0] - x.min(), core[1] - y.min(), x.max() - core[2], y.max() - core[3])
    # Negated, here and below, so that NaN is refused too.
    if not outside <= geometry.prompt_guard_l0:
        raise ValueError(f"region {core}: a prompt {outside:.1f} level-0 px outside, margin {geometry.margin_l0}")


def _check_reach(candidates: Candidates, geometry: StitchGeometry) -> None:
    table, prompts = candidates.table, candidates.table.prompt_xy
    x, y = np.maximum(prompts - candidates.bounds[:, :2], candidates.bounds[:, 2:] - prompts).T
    reach = np.maximum(x, y)
    worst = int(np.argmax(reach))
    if not reach[worst] <= geometry.reach_l0 + SLACK_L0:
        raise ModelError(
            f"tile {table.tile[worst]}",
            f"a nucleus at level-0 pixel {prompts[worst].round(1).tolist()} extends {reach[worst]:.1f} px from "
            f"its prompt, more than the {geometry.reach_l0:.1f} px that the halo was made for",
            "use a model whose largest nucleus is declared correctly",
        )
