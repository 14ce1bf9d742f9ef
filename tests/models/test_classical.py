"""The classical model: local, indifferent to where a tile begins, and of some use on real tissue."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from tests.models.tiles import one_tile, scene
from wsi_nuc.errors import ModelError, SlideError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.classical.foreground import scene_of
from wsi_nuc.models.classical.masks import Shapes, flood
from wsi_nuc.models.classical.segmentor import class_probabilities
from wsi_nuc.models.classical.settings import CROP_PX, HALO_PX, MARGIN_PX, Parameters, from_state, to_state
from wsi_nuc.models.registry import load_model
from wsi_nuc.nuclei import TileNuclei
from wsi_nuc.types import Box, Float64, UInt8


@pytest.fixture(scope="module")
def model() -> NucleiModel:
    return load_model("classical")


def in_scene(rgb: UInt8, core: Box, model: NucleiModel, halo_px: int = HALO_PX) -> TileNuclei:
    """Nuclei whose point lies in the core, in pixels of the scene."""
    nuclei, own = predict(model, one_tile(rgb, core, halo_px))
    nuclei = nuclei.select(own)
    corner = np.array([core.x0 - halo_px, core.y0 - halo_px])
    return replace(nuclei, xy=nuclei.xy + corner, prompt_xy=nuclei.prompt_xy + corner)


def assert_same(actual: TileNuclei, expected: TileNuclei) -> None:
    assert np.array_equal(actual.prompt_xy, expected.prompt_xy)
    assert np.array_equal(actual.offsets, expected.offsets)
    assert np.allclose(actual.xy, expected.xy, rtol=0, atol=1e-9)
    assert np.array_equal(actual.score, expected.score)
    assert np.array_equal(actual.class_probs, expected.class_probs)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 70), st.integers(1, 70))
def test_the_same_pixels_give_the_same_nuclei_wherever_the_tile_begins(seed: int, dx: int, dy: int) -> None:
    model, rgb = load_model("classical"), scene(seed, 480)
    core = Box(200, 200, 270, 270)
    whole = in_scene(rgb, core, model)
    moved = in_scene(rgb, core.shift(-dx, -dy), model)
    shared = core.intersect(core.shift(-dx, -dy))
    assume(len(whole))
    assert_same(_within(whole, shared), _within(moved, shared))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_pixels_beyond_the_halo_do_not_matter(seed: int) -> None:
    model, rgb = load_model("classical"), scene(seed, 480)
    core = Box(210, 210, 270, 270)
    changed = scene(seed + 1, 480, spacing_px=18)
    seen = core.grow(HALO_PX)
    changed[seen.y0 : seen.y1, seen.x0 : seen.x1] = rgb[seen.y0 : seen.y1, seen.x0 : seen.x1]
    assert_same(in_scene(rgb, core, model, 200), in_scene(changed, core, model, 200))


def _within(nuclei: TileNuclei, box: Box) -> TileNuclei:
    x, y = nuclei.prompt_xy.T
    return nuclei.select((x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1))


def test_a_tile_does_not_depend_on_the_tiles_beside_it(model: NucleiModel) -> None:
    a, b = (one_tile(scene(seed, 200), Box(0, 0, 200, 200), 40, seed) for seed in (1, 2))
    both = type(a)(np.concatenate([a.rgb, b.rgb]), a.tiles + b.tiles)
    wider = replace(model, spec=replace(model.spec, batch=2))
    together, _ = predict(wider, both)
    for batch in (a, b):
        alone, _ = predict(model, batch)
        assert len(alone) > 5
        assert_same(together.select(together.tile == batch.tiles[0].index), alone)


def test_most_drawn_nuclei_are_found_once(model: NucleiModel) -> None:
    rgb = scene(5, 300, spacing_px=40)
    rng = np.random.default_rng(5)
    centres = rng.uniform(0, 300, ((300 // 40) ** 2, 2))  # the first draw of the scene
    nuclei = in_scene(rgb, Box(0, 0, 300, 300), model)
    far, _ = cKDTree(nuclei.prompt_xy).query(centres)
    assert np.mean(far < 6) > 0.85
    assert 0.7 * len(centres) < len(nuclei) < 1.4 * len(centres)


def test_no_outline_reaches_beyond_the_promised_size(model: NucleiModel) -> None:
    nuclei = in_scene(scene(9, 400, spacing_px=14), Box(0, 0, 400, 400), model)
    x0, y0, x1, y1 = nuclei.bounds().T
    px, py = nuclei.prompt_xy.T
    reach = np.max([px - x0, x1 - px, py - y0, y1 - py])
    assert reach <= CROP_PX / 2 + 1
    assert np.maximum(x1 - x0, y1 - y0).max() <= model.spec.largest_nucleus_px


def _noise(low: int, high: int) -> UInt8:
    return np.random.default_rng(0).integers(low, high, (200, 200, 3)).astype(np.uint8)


def _ink(colour: tuple[int, int, int]) -> UInt8:
    rgb = np.full((200, 200, 3), 240, np.uint8)
    cv2.line(rgb, (10, 20), (190, 160), colour, 30)
    return np.clip(rgb + np.random.default_rng(0).normal(0, 3, rgb.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("rgb", "most"),
    [
        (np.full((200, 200, 3), 255, np.uint8), 0),
        (np.zeros((200, 200, 3), np.uint8), 0),
        (_noise(225, 250), 0),
        (_noise(0, 12), 0),
        (_ink((20, 60, 160)), 3),
        (_ink((20, 120, 60)), 3),
        (_ink((15, 15, 15)), 3),
        (_ink((190, 30, 40)), 3),
    ],
    ids=["white", "black", "pale noise", "dark noise", "blue ink", "green ink", "black ink", "red ink"],
)
def test_images_without_tissue_have_almost_no_nuclei(model: NucleiModel, rgb: UInt8, most: int) -> None:
    assert len(in_scene(rgb, Box(0, 0, 200, 200), model, 64)) <= most


def test_random_pixels_do_no_harm(model: NucleiModel) -> None:
    nuclei = in_scene(_noise(0, 256), Box(0, 0, 200, 200), model, 64)
    assert np.isfinite(nuclei.score).all()
    assert ((nuclei.score >= 0) & (nuclei.score <= 1)).all()
    assert np.allclose(nuclei.class_probs.sum(axis=1), 1, atol=1e-5)


def test_more_points_than_labels_are_refused() -> None:
    view = scene_of(np.full((300, 300, 3), 255, np.uint8), Parameters())
    y, x = np.mgrid[:300, :300].reshape(2, -1)
    with pytest.raises(SlideError, match="more than can be told apart"):
        flood(view, np.stack([x, y], axis=1).astype(np.int64), Parameters())


def test_the_rule_of_thumb_calls_typical_nuclei_by_their_class(model: NucleiModel) -> None:
    def shapes(*columns: float) -> Shapes:
        return Shapes(*(np.array([value]) for value in columns))

    def called(measured: Shapes) -> str:
        probs = class_probabilities(measured, Parameters().class_weights)
        return model.spec.classes[int(np.argmax(probs))]

    assert called(shapes(220, 1.3, 0.4)) == "epithelial"
    assert called(shapes(60, 1.1, 0.8)) == "inflammatory"
    assert called(shapes(90, 3.5, 0.5)) == "connective"


def test_constants_survive_their_file_form_and_bad_ones_are_refused() -> None:
    again = from_state(to_state(Parameters()), "file")
    assert to_state(again).keys() == to_state(Parameters()).keys()
    for name, value in to_state(Parameters()).items():
        assert np.array_equal(to_state(again)[name], value), name
    for change in ({"window_px": 60}, {"contrast": 0}, {"levels": 40}):
        with pytest.raises(ModelError) as caught:
            from_state(to_state(replace(Parameters(), **change)), "file")
        assert caught.value.remedy


def test_the_stated_reach_fits_the_halo() -> None:
    assert Parameters().reach_px + MARGIN_PX <= HALO_PX


def test_torch_is_not_imported() -> None:
    load = "from wsi_nuc.models.registry import load_model; load_model('classical')"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {load}; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


@pytest.mark.real_data
def test_detection_on_real_tissue_is_better_than_a_floor(real_data: Path, model: NucleiModel) -> None:
    folder = real_data / "consep"
    rgb = cv2.imread(str(folder / "images" / "train_6.png"))[..., ::-1]
    labels = cv2.imread(str(folder / "labels" / "train_6.png"), cv2.IMREAD_UNCHANGED).astype(np.int64)
    small = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    padded = np.pad(small, ((64, 64), (64, 64), (0, 0)), mode="reflect")
    nuclei = in_scene(padded, Box(64, 64, 564, 564), model, 64)
    assert _f1(_label_centres(labels), (nuclei.prompt_xy - 64) * 2, 12) > 0.65


def _label_centres(labels: UInt8) -> Float64:
    y, x = np.indices(labels.shape)
    count = np.bincount(labels.ravel())[1:]
    sums = [np.bincount(labels.ravel(), axis.ravel())[1:] for axis in (x, y)]
    return np.stack(sums, axis=1)[count > 0] / count[count > 0, None]


def _f1(truth: Float64, predicted: Float64, radius: float) -> float:
    """Points are paired one to one, the nearest first."""
    pairs = cKDTree(truth).sparse_distance_matrix(cKDTree(predicted), radius, output_type="ndarray")
    left, right = set[int](), set[int]()
    for a, b, _ in np.sort(pairs, order="v"):
        if a not in left and b not in right:
            left.add(int(a))
            right.add(int(b))
    return 2 * len(left) / (len(truth) + len(predicted))
