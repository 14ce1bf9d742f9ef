"""Rings: every operation agrees with GEOS or with a plain loop, on arbitrary rings."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.datasets.labels import filled
from wsi_nuc.rings import Rings, chunks, largest_polygons, offsets_of, ranges, spans
from wsi_nuc.types import Box, Float64, Int64

COORDINATE = st.one_of(st.integers(-3, 12).map(float), st.integers(-6, 24).map(lambda v: v / 2), st.floats(-3, 12))
RING = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=7).map(np.array)
RINGS = st.lists(RING, max_size=6)
COUNTS = st.lists(st.integers(0, 5), max_size=8).map(lambda v: np.array(v, np.int64))
SEEDS = st.integers(0, 10_000)


@dataclass(frozen=True, slots=True)
class Named(Rings):
    name: Int64


def named(rings: list[Float64], first: int = 0) -> Named:
    plain = Rings.of(rings)
    return Named(plain.xy, plain.offsets, np.arange(first, first + len(rings)))


def rows_of(rings: Rings) -> list[list[list[float]]]:
    return [rings.ring(row).tolist() for row in range(len(rings))]


def star(seed: int, centre: tuple[float, float] = (0.0, 0.0), reach: float = 10.0) -> Float64:
    """A ring that sees every edge from its middle, so it is valid; anticlockwise for even seeds."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 40)))
    radius = rng.uniform(0.3, 1, len(angle)) * reach
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None] + centre
    return ring[::-1] if seed % 2 else ring


@settings(deadline=None)
@given(COUNTS, st.integers(1, 8))
def test_index_arithmetic_is_that_of_plain_loops(counts: Int64, at_once: int) -> None:
    starts = np.arange(len(counts)) * 100 + 7
    assert ranges(starts, counts).tolist() == [
        s + i for s, n in zip(starts, counts, strict=True) for i in range(n)
    ]
    owner, place = spans(counts)
    assert list(zip(owner, place, strict=True)) == [(row, i) for row, n in enumerate(counts) for i in range(n)]
    assert [b - a for a, b in pairwise(offsets_of(counts))] == counts.tolist()
    cuts = list(chunks(counts, at_once))
    assert [row for start, stop in cuts for row in range(start, stop)] == list(range(len(counts)))
    assert all(counts[a:b].sum() <= at_once or b == a + 1 for a, b in cuts)


@settings(deadline=None)
@given(RINGS, RINGS, st.data())
def test_selecting_and_joining_moves_whole_rings_with_all_of_their_columns(
    first: list[Float64], second: list[Float64], data: st.DataObject
) -> None:
    both = named(first).concat([named(first), named(second, len(first))])
    assert isinstance(both, Named)
    everything = [ring.tolist() for ring in [*first, *second]]
    assert rows_of(both) == everything
    rows = data.draw(st.lists(st.sampled_from(range(len(both))), max_size=8)) if len(both) else []
    taken = both.select(np.array(rows, np.int64))
    assert rows_of(taken) == [everything[row] for row in rows]
    assert taken.name.tolist() == rows
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(both), max_size=len(both))), np.bool_)
    assert both.select(mask).name.tolist() == np.flatnonzero(mask).tolist()
    start = data.draw(st.integers(0, len(both)))
    stretch = both.between(start, len(both))
    assert rows_of(stretch) == everything[start:]
    assert stretch.name.tolist() == list(range(start, len(both)))


@settings(deadline=None)
@given(RINGS)
def test_a_ring_goes_to_shapely_and_back(rings: list[Float64]) -> None:
    # Shapely takes a ring that ends where it begins as closed already.
    rings = [ring for ring in rings if not (ring[0] == ring[-1]).all()]
    table = Rings.of(rings)
    polygons = table.polygons()
    assert [shapely.get_coordinates(p).tolist() for p in polygons] == [[*r.tolist(), r[0].tolist()] for r in rings]
    assert rows_of(Rings.of_polygons(polygons)) == rows_of(table)
    assert rows_of(table.closed()) == [[*ring, ring[0]] for ring in rows_of(table)]
    assert np.array_equal(table.bounds(), shapely.bounds(polygons).reshape(-1, 4))
    assert np.array_equal(
        table.xy[table.successors], np.concatenate([table.xy[:0], *(np.roll(r, -1, 0) for r in rings)])
    )


def test_holes_and_empty_polygons_are_not_part_of_the_outer_rings() -> None:
    holed = shapely.box(0, 0, 9, 9).difference(shapely.box(3, 3, 4, 4))
    rings = Rings.of_polygons(np.array([shapely.Polygon(), holed, shapely.Polygon(), shapely.box(1, 1, 2, 2)]))
    assert rings.ring_lengths.tolist() == [0, 4, 0, 4]
    assert rings.select(np.array([1, 3])).areas_and_centres()[0].tolist() == [81, 1]


@settings(deadline=None)
@given(st.lists(SEEDS, max_size=5), st.floats(-5e5, 5e5))
def test_areas_and_centres_are_those_of_geos_wherever_a_ring_lies(seeds: list[int], shift: float) -> None:
    rings = Rings.of([star(seed) + shift for seed in seeds])
    polygons, (area, centre) = rings.polygons(), rings.areas_and_centres()
    assert area == pytest.approx(shapely.area(polygons), rel=1e-6)
    assert centre == pytest.approx(shapely.get_coordinates(shapely.centroid(polygons)).reshape(-1, 2), abs=1e-5)
    signed = rings.signed_areas()
    assert np.array_equal(np.abs(signed), area)
    assert (signed > 0).tolist() == [seed % 2 == 0 for seed in seeds]
    assert rings.signed_areas(centre) == pytest.approx(signed, rel=1e-6)


def test_a_flat_ring_has_no_area_and_its_mean_vertex_as_centre() -> None:
    area, centre = Rings.of([np.array([[10.0, 10.0], [20.0, 10.0], [30.0, 10.0]])]).areas_and_centres()
    assert (area.tolist(), centre.tolist()) == ([0.0], [[20.0, 10.0]])


def crossings(rings: list[Float64], y: float) -> list[float]:
    return [
        x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        for ring in rings
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True)
        if y0 <= y < y1 or y1 <= y < y0
    ]


@given(st.lists(RING, min_size=1, max_size=3), st.integers(-3, 3), st.integers(-3, 3))
@settings(max_examples=150, deadline=None)
def test_filling_is_the_rule_of_even_and_odd_at_every_pixel_centre(rings: list[Float64], x0: int, y0: int) -> None:
    image = Rings.of(rings).fill(np.array([5]), Box(x0, y0, x0 + 9, y0 + 8), np.zeros(len(rings), np.int64))
    for row, column in np.ndindex(8, 9):
        x = x0 + column + 0.5
        left = [crossing - x for crossing in crossings(rings, y0 + row + 0.5)]
        # A crossing within rounding of a centre may fall on either side of it.
        if min(map(abs, left), default=1.0) > 1e-9:
            assert image[row, column] == 5 * (sum(gap < 0 for gap in left) % 2)


@given(st.lists(SEEDS, min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_many_rings_fill_as_each_alone_would_the_last_one_on_top(seeds: list[int]) -> None:
    box, ids = Box(-8, -6, 9, 7), np.arange(3, 3 + len(seeds))
    rings = [star(seed, (seed % 5 - 2.0, seed % 7 - 3.0)) for seed in seeds]
    expected = np.zeros((box.height, box.width), np.int32)
    for ring, number in zip(rings, ids, strict=True):
        alone = Rings.of([ring]).fill(np.array([number]), box)
        expected[alone > 0] = number
    assert np.array_equal(Rings.of(rings).fill(ids, box), expected)


@given(st.integers(4, 12))
@settings(max_examples=5, deadline=None)
def test_the_area_of_a_disc_is_unbiased_over_its_places_on_the_grid(radius: int) -> None:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    disc = np.stack([20 + radius * np.cos(angle), 20 + radius * np.sin(angle)], 1)
    shifts = np.stack(np.meshgrid(*[np.linspace(0, 1, 16, endpoint=False)] * 2), -1).reshape(-1, 2) + 0.01
    pixels, _ = Rings.of([disc + shift for shift in shifts]).covered(Box(0, 0, 40, 40))
    assert abs(len(pixels) / len(shifts) / shapely.Polygon(disc).area - 1) < 0.005


def test_rings_that_share_an_edge_share_no_pixel_and_leave_no_gap() -> None:
    left = np.array([[2.3, 2.0], [10.7, 2.0], [9.2, 14.0], [2.3, 14.0]])
    right = np.array([[10.7, 2.0], [18.0, 2.0], [18.0, 14.0], [9.2, 14.0]])
    pixel, owner = Rings.of([left, right]).covered(Box(0, 0, 20, 20))
    assert len(np.unique(pixel)) == len(pixel) == 12 * 16
    assert set(owner.tolist()) == {0, 1}


def test_a_hole_stays_open_and_what_two_outlines_claim_is_counted() -> None:
    outer = np.array([[1, 1], [7, 1], [7, 6], [1, 6]], float)
    hole = np.array([[3, 2], [5, 2], [5, 4], [3, 4]], float)
    labels, contested = filled([[outer, hole], [hole]], 9, 8)
    assert (contested, (labels == 1).sum()) == (0, 30 - 4)
    assert np.argwhere(labels == 2).tolist() == [[2, 3], [2, 4], [3, 3], [3, 4]]
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)
    labels, contested = filled([[square], [square + 2]], 8, 8)
    assert (contested, (labels == 1).sum(), (labels == 2).sum()) == (4, 12, 16)


def test_nothing_is_filled_by_no_rings_or_by_rings_outside() -> None:
    far = np.array([[20, 20], [24, 20], [24, 24]], float)
    assert not Rings.of([]).fill(np.zeros(0, np.int64), Box(0, 0, 4, 5)).any()
    assert not Rings.of([far, far - 40]).fill(np.array([1, 2]), Box(0, 0, 8, 8)).any()
    assert Rings.of([far]).fill(np.array([1]), Box(3, 3, 3, 9)).shape == (6, 0)


def test_the_largest_polygon_is_found_within_whatever_holds_it() -> None:
    small, large, line = shapely.box(0, 0, 1, 1), shapely.box(5, 5, 8, 8), shapely.LineString([(0, 0), (50, 50)])
    several = shapely.MultiPolygon([small, large])
    mixed = shapely.GeometryCollection([line, several])
    even = shapely.MultiPolygon([shapely.box(3, 3, 4, 4), small])
    flat = shapely.Polygon([(0, 0), (4, 4), (8, 8)])
    largest = largest_polygons([small, several, mixed, line, flat, shapely.Polygon(), None, even]).tolist()
    assert largest == [small, large, large, None, None, None, None, shapely.box(3, 3, 4, 4)]
    assert largest_polygons(np.zeros(0, object)).tolist() == []
