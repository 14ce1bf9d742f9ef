"""The stream: from candidates of regions to each nucleus once. It holds what is not decided or written yet."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.stitch.candidates import Candidates, RegionCandidates, admit
from wsi_nuc.stitch.conflicts import KEPT, OPEN, Overlaps, overlaps, settle
from wsi_nuc.stitch.cutting import cut
from wsi_nuc.stitch.geometry import BlockKey, Frontier, StitchGeometry
from wsi_nuc.stitch.precedence import canonical
from wsi_nuc.stitch.rivals import StitchRule
from wsi_nuc.types import Bool, Float64, Int64

SWEEP_COLUMNS = 4
_BEFORE_ALL: BlockKey = (-(2**62), 0)
_AFTER_ALL: BlockKey = (2**62, 0)


@dataclass(slots=True)
class StitchStats:
    """Counted while the stream runs, complete when it ends."""

    candidates: int = 0
    peak_held: int = 0
    """The most rows in memory at the same time."""
    cut: int = 0
    """How many nuclei lost a part of their outline to others."""


def stitch(
    regions: Iterable[RegionCandidates],
    geometry: StitchGeometry,
    rule: StitchRule | None = None,
    stats: StitchStats | None = None,
) -> Iterator[NucleiTable]:
    """Each nucleus once, one table per block, in an order that only the nuclei themselves decide.

    `regions` come row by row, left to right; empty ones may be left out. Neither their size nor the order of the
    rows inside them changes the result.
    """
    counts = stats or StitchStats()
    held = _Held(geometry, rule or StitchRule(), counts)
    last: BlockKey = _BEFORE_ALL
    for region in regions:
        candidates = admit(region, geometry)
        cell = geometry.cell(region.core_box_l0)
        if cell <= last:
            raise ValueError(f"region (row, column) {cell} came after {last}: regions must come row by row")
        yield from held.advance(last, cell)
        held.add(cell[1], candidates)
        last = cell
    yield from held.finish()


@dataclass(slots=True)
class _Held:
    """All rows in memory."""

    geometry: StitchGeometry
    rule: StitchRule
    stats: StitchStats
    undecided: defaultdict[int, list[Candidates]] = field(default_factory=lambda: defaultdict(list))
    """By column of regions."""
    first_undecided: dict[int, BlockKey] = field(default_factory=dict)
    """For each column, the first block in the order of the output with an undecided row."""
    kept: defaultdict[BlockKey, list[NucleiTable]] = field(default_factory=lambda: defaultdict(list))
    """By block, the survivors that are not written yet."""
    rows: int = 0
    """How many rows there are in all."""

    def add(self, column: int, candidates: Candidates) -> None:
        if len(candidates):
            self._put(column, candidates)
            self.stats.candidates += len(candidates)
            self.rows += len(candidates)
            self.stats.peak_held = max(self.stats.peak_held, self.rows)

    def advance(self, last: BlockKey, cell: BlockKey) -> Iterator[NucleiTable]:
        """All regions before `cell` have come; `last` was the previous one."""
        frontier = Frontier.before(self.geometry, cell)
        same_row = last[0] == cell[0]
        windows = [_Window.between(self.geometry, last, cell)] if same_row else self._sweep()
        for window in windows:
            self._decide(window, frontier)
        yield from self._emit(frontier)

    def finish(self) -> Iterator[NucleiTable]:
        end = Frontier.end(self.geometry)
        for window in [*self._sweep(), _Window.all()]:
            self._decide(window, end)
        yield from self._emit(end)

    def _put(self, column: int, candidates: Candidates) -> None:
        self.undecided[column].append(candidates)
        blocks = self.geometry.blocks(candidates.table.prompt_xy[~candidates.written])
        if not len(blocks):
            return
        first = blocks[np.lexsort((blocks[:, 1], blocks[:, 0]))[0]]
        known = self.first_undecided.get(column, _AFTER_ALL)
        self.first_undecided[column] = min(known, (int(first[0]), int(first[1])))

    def _sweep(self) -> list[_Window]:
        """All columns, a few at a time, so that the frontier of a wide slide is never in memory twice."""
        return _Window.sweep(self.geometry, min(self.undecided, default=0), max(self.undecided, default=0))

    def _take(self, window: _Window) -> list[Candidates]:
        columns = sorted(column for column in self.undecided if window.first <= column <= window.last)
        for column in columns:
            self.first_undecided.pop(column, None)
        return [part for column in columns for part in self.undecided.pop(column)]

    def _decide(self, window: _Window, frontier: Frontier) -> None:
        parts = self._take(window)
        if not parts:
            return
        pool = Candidates.concat(parts)
        decidable = window.decidable(pool.table.prompt_xy[:, 0])
        closed = pool.written | (frontier.closed(pool.bounds) & decidable)
        shared = overlaps(pool, closed, self.rule)
        state = settle(closed, shared)
        left = (state == KEPT) & ~pool.written
        ready = left & ~_beside(shared, state == OPEN)
        both = (state[shared.owner] == KEPT) & (state[shared.loser] == KEPT)
        count = self._keep_cut(pool.table, ready, shared.select(both & ready[shared.loser]))
        # What is written stays at hand, uncut, as long as it may cut others.
        unwritten = (state == OPEN) | (left & ~ready)
        written = (state == KEPT) & ~unwritten
        rows = np.flatnonzero(unwritten | (written & (_beside(shared, unwritten) | ~decidable)))
        columns = np.floor(pool.table.prompt_xy[rows, 0] / self.geometry.region_l0).astype(np.int64)
        pool = replace(pool, written=written)
        for column in np.unique(columns).tolist():
            self._put(column, pool.select(rows[columns == column]))
        self.rows += count + len(rows) - len(pool)

    def _keep_cut(self, table: NucleiTable, kept: Bool, shared: Overlaps) -> int:
        """Keep these rows, less what others have of them. Returns how many are left."""
        whole = kept.copy()
        whole[shared.loser] = False
        rows, left = cut(Rings(table.xy, table.offsets), shared, 1 - self.rule.containment)
        self._keep(table, np.flatnonzero(whole))
        self._keep(replace(table.select(rows), xy=left.xy, offsets=left.offsets), np.arange(len(rows)))
        self.stats.cut += len(rows)
        return int(whole.sum()) + len(rows)

    def _keep(self, table: NucleiTable, rows: Int64) -> None:
        row, column = self.geometry.blocks(table.prompt_xy[rows]).T
        order = np.lexsort((column, row))
        changes = (np.diff(row[order]) != 0) | (np.diff(column[order]) != 0)
        for part in np.split(order, np.flatnonzero(changes) + 1) if len(order) else []:
            block = int(row[part[0]]), int(column[part[0]])
            self.kept[block].append(table.select(rows[part]))

    def _emit(self, frontier: Frontier) -> Iterator[NucleiTable]:
        limit = min([frontier.first_open_block(), *self.first_undecided.values()])
        for block in sorted(key for key in self.kept if key < limit):
            table = NucleiTable.concat(self.kept.pop(block))
            self.rows -= len(table)
            yield table.select(canonical(table, self.geometry))


def _beside(shared: Overlaps, rows: Bool) -> Bool:
    """N: which rows overlap one of `rows`."""
    beside = np.zeros(len(rows), np.bool_)
    beside[shared.better[rows[shared.worse]]] = True
    beside[shared.worse[rows[shared.better]]] = True
    return beside


@dataclass(frozen=True, slots=True)
class _Window:
    """The columns of regions in which something can change. The rest of the staircase is not looked at."""

    first: float
    last: float
    """Both columns belong to the window."""
    from_l0: float
    """From this x of its prompt on, a row can be decided; nearer to the rim, what overlaps it may lie outside."""
    to_l0: float
    """Up to this x of its prompt, a row can be decided."""

    @classmethod
    def all(cls) -> _Window:
        return cls(-math.inf, math.inf, -math.inf, math.inf)

    @classmethod
    def between(cls, geometry: StitchGeometry, last: BlockKey, cell: BlockKey) -> _Window:
        edge, around = geometry.region_l0, cls._around(geometry)
        first = math.floor((last[1] * edge - around) / edge)
        final = math.floor((cell[1] * edge + around) / edge)
        return cls._of(geometry, first, final)

    @classmethod
    def sweep(cls, geometry: StitchGeometry, first: int, final: int) -> list[_Window]:
        """Overlapping windows over the columns `first` to `final`, without a rim at both ends."""
        lap = math.ceil(cls._around(geometry) / geometry.region_l0)
        starts = range(first, final + 1, SWEEP_COLUMNS)
        windows = [cls._of(geometry, start - lap, start + SWEEP_COLUMNS - 1 + lap) for start in starts]
        windows[0] = replace(windows[0], from_l0=-math.inf)
        windows[-1] = replace(windows[-1], to_l0=math.inf)
        return windows

    @staticmethod
    def _around(geometry: StitchGeometry) -> float:
        """A contact for overlaps at the rim, a second for the boxes that a step closes, a third for chains."""
        return 3 * geometry.contact_l0 + 2 * geometry.prompt_guard_l0

    @classmethod
    def _of(cls, geometry: StitchGeometry, first: int, final: int) -> _Window:
        edge, rim = geometry.region_l0, geometry.prompt_guard_l0 + geometry.contact_l0
        return cls(first, final, first * edge + rim, (final + 1) * edge - rim)

    def decidable(self, prompt_x_l0: Float64) -> Bool:
        decidable: Bool = (prompt_x_l0 >= self.from_l0) & (prompt_x_l0 <= self.to_l0)
        return decidable
