"""The random fields depend only on seed and place, not on how they are computed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.synth.noise import Field, Noise, uniform


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
def test_uniform_is_in_range_and_the_same_alone_or_in_an_array(seed, x, y):
    many = uniform(seed, np.arange(x, x + 5), y)
    assert ((many >= 0) & (many < 1)).all()
    assert uniform(seed, x + 3, y) == many[3]
    assert len(set(many.tolist())) == 5


def test_uniform_is_uniform_and_keys_do_not_commute():
    column, row = np.meshgrid(np.arange(200), np.arange(200))
    values = uniform(7, column, row)
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    assert abs(counts - 2000).max() < 250
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.02
    assert uniform(7, 3, 5) != uniform(7, 5, 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-1e4, 1e5), st.floats(3, 500))
def test_grid_and_points_agree(seed, start_um, scale_um):
    field = Field(((1.0, Noise(seed, 1, scale_um)), (0.5, Noise(seed, 2, scale_um / 3))))
    x_um, y_um = start_um + np.arange(20) * 1.7, start_um / 2 + np.arange(15) * 2.3
    grid = field.grid(x_um, y_um)
    column, row = np.meshgrid(x_um, y_um)
    assert np.allclose(grid.ravel(), field.at(column.ravel(), row.ravel()), atol=1e-4)


def test_noise_has_unit_variance_and_is_smooth():
    grid = Noise(3, 1, 10.0).grid(np.arange(0, 3000, 2.0), np.arange(0, 3000, 2.0))
    assert abs(grid.mean()) < 0.1
    assert 0.8 < grid.std() < 1.2
    assert abs(np.diff(grid, axis=1)).max() < 1.2
