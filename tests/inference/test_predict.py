"""Which nuclei a tile answers for, and what happens when a model misbehaves. The model is a stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.looking import model_of
from wsi_nuc.errors import ModelError, SlideError
from wsi_nuc.inference.predict import predict, predict_counted
from wsi_nuc.models.base import ModelSpec, NucleiModel, check_geometry
from wsi_nuc.types import Box, MaskCrops, Prompts, Tile, TileBatch

SPEC = ModelSpec("stand-in", ("a", "b"), 0.5, 32, 24, 12, 4, 4, "0" * 64)
EDGE = SPEC.core_px + 2 * SPEC.halo_px


class StandIn:
    """Proposes the dark pixels of the image as prompts. Masks are squares of 7 px. Notes how it was called."""

    def __init__(self, fits: int = 99, error: type[BaseException] = MemoryError) -> None:
        self.fits, self.error = fits, error
        self.batches: list[int] = []
        self.spoil_score = self.spoil_mask = False

    def propose(self, batch: TileBatch) -> Prompts:
        self.batches.append(len(batch.rgb))
        if len(batch.rgb) > self.fits:
            raise self.error("no room")
        row, y, x = np.nonzero(batch.rgb[..., 0] == 0)
        score = np.full(len(x), np.nan if self.spoil_score else 0.5, np.float32)
        even = np.full((len(x), 2), 0.5, np.float32)
        return Prompts(np.stack([x, y], axis=1).astype(np.float32) + 0.5, score, even, row.astype(np.int64))

    def segment(self, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> Sequence[MaskCrops]:
        chosen = np.array(wanted)
        mask = np.zeros((len(chosen), 9, 9), np.uint8)
        mask[:, 1:8, 1:8] = 1
        origin = np.floor(prompts.xy_tile[chosen]).astype(np.int64) - 4
        score = np.full(len(chosen), np.inf if self.spoil_mask else 0.8, np.float32)
        unknown = np.full(len(chosen), np.nan, np.float32)
        probs = np.tile(np.float32([0.25, 0.75]), (len(chosen), 1))
        whole = MaskCrops(mask, origin, chosen, score, unknown, probs)
        # In two parts and in reversed order, as a model with several crop sizes may return them.
        half = len(chosen) // 2
        return [_rows(whole, slice(half, None)), _rows(whole, slice(0, half))]


def _rows(crops: MaskCrops, rows: slice) -> MaskCrops:
    names = ("mask", "origin_tile", "prompt", "score", "predicted_iou", "class_probs")
    return MaskCrops(*(getattr(crops, name)[rows] for name in names))


def model(stand_in: StandIn) -> NucleiModel:
    return model_of(SPEC, stand_in)


def batch_of(points: Sequence[tuple[int, int, int]], tiles: int = 1) -> TileBatch:
    """`points`: row, x, y in tile pixels."""
    rgb = np.full((tiles, EDGE, EDGE, 3), 255, np.uint8)
    for row, x, y in points:
        rgb[row, y, x] = 0
    cores = [Box(32 * k, 64, 32 * k + 32, 96) for k in range(tiles)]
    return TileBatch(rgb, tuple(Tile(10 + k, c, c.grow(SPEC.halo_px)) for k, c in enumerate(cores)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, EDGE - 1), st.integers(0, EDGE - 1))
def test_core_and_margin_decide_half_open(x: int, y: int) -> None:
    nuclei, own = predict(model(StandIn()), batch_of([(0, x, y)]))
    low, high = SPEC.halo_px, SPEC.halo_px + SPEC.core_px
    inside = [low - m <= v < high + m for m in (SPEC.margin_px, 0) for v in (x, y)]
    assert len(nuclei) == int(inside[0] and inside[1])
    assert own.tolist() == ([inside[2] and inside[3]] if len(nuclei) else [])


def test_columns_belong_to_their_prompts_whatever_the_order_of_crops() -> None:
    points = [(0, 30, 30), (0, 50, 40), (1, 26, 50), (2, 44, 44), (2, 30, 33)]
    nuclei, own = predict(model(StandIn()), batch_of(points, tiles=3))
    assert sorted(nuclei.tile.tolist()) == [10, 10, 11, 12, 12]
    assert own.all()
    centres = np.add.reduceat(nuclei.xy, nuclei.offsets[:-1]) / nuclei.ring_lengths[:, None]
    assert np.allclose(centres, nuclei.prompt_xy, atol=0.3)
    assert np.array_equal(nuclei.tile, np.sort(nuclei.tile))
    assert nuclei.class_id.tolist() == [1] * 5
    assert np.isnan(nuclei.predicted_iou).all()


def test_the_last_batch_is_padded_and_padding_leaves_no_trace() -> None:
    stand_in = StandIn()
    points = [(k, 30, 30) for k in range(6)]
    nuclei, _ = predict(model(stand_in), batch_of(points, tiles=6))
    assert stand_in.batches == [4, 4]
    assert nuclei.tile.tolist() == list(range(10, 16))


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_out_of_memory_halves_the_batch_and_changes_nothing(fits: int) -> None:
    batch = batch_of([(k, 30 + k, 30) for k in range(7)], tiles=7)
    expected, _ = predict(model(StandIn()), batch)
    tight = StandIn(fits)
    nuclei, own = predict(model(tight), batch)
    assert np.array_equal(nuclei.xy, expected.xy)
    assert np.array_equal(nuclei.tile, expected.tile)
    assert own.all()
    assert min(tight.batches) == 2 ** int(np.log2(fits))


def test_out_of_device_memory_of_torch_counts_as_well() -> None:
    torch = pytest.importorskip("torch")
    tight = StandIn(1, torch.cuda.OutOfMemoryError)
    nuclei, _ = predict(model(tight), batch_of([(0, 30, 30), (1, 30, 30)], tiles=2))
    assert len(nuclei) == 2


def test_a_tile_that_never_fits_is_named_with_a_remedy() -> None:
    with pytest.raises(SlideError, match="tile 10: out of memory") as caught:
        predict(model(StandIn(0)), batch_of([(0, 30, 30)]))
    assert caught.value.exit_code == 3
    assert caught.value.remedy


@pytest.mark.parametrize("what", ["spoil_score", "spoil_mask"])
def test_numbers_that_are_not_finite_name_the_tile(what: str) -> None:
    stand_in = StandIn()
    setattr(stand_in, what, True)
    with pytest.raises(SlideError, match=r"tile 11: .*not finite") as caught:
        predict(model(stand_in), batch_of([(1, 30, 30)], tiles=2))
    assert caught.value.exit_code == 3


def test_nothing_found_is_an_empty_table_of_all_classes() -> None:
    prediction = predict_counted(model(StandIn()), batch_of([], tiles=2))
    assert len(prediction.nuclei) == 0
    assert prediction.nuclei.class_probs.shape == (0, 2)
    assert prediction.own.shape == (0,)


@pytest.mark.parametrize(
    "change",
    [{"halo_px": 15}, {"largest_nucleus_px": 21}, {"margin_px": 13}, {"mpp": float("nan")}, {"classes": ()}],
)
def test_a_geometry_that_would_cut_nuclei_is_refused(change: dict[str, object]) -> None:
    check_geometry(SPEC)
    with pytest.raises(ModelError) as caught:
        check_geometry(replace(SPEC, **change))  # type: ignore[arg-type]
    assert caught.value.exit_code == 4
    assert caught.value.remedy
