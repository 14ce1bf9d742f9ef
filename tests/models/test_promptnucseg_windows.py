"""The plan of windows and prompts: all is covered, each prompt decoded once, with its nearest others as
negatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.errors import ModelError
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, Settings, UseSettings
from wsi_nuc.models.promptnucseg.windows import SLOTS, Layout, plan_jobs, window_starts
from wsi_nuc.models.sam.decoder import NEGATIVE, NO_POINT, POSITIVE
from wsi_nuc.types import Prompts


def _prompts(seed: int, count: int, side: float, rows: int = 1) -> Prompts:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, side, (count, 2)).astype(np.float32)
    probs = np.ones((count, 1), np.float32)
    return Prompts(xy, rng.uniform(size=count).astype(np.float32), probs, rng.integers(0, rows, count))


@given(length=st.integers(1, 2000), inset=st.integers(0, 100), overlap=st.integers(0, 128))
def test_windows_cover_what_is_inside_the_inset(length: int, inset: int, overlap: int) -> None:
    starts = window_starts(length, inset, overlap)
    assert bool((np.diff(starts) > 0).all())
    assert bool((np.diff(starts) <= WINDOW_PX - overlap).all())
    assert starts[0] <= inset
    assert starts[-1] + WINDOW_PX >= length - inset
    assert length <= WINDOW_PX or starts[-1] + WINDOW_PX <= length


@given(windows=st.integers(1, 8), overlap=st.integers(0, 64).map(lambda n: 2 * n), margin=st.integers(0, 16))
def test_a_planned_tile_has_the_windows_it_was_planned_for(windows: int, overlap: int, margin: int) -> None:
    try:
        use = UseSettings(windows=windows, overlap_px=overlap, margin_px=margin, largest_nucleus_px=96)
    except ModelError:
        return
    side = use.core_px + 2 * use.halo_px
    starts = Layout.of(side, side, use).x
    assert len(starts) == windows
    # Every prompt that may be wanted has at least half an overlap of pixels around it in its window.
    assert starts[0] == use.halo_px - margin - overlap // 2
    assert starts[-1] + WINDOW_PX == side - starts[0]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), count=st.integers(1, 120), negatives=st.integers(0, 4), rows=st.integers(1, 3))
def test_every_wanted_prompt_is_decoded_once_where_it_lies_most_central(
    seed: int, count: int, negatives: int, rows: int
) -> None:
    prompts = _prompts(seed, count, 600, rows)
    layout = Layout.of(600, 600, UseSettings())
    wanted = np.random.default_rng(seed).permutation(count)[: max(1, count // 2)]
    jobs = plan_jobs(prompts, wanted.tolist(), layout, negatives)
    decoded = np.concatenate([job.prompt for job in jobs])
    assert sorted(decoded.tolist()) == sorted(wanted.tolist())
    for job in jobs:
        start = np.array([job.window.x0, job.window.y0])
        assert job.slots in SLOTS
        for slot, prompt in enumerate(job.prompt):
            xy = prompts.xy_tile[prompt]
            assert prompts.row[prompt] == job.window.row
            assert job.label[slot, 0] == POSITIVE
            assert np.allclose(job.xy_window[slot, 0] + start, xy, atol=1e-3)
            central = [
                np.abs(at - (starts + 128)).min() for at, starts in zip(xy, (layout.x, layout.y), strict=True)
            ]
            assert np.allclose(np.abs(job.xy_window[slot, 0] - 128), central, atol=1e-3)
        assert bool((job.label[len(job.prompt) :] == NO_POINT).all())


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), count=st.integers(1, 40), negatives=st.integers(1, 4))
def test_negatives_are_the_nearest_other_points_of_the_window(seed: int, count: int, negatives: int) -> None:
    prompts = _prompts(seed, count, 400)
    for job in plan_jobs(prompts, range(count), Layout.of(400, 400, UseSettings()), negatives):
        start = np.array([job.window.x0, job.window.y0])
        inside = np.flatnonzero(((prompts.xy_tile >= start) & (prompts.xy_tile < start + WINDOW_PX)).all(1))
        for slot, prompt in enumerate(job.prompt):
            others = inside[inside != prompt]
            distance = np.sort(np.hypot(*(prompts.xy_tile[others] - prompts.xy_tile[prompt]).T))[:negatives]
            used = job.label[slot, 1:] == NEGATIVE
            actual = np.hypot(*(job.xy_window[slot, 1:][used] - job.xy_window[slot, 0]).T)
            assert np.allclose(actual, distance, atol=1e-3)
            assert bool((job.label[slot, 1:][~used] == NO_POINT).all())


def test_a_prompt_on_the_spot_of_another_takes_that_one_as_its_negative() -> None:
    xy = np.array([[50, 50], [50, 50], [90, 50]], np.float32)
    prompts = Prompts(xy, np.ones(3, np.float32), np.ones((3, 1), np.float32), np.zeros(3, np.int64))
    (job,) = plan_jobs(prompts, [0, 1, 2], Layout.of(256, 256, UseSettings()), 1)
    assert job.xy_window[:2, 1].tolist() == [[50, 50], [50, 50]]
    assert bool((job.label[:3, 1] == NEGATIVE).all())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("use", "overlap_px", 200), ("use", "precision", "fp8"), ("use", "negative", 1), ("prompter", "spase", 8)],
)
def test_a_header_with_a_wrong_key_or_value_is_refused_by_name(section: str, key: str, value: object) -> None:
    with pytest.raises(ModelError, match=key):
        Settings.from_header({"classes": ["a"], "mpp": 0.25, section: {key: value}})


def test_settings_survive_the_header() -> None:
    settings_ = Settings(("a", "b"), 0.5, use=UseSettings(negatives=2, windows=3))
    assert Settings.from_header(settings_.to_header()) == settings_
