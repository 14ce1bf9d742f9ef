"""Scenes of candidates, ways to cut them into regions, and a slow, obvious stitching to compare with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import pairwise

import numpy as np
import shapely

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.stitch import RegionCandidates, StitchGeometry, StitchRule, stitch
from wsi_nuc.types import Bool, Float64

MARGIN, REACH, BLOCK = 6.0, 24.0, 128.0


def geometry(region_l0: float) -> StitchGeometry:
    return StitchGeometry(region_l0=region_l0, margin_l0=MARGIN, reach_l0=REACH, block_l0=BLOCK)


def table(
    rings: Sequence[Float64],
    score: Sequence[float] | Float64,
    tile: Sequence[int] | None = None,
    prompt: Float64 | None = None,
) -> NucleiTable:
    """A table of these rings (K x 2 each). Prompts are the middles of their boxes unless they are given."""
    count = len(rings)
    if not count:
        return NucleiTable.empty(2)
    middle = np.array([(ring.min(axis=0) + ring.max(axis=0)) / 2 for ring in rings])
    scores = np.asarray(score, np.float32)
    return NucleiTable(
        xy=np.concatenate(rings).astype(np.float64),
        offsets=np.concatenate([[0], np.cumsum([len(ring) for ring in rings])]).astype(np.int64),
        prompt_xy=middle if prompt is None else prompt,
        score=scores,
        prompt_score=scores,
        predicted_iou=np.full(count, np.nan, np.float32),
        class_probs=np.full((count, 2), 0.5, np.float32),
        tile=np.zeros(count, np.int64) if tile is None else np.asarray(tile, np.int64),
    )


def box(x0: float, y0: float, x1: float, y1: float) -> Float64:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def ellipse(x: float, y: float, long: float, short: float, turn: float) -> Float64:
    angle = np.linspace(0, 2 * np.pi, 17, endpoint=False)
    along, across = long * np.cos(angle), short * np.sin(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([x + along * cos - across * sin, y + along * sin + across * cos], axis=1)


def crowd(seed: int, count: int, edge: float) -> tuple[NucleiTable, Bool]:
    """Ellipses so dense in a square that rivals form chains and clumps. Some are exact copies."""
    rng = np.random.default_rng(seed)
    rings = [
        ellipse(*rng.uniform(0, edge, 2), *rng.uniform(4, 14, 2), rng.uniform(0, np.pi)) for _ in range(count)
    ]
    copies = [rings[k] for k in rng.integers(0, count, count // 4)]
    shifted = [_on_slide(ring + rng.normal(0, 2, 2)) for ring in copies]
    rings = rings + copies + shifted
    # Few distinct scores, so that ties are tested too.
    score = rng.integers(1, 6, len(rings)) / 8
    return table(rings, score, rng.integers(0, 3, len(rings))), rng.random(len(rings)) < 0.7


def _on_slide(ring: Float64) -> Float64:
    """The ring, moved so that its prompt, the middle of its box, is not left of or above the slide."""
    middle = (ring.min(axis=0) + ring.max(axis=0)) / 2
    return ring + (np.maximum(middle, 0) - middle)


def cut(
    candidates: NucleiTable, own: Bool, region_l0: float, rng: np.random.Generator
) -> Iterator[RegionCandidates]:
    """Every row goes to a region whose core, grown by the margin, holds its prompt. The rows come in any order."""
    cells = defaultdict(list)
    for row in rng.permutation(len(candidates)).tolist():
        x, y = candidates.prompt_xy[row] + rng.uniform(-MARGIN, MARGIN, 2)
        cells[max(0, int(y // region_l0)), max(0, int(x // region_l0))].append(row)
    for (row, column), rows in sorted(cells.items()):
        core = (column * region_l0, row * region_l0, (column + 1) * region_l0, (row + 1) * region_l0)
        yield RegionCandidates(core, candidates.select(np.array(rows)), own[rows])


def stitched(
    candidates: NucleiTable, own: Bool, region_l0: float, seed: int = 0, rule: StitchRule | None = None
) -> NucleiTable:
    rng = np.random.default_rng(seed)
    parts = list(stitch(cut(candidates, own, region_l0, rng), geometry(region_l0), rule))
    return NucleiTable.concat(parts) if parts else candidates.select(np.zeros(0, np.int64))


def precedence(candidates: NucleiTable, own: Bool, row: int) -> tuple[object, ...]:
    x, y = candidates.prompt_xy[row].tolist()
    ring = candidates.xy[candidates.offsets[row] : candidates.offsets[row + 1]]
    return (not own[row], -float(candidates.score[row]), y, x, int(candidates.tile[row]), len(ring), ring.tolist())


def reference(candidates: NucleiTable, own: Bool, rule: StitchRule) -> dict[int, shapely.Geometry]:
    """Each row that stays, and what is left of its outline: the definition, for all pairs, with areas by GEOS."""
    shapes = [shapely.Polygon(candidates.xy[a:b]) for a, b in pairwise(candidates.offsets)]
    kept: list[int] = []
    lost: dict[int, list[int]] = {}
    for row in sorted(range(len(candidates)), key=lambda row: precedence(candidates, own, row)):
        common = {winner: _common(shapes[row], shapes[winner]) for winner in kept}
        if not any(_rivals(area, shapes[row].area, shapes[winner].area, rule) for winner, area in common.items()):
            kept.append(row)
            for winner, area in common.items():
                if area > 1e-6:
                    worse = (
                        area > shapes[row].area / 2 and area <= shapes[winner].area / 2 and own[row] == own[winner]
                    )
                    loser, owner = (winner, row) if worse else (row, winner)
                    lost.setdefault(loser, []).append(owner)
    left = {row: shapes[row] for row in kept}
    for row, owners in lost.items():
        parts = shapely.get_parts(shapes[row].difference(shapely.union_all([shapes[owner] for owner in owners])))
        largest = max(parts, key=shapely.area, default=None)
        if largest is None or largest.area < (1 - rule.containment) * shapes[row].area:
            del left[row]
        else:
            left[row] = largest
    return left


def _common(a: shapely.Polygon, b: shapely.Polygon) -> float:
    # GEOS may make a nested outline larger than itself by rounding.
    return float(min(a.intersection(b).area, a.area, b.area))


def _rivals(common: float, a: float, b: float, rule: StitchRule) -> bool:
    return common > rule.iou * (a + b - common) or common > rule.containment * min(a, b)


def agrees(result: NucleiTable, candidates: NucleiTable, left: dict[int, shapely.Geometry]) -> bool:
    """Whether the rows of a result are these: the same columns, and the same outlines except for rounding."""
    rows = np.array(sorted(left), np.int64)
    expected = candidates.select(rows)
    columns = [name.name for name in fields(expected) if name.name not in ("xy", "offsets")]
    shapes = np.array([left[row] for row in rows.tolist()], object)
    orders = [
        _by_columns(table, outlines) for table, outlines in ((expected, shapes), (result, result.polygons()))
    ]
    if len(expected) != len(result):
        return False
    same = [np.array_equal(getattr(expected, c)[orders[0]], getattr(result, c)[orders[1]], True) for c in columns]
    unlike = shapely.symmetric_difference(shapes[orders[0]], result.polygons()[orders[1]])
    return all(same) and bool(np.all(shapely.area(unlike) < 1e-4))


def _by_columns(table: NucleiTable, outlines: np.ndarray) -> np.ndarray:
    """An order that does not depend on the last bits of the outlines."""
    bounds = np.round(shapely.bounds(outlines), 3).reshape(-1, 4)
    keys = [table.score, table.tile, *table.prompt_xy.T, np.round(shapely.area(outlines), 3), *bounds.T]
    return np.lexsort(keys[::-1])


def rows_of(candidates: NucleiTable) -> list[tuple[object, ...]]:
    """Every row as plain values, sorted, to compare tables as sets."""
    return sorted(
        (*xy, float(score), int(tile), candidates.xy[a:b].tobytes())
        for xy, score, tile, a, b in zip(
            candidates.prompt_xy.tolist(),
            candidates.score,
            candidates.tile,
            candidates.offsets[:-1],
            candidates.offsets[1:],
            strict=True,
        )
    )


def identical(a: NucleiTable, b: NucleiTable) -> bool:
    """The same bytes in every column, in the same order."""
    return all(getattr(a, column.name).tobytes() == getattr(b, column.name).tobytes() for column in fields(a))
