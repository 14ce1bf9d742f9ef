"""What one pass over the nuclei of a store gives: figures of each class, density, examples, the seam audit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsi_nuc.errors import StorageError
from wsi_nuc.quality.tilegrid import core_grid
from wsi_nuc.report.seams import SeamAudit, crossed_lines
from wsi_nuc.store.manifest import Json
from wsi_nuc.store.nuclei_rows import NucleiReader, NucleiRows
from wsi_nuc.store.reading import NucleiFile, class_names
from wsi_nuc.store.tables import probability_name
from wsi_nuc.types import Float64, Int64

# Cells along the longer edge of a density map.
MAP_CELLS = 160
EXAMPLES = 6
BEST, TYPICAL, DOUBTFUL = "best", "typical", "doubtful"
# Spreads numbers evenly, so that the nuclei with the smallest products are drawn at random, always the same ones.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
# Diameters are counted in bins of this width, up to the largest.
BIN_UM, LARGEST_UM = 0.05, 60.0


@dataclass(frozen=True, slots=True)
class Example:
    """A nucleus that is shown."""

    key: float
    """The examples of a kind with the smallest keys are shown."""
    id: int
    ring_l0: Float64
    """n x 2."""
    score: float
    probability: float
    """Of its class."""


@dataclass(slots=True)
class OfClass:
    """One class of nuclei."""

    name: str
    count: int = 0
    area_um2: float = 0.0
    """Sum over its nuclei, as are the next two."""
    score: float = 0.0
    probability: float = 0.0
    examples: dict[str, list[Example]] = field(default_factory=lambda: {BEST: [], TYPICAL: [], DOUBTFUL: []})

    def mean(self, total: float) -> float:
        return total / self.count if self.count else math.nan


@dataclass(frozen=True, slots=True)
class Figures:
    classes: tuple[OfClass, ...]
    """In the model's order."""
    density: Float64
    """C x h x w: nuclei per mm2 in each cell."""
    cell_um: float
    diameters: Int64
    """Nuclei per bin of BIN_UM of the diameter of a circle of equal area."""
    seams: SeamAudit | None
    """None where the grid of tiles is not known."""


def figures_of(store: Path, manifest: Json) -> Figures:
    names, slide = class_names(store), manifest["slide"]
    mpp, size = float(slide["mpp"]), (int(slide["width_px"]), int(slide["height_px"]))
    cell_l0 = max(size) / MAP_CELLS
    classes = tuple(map(OfClass, names))
    counts = np.zeros((len(names), math.ceil(size[1] / cell_l0), math.ceil(size[0] / cell_l0)))
    diameters = np.zeros(round(LARGEST_UM / BIN_UM), np.int64)
    with NucleiFile(store) as file:
        grid = core_grid(file, manifest)
    step = grid.edge_l0 if grid else 0.0
    lines = crossed_lines(step, mpp) if step else []
    for rows in _groups(store, manifest, names):
        columns = rows.columns
        kind, area = columns["class_id"].astype(np.int64), columns["area_um2"]
        xy = np.column_stack([columns["x"], columns["y"]])
        cell = np.minimum((xy / cell_l0).astype(np.int64), np.array(counts.shape[:0:-1]) - 1)
        np.add.at(counts, (kind, cell[:, 1], cell[:, 0]), 1)
        bins = np.minimum(2 * np.sqrt(area / np.pi) / BIN_UM, len(diameters) - 1).astype(np.int64)
        diameters += np.bincount(bins, minlength=len(diameters))
        for crossed in lines:
            crossed.add(rows.rings, xy, area)
        _add_to_classes(classes, rows, kind)
    crossings = [crossed.result() for crossed in lines]
    audit = SeamAudit(step * mpp, crossings[0], tuple(crossings[1:])) if step else None
    return Figures(classes, counts / (cell_l0 * mpp / 1000) ** 2, cell_l0 * mpp, diameters, audit)


def _groups(store: Path, manifest: Json, names: tuple[str, ...]) -> Iterator[NucleiRows]:
    probabilities = [probability_name(name) for name in names]
    with NucleiReader(store, ["class_id", "score", "x", "y", "area_um2", *probabilities]) as reader:
        if reader.rows != manifest["counts"]["nuclei"]:
            cause = f"holds {reader.rows:,} nuclei, its manifest says {manifest['counts']['nuclei']:,}"
            raise StorageError(store, cause, "`wsi-nuc verify` says what is wrong")
        yield from reader.each()


def _add_to_classes(classes: tuple[OfClass, ...], rows: NucleiRows, kind: Int64) -> None:
    columns = rows.columns
    score = columns["score"].astype(np.float64)
    table = np.column_stack([columns[probability_name(of_class.name)] for of_class in classes])
    probability = table[np.arange(len(kind)), kind].astype(np.float64)
    sure = score * np.nan_to_num(probability, nan=1.0)
    drawn = (rows.rings.ids.astype(np.uint64) * _SPREAD).astype(np.float64)
    for number, of_class in enumerate(classes):
        members = np.flatnonzero(kind == number)
        of_class.count += len(members)
        of_class.area_um2 += float(columns["area_um2"][members].sum())
        of_class.score += float(score[members].sum())
        of_class.probability += float(np.nansum(probability[members]))
        for what, key in ((BEST, -sure), (TYPICAL, drawn), (DOUBTFUL, sure)):
            smallest = members[np.argsort(key[members], kind="stable")[:EXAMPLES]]
            new = [
                Example(float(key[i]), int(rows.rings.ids[i]), rows.rings.ring(i).copy(), score[i], probability[i])
                for i in smallest.tolist()
            ]
            both = sorted([*of_class.examples[what], *new], key=lambda example: (example.key, example.id))
            of_class.examples[what] = both[:EXAMPLES]
