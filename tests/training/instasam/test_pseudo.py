"""The pseudo-labels against the paper's formulas, written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.models.hv import hv_of
from wsi_nuc.training.instasam.config import PseudoConfig
from wsi_nuc.training.instasam.pseudo import IGNORED, distance_maps, refined

SIZE = 8


def windows(seed: int, dots: int, side: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of `dots` windows at random places of two maps; some of them hang over the edge."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 4, (dots, side, side)).astype(np.float32))
    origin = torch.from_numpy(rng.integers(-3, SIZE - 3, (dots, 2)))
    return logits, origin, torch.from_numpy(rng.integers(0, 2, dots))


def probabilities(
    logits: torch.Tensor, origin: torch.Tensor, row: torch.Tensor, b: int, y: int, x: int
) -> list[float]:
    """sigma(m_k(j)) for all k; 0 outside of a window and in other images."""
    at = []
    for k in range(len(logits)):
        wx, wy = x - int(origin[k, 0]), y - int(origin[k, 1])
        inside = int(row[k]) == b and 0 <= wx < logits.shape[2] and 0 <= wy < logits.shape[1]
        at.append(1 / (1 + math.exp(-float(logits[k, wy, wx]))) if inside else 0.0)
    return at


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), dots=st.integers(0, 6), overlap=st.booleans(),
       entropy=st.sampled_from(["printed", "binary", "off"]))  # fmt: skip
def test_labels_are_those_of_equations_2_to_4(seed: int, dots: int, overlap: bool, entropy: str) -> None:
    rule = PseudoConfig.model_validate({"entropy": entropy, "overlap": overlap})
    logits, origin, row = windows(seed, dots)
    labels = refined(logits, origin, row, (2, SIZE, SIZE), rule).labels
    for b, y, x in np.ndindex(2, SIZE, SIZE):
        p = probabilities(logits, origin, row, b, y, x)
        claims = sum(value > rule.delta for value in p)
        best = max(p, default=0.0)
        # -p log p - (1 - p) log (1 - p) of the winner, or -p log p over all nuclei; 0 log 0 is 0.
        terms = [-value * math.log(value) for value in p if value > 0]
        if entropy == "binary":
            terms = [-value * math.log(value) for value in (best, 1 - best) if value > 0]
        chaos = sum(terms) if entropy != "off" else 0.0
        if abs(chaos - rule.epsilon) < 1e-4:
            continue
        if chaos >= rule.epsilon or (overlap and claims >= 2):
            expected = IGNORED
        else:
            expected = int(np.argmax([rule.delta, *p]))
        assert int(labels[b, y, x]) == expected


def test_printed_entropy_ignores_where_many_nuclei_are_faint_and_binary_entropy_does_not() -> None:
    faint = torch.full((8, 1, 1), math.log(0.06 / 0.94))
    place = torch.zeros((8, 2), dtype=torch.int64), torch.zeros(8, dtype=torch.int64), (1, 1, 1)
    assert refined(faint, *place, PseudoConfig(entropy="printed")).uncertain.all()
    assert refined(faint, *place, PseudoConfig(entropy="binary")).labels.item() == 0


def test_reasons_name_every_ignored_pixel() -> None:
    logits, origin, row = windows(1, 6)
    pseudo = refined(logits, origin, row, (2, SIZE, SIZE), PseudoConfig())
    assert torch.equal(pseudo.labels == IGNORED, pseudo.uncertain | pseudo.claimed)
    assert pseudo.uncertain.any()
    assert pseudo.claimed.any()


@pytest.mark.parametrize("seed", range(4))
def test_distances_run_from_minus_one_to_one_over_each_whole_nucleus(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    labels = np.zeros((2, 64, 64), np.int64)
    for i, (rx, ry) in enumerate(rng.uniform(2, 9, (18, 2))):
        cx, cy = 11 + 20 * (i // 2 % 3), 11 + 20 * (i // 6)
        labels[i % 2][((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1] = i + 1
    maps, known = distance_maps(torch.from_numpy(labels))
    assert torch.equal(known, torch.from_numpy(labels) > 0)
    assert (maps[:, :, ~known.any(0)] == 0).all()
    for b in range(2):
        for i in np.unique(labels[b])[1:]:
            inside = torch.from_numpy(labels[b] == i)
            for axis in range(2):
                values = maps[b, axis][inside]
                assert float(values.min()) == pytest.approx(-1)
                assert float(values.max()) == pytest.approx(1)
        # The decoder's own maps differ only in where the centre is rounded to.
        assert np.abs(maps[b].numpy() - hv_of(labels[b].astype(np.int32))).max() < 0.35


def test_a_nucleus_that_the_edge_cuts_has_no_distances() -> None:
    labels = torch.zeros((1, 16, 16), dtype=torch.int64)
    labels[0, 4:8, 0:5], labels[0, 9:13, 6:11] = 1, 2
    _, known = distance_maps(labels)
    assert torch.equal(known, labels == 2)
    assert not distance_maps(torch.zeros_like(labels))[1].any()
