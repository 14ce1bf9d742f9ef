"""The truth is disjoint, valid and local."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.synth.anatomy import Anatomy
from wsi_nuc.synth.nuclei import CLASS_OF_KIND, REACH_UM
from wsi_nuc.synth.spec import SynthSpec
from wsi_nuc.synth.truth import visible_nuclei


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return Anatomy(SynthSpec(size=6000, seed=3, tissue=0.9))


def by_place(visible) -> dict[tuple[float, float], bytes]:
    return dict(zip(map(tuple, visible.origin.xy_um), shapely.to_wkb(visible.polygon), strict=True))


@settings(max_examples=8, deadline=None)
@given(st.floats(0, 1200), st.floats(0, 1200), st.floats(0.2, 0.8))
def test_a_nucleus_is_the_same_in_every_box_that_holds_its_centre(anatomy, x_um, y_um, share):
    whole = visible_nuclei(anatomy, (x_um, y_um, x_um + 160, y_um + 140))
    middle = x_um + 160 * share
    parts = [
        visible_nuclei(anatomy, (x_um, y_um, middle, y_um + 140)),
        visible_nuclei(anatomy, (middle, y_um, x_um + 160, y_um + 140)),
    ]
    assert len(whole) == len(parts[0]) + len(parts[1])
    assert by_place(whole) == by_place(parts[0]) | by_place(parts[1])


def test_polygons_are_valid_disjoint_and_compact(anatomy):
    visible = visible_nuclei(anatomy, (200.0, 200.0, 600.0, 600.0))
    assert len(visible) > 300
    assert shapely.is_valid(visible.polygon).all()
    a, b = shapely.STRtree(visible.polygon).query(visible.polygon, predicate="intersects")
    pairs = a < b
    overlap = shapely.area(shapely.intersection(visible.polygon[a[pairs]], visible.polygon[b[pairs]]))
    assert overlap.max(initial=0) < 1e-6
    bounds = shapely.bounds(visible.polygon) * anatomy.spec.mpp
    assert (bounds[:, 2:] - bounds[:, :2]).max() <= 2 * REACH_UM + 1


def test_some_nuclei_touch_and_every_class_occurs(anatomy):
    visible = visible_nuclei(anatomy, (0.0, 0.0, 1400.0, 700.0))
    touching, _ = shapely.STRtree(visible.polygon).query(visible.polygon, predicate="touches")
    assert len(touching) > 0.05 * len(visible)
    share = np.bincount(CLASS_OF_KIND[visible.origin.kind], minlength=4) / len(visible)
    assert (share > 0.005).all()


def test_density_scales_the_number_of_nuclei():
    box_um = (0.0, 0.0, 700.0, 700.0)
    few, many = (
        len(visible_nuclei(Anatomy(SynthSpec(size=3000, seed=3, tissue=1.0, density=d)), box_um))
        for d in (0.5, 1.0)
    )
    assert 0.35 * many < few < 0.75 * many
    assert not len(visible_nuclei(Anatomy(SynthSpec(size=3000, density=0.0, tissue=1.0)), box_um))
