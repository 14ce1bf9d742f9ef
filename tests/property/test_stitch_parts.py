"""The parts of stitching, each against something slower that is obviously right."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stitch.scenes import crowd, ellipse, geometry, table
from wsi_nuc.stitch.crossing import meetings
from wsi_nuc.stitch.geometry import Frontier
from wsi_nuc.stitch.overlap import Octagons, intersection_areas, overlapping
from wsi_nuc.stitch.precedence import rank

SEEDS = st.integers(0, 2**32 - 1)


def _star(rng: np.random.Generator, at: np.ndarray) -> np.ndarray:
    """A simple, usually concave ring."""
    count = int(rng.integers(3, 14))
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    ring = at + rng.uniform(3, 20, (count, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return ring if rng.random() < 0.5 else ring[::-1]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, offset=st.sampled_from([0.0, 50_000.0, 1_000_000.0]))
def test_areas_agree_with_geos(seed, offset):
    rng = np.random.default_rng(seed)
    rings = [np.round(_star(rng, rng.uniform(0, 30, 2)) * 4) / 4 + offset for _ in range(12)]
    nuclei = table(rings, np.ones(12))
    shapes = np.array([shapely.Polygon(ring) for ring in rings])
    a, b = np.triu_indices(12, 1)
    valid = shapely.is_valid(shapes)
    a, b = a[valid[a] & valid[b]], b[valid[a] & valid[b]]
    exact = shapely.area(shapely.intersection(shapes[a], shapes[b]))
    assert intersection_areas(nuclei, a, b) == pytest.approx(exact, abs=1e-6)
    octagons = Octagons.of(nuclei, nuclei.bounds())
    assert np.all(octagons.unions(a, b) >= shapely.area(shapely.union(shapes[a], shapes[b])) - 1e-6)
    assert np.all(octagons.meet(a, b) | (exact == 0))


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, offset=st.sampled_from([0.0, 100_000.0]), step=st.sampled_from([1 / 64, 1 / 4, 2.0]))
def test_crossings_and_what_is_left_agree_with_geos(seed, offset, step):
    """On a coarse grid, vertices often lie on edges of others, and edges on each other."""
    rng = np.random.default_rng(seed)
    drawn = [np.round(_star(rng, rng.uniform(0, 30, 2)) / step) * step + offset for _ in range(12)]
    rings = [ring for ring in drawn if shapely.Polygon(ring).is_valid]
    nuclei = table(rings, np.ones(len(rings)))
    shapes = nuclei.polygons()
    a, b = np.nonzero(~np.eye(len(rings), dtype=bool))
    met = meetings(nuclei, nuclei.bounds(), nuclei.signed_areas() > 0, (a, b))
    edges = shapely.boundary(shapes)
    assert met.apart.tolist() == shapely.disjoint(edges[a], edges[b]).tolist()
    points = shapely.intersection(edges[a], edges[b])
    twice = (shapely.get_num_geometries(points) == 2) & (shapely.get_type_id(points) == 4)
    assert np.all(twice | ~met.twice)
    # On a fine grid, what is called touching is rare.
    assert step > 1 / 64 or met.twice.sum() >= 0.9 * twice.sum()
    rest, expected = met.rest.polygons(), shapely.difference(shapes[a], shapes[b])[met.twice]
    assert shapely.is_valid(rest).all()
    assert shapely.area(shapely.symmetric_difference(rest, expected)).max(initial=0) < 1e-6


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(0, 80), widest=st.sampled_from([2.0, 40.0, 400.0]))
def test_box_pairs_are_all_and_each_once(seed, count, widest):
    rng = np.random.default_rng(seed)
    low = rng.integers(-100, 100, (count, 2))
    bounds = np.hstack([low, low + rng.uniform(0, widest, (count, 2)).round()]).astype(float)
    pairs = [
        tuple(sorted(pair)) for a, b in overlapping(bounds) for pair in zip(a.tolist(), b.tolist(), strict=True)
    ]
    x0, y0, x1, y1 = bounds.T
    share = (x0[:, None] < x1) & (x0 < x1[:, None]) & (y0[:, None] < y1) & (y0 < y1[:, None])
    assert sorted(pairs) == [tuple(pair) for pair in np.argwhere(np.triu(share, 1)).tolist()]


@settings(max_examples=200, deadline=None)
@given(
    cell=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    later=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    edge=st.integers(90, 140),
    seed=SEEDS,
)
def test_what_is_closed_can_no_longer_be_touched(cell, later, edge, seed):
    """A nucleus of a region that is yet to come overlaps no closed box and opens no finished block."""
    frame = geometry(edge)
    later = max(cell, later)
    rng = np.random.default_rng(seed)
    inside = rng.uniform(-frame.margin_l0, edge + frame.margin_l0, (50, 2))
    inside[:2] = [-frame.margin_l0, -frame.margin_l0], [edge, -frame.margin_l0]
    prompt = np.array([later[1], later[0]]) * edge + inside
    come = np.hstack([prompt - frame.reach_l0, prompt + frame.reach_l0])
    low = rng.uniform(-50, 600, (200, 2))
    seen = np.hstack([low, low + rng.uniform(1, 40, (200, 2))])
    frontier = Frontier.before(frame, cell)
    closed = seen[frontier.closed(seen)]
    assert not np.any(np.all((closed[:, None, :2] < come[:, 2:]) & (come[:, :2] < closed[:, None, 2:]), axis=2))
    assert min(map(tuple, frame.blocks(prompt).tolist())) >= frontier.first_open_block()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 60))
def test_rank_depends_on_content_alone(seed, count):
    candidates, own = crowd(seed, count, edge=80)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(candidates))
    moved = candidates.select(shuffled)
    before = np.argsort(rank(candidates, own, np.arange(len(own))))
    after = np.argsort(rank(moved, own[shuffled], np.arange(len(own))))
    ranked, ranked_again = candidates.select(before), moved.select(after)
    assert ranked.xy.tobytes() == ranked_again.xy.tobytes()
    assert ranked.tile.tobytes() == ranked_again.tile.tobytes()


def test_area_of_a_shape_with_itself_is_its_area():
    nuclei = table([ellipse(1e5, 2e5, 12, 7, 0.3)], [1.0])
    both = np.array([0])
    assert intersection_areas(nuclei, both, both) == pytest.approx(abs(nuclei.signed_areas()), rel=1e-9)
