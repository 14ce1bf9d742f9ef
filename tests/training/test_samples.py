"""Samples and their order: what a step sees follows from image and seed alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from tests.training.tiny import draw
from wsi_nuc.datasets.images import at_mpp, class_table, load_images, with_classes
from wsi_nuc.datasets.record import LabelledImage, SourceConfig
from wsi_nuc.errors import UsageError
from wsi_nuc.models.promptnucseg.settings import UseSettings
from wsi_nuc.models.sam.decoder import NEGATIVE, POSITIVE
from wsi_nuc.training.pieces import centres, pieces
from wsi_nuc.training.promptnucseg.augment import TABLE_S1, Augmentation, make_sample
from wsi_nuc.training.promptnucseg.batches import Order, collate
from wsi_nuc.training.promptnucseg.config import PromptConfig

AUGMENT, CROP = Augmentation(TABLE_S1), Augmentation()


def image(nuclei: int, size: int = 300, seed: int = 0) -> LabelledImage:
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    for n in range(nuclei):
        y, x = rng.integers(0, size - 14, 2)
        labels[y : y + 14, x : x + 12] = n + 1
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    rgb = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
    return LabelledImage("one", rgb, labels, np.zeros(labels.max(), np.int64), mpp=0.25, classes=("nucleus",))


@given(st.integers(0, 500), st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_a_sample_holds_together_whatever_augmentation_did(seed: int, nuclei: int) -> None:
    made = make_sample(image(nuclei), AUGMENT, PromptConfig(nuclei=5, negatives=2), UseSettings(), seed)
    count = int(made.instances.max())
    assert made.rgb.shape == (256, 256, 3)
    assert made.region is not None
    assert not ((made.instances > 0) & ~made.region).any()
    assert made.points_xy is not None
    assert len(made.points_xy) == count
    at = made.points_xy.astype(int)
    assert (made.instances[at[:, 1], at[:, 0]] == np.arange(1, count + 1)).all()
    assert len(made.prompt_id) == min(5, count)
    own = made.prompt_xy[:, 0].astype(int)
    assert (made.instances[own[:, 1], own[:, 0]] == made.prompt_id).all()
    assert (made.prompt_label[:, 0] == POSITIVE).all()
    others = made.prompt_label[:, 1:] == NEGATIVE
    assert (others.sum(1) == min(2, count - 1)).all()
    negative = made.prompt_xy[:, 1:][others].astype(int)
    on = made.instances[negative[:, 1], negative[:, 0]]
    assert (on > 0).all()
    assert (on != np.repeat(made.prompt_id, others.sum(1))).all()


def test_negatives_are_the_nearest_others() -> None:
    made = make_sample(image(20), CROP, PromptConfig(nuclei=99, negatives=1, positive="centre"), UseSettings(), 3)
    xy = made.prompt_xy[:, 0]
    distance = cdist(xy, xy) + np.diag(np.full(len(xy), np.inf))
    assert np.linalg.norm(made.prompt_xy[:, 1] - xy, axis=1) == pytest.approx(distance.min(1), abs=1e-4)


def test_the_same_seed_gives_the_same_sample_and_another_one_does_not() -> None:
    first, again, different = (
        make_sample(image(9), AUGMENT, PromptConfig(), UseSettings(), seed) for seed in (7, 7, 8)
    )
    assert np.array_equal(first.rgb, again.rgb)
    assert np.array_equal(first.prompt_xy, again.prompt_xy)
    assert not np.array_equal(first.rgb, different.rgb)


@pytest.mark.parametrize("nuclei", [0, 1])
def test_zero_and_one_nucleus(nuclei: int) -> None:
    made = make_sample(image(nuclei, size=256), CROP, PromptConfig(), UseSettings(), 0)
    batch = collate([made, make_sample(image(7), CROP, PromptConfig(), UseSettings(), 0)])
    assert (batch.prompt_id[0] > 0).sum() == nuclei
    assert (made.prompt_label == NEGATIVE).sum() == 0


def test_points_move_with_their_pixels() -> None:
    """Under each point of a dark image lies a white spot, also after geometric changes."""
    rgb = np.zeros((256, 256, 3), np.uint8)
    xy = np.array([[40.5, 60.5], [128.5, 200.5], [220.5, 30.5], [90.5, 130.5]])
    for x, y in xy.astype(int):
        rgb[y - 3 : y + 4, x - 3 : x + 4] = 255
    dots = LabelledImage("dots", rgb, points_xy=xy, point_types=np.arange(4), point_classes=("a", "b", "c", "d"))
    for seed in range(40):
        made = make_sample(dots, AUGMENT, PromptConfig(), UseSettings(), seed)
        assert made.points_xy is not None
        assert made.region is None
        inside = made.points_xy[((made.points_xy > 4) & (made.points_xy < 252)).all(1)].astype(int)
        seen = [made.rgb[y - 2 : y + 3, x - 2 : x + 3].max() for x, y in inside]
        assert min(seen, default=255) > 60, seed  # a blur makes the spot darker


def test_parts_of_a_cut_nucleus_are_nuclei_of_their_own() -> None:
    mask = np.zeros((64, 64), np.uint16)
    mask[10:20, 10:20], mask[40:50, 40:50], mask[60:62, 60:62] = 1, 1, 1
    mask[10:20, 20:30] = 2
    labels, of = pieces(mask)
    assert of.tolist() == [1, 1, 2]
    assert labels[61, 61] == 0


def test_the_point_of_a_bent_nucleus_lies_inside() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[10:50, 10:16], labels[10:16, 10:50] = 1, 1
    x, y = centres(labels)[0].astype(int)
    assert labels[y, x] == 1


@given(st.integers(1, 40), st.integers(1, 6), st.sampled_from([1, 2, 4]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_processes_share_the_batches_of_one(crops: int, quarter: int, world: int, seed: int) -> None:
    alone = Order(crops, 4 * quarter, seed)
    shares = [Order(crops, 4 * quarter, seed, rank, world) for rank in range(world)]
    for step in range(2 * alone.steps_per_epoch):
        assert sorted(k for share in shares for k in share.keys(step)) == sorted(alone.keys(step))
    epoch = {index for step in range(alone.steps_per_epoch) for _, index in alone.keys(step)}
    assert epoch == set(range(crops))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 3"):
        Order(10, 4, 0, 0, 3)


def test_images_come_at_the_models_resolution() -> None:
    fine = image(10)
    coarse = at_mpp(fine, 0.5)
    assert coarse.rgb.shape == (150, 150, 3)
    assert coarse.instances is not None
    assert fine.instances is not None
    assert coarse.instances.max() == fine.instances.max()
    assert (coarse.instances > 0).mean() == pytest.approx((fine.instances > 0).mean(), abs=0.01)
    assert at_mpp(fine, 0.252) is fine
    assert coarse.repairs == {}
    tiny = at_mpp(fine, 20.0)
    assert tiny.instances is not None
    lost = int(fine.instances.max()) - int(tiny.instances.max())
    assert tiny.repairs == {"nuclei too small for the model's resolution (dropped)": lost}
    assert lost > 0


def test_class_names_are_mapped_or_refused() -> None:
    assert class_table(("a", "b"), ("x", "a"), {"b": "x"}, "here").tolist() == [1, 0, -1]
    assert class_table(("a", "b"), ("a",), {"b": ""}, "here").tolist() == [0, -1, -1]
    with pytest.raises(UsageError, match="b are not among the model's"):
        class_table(("a", "b"), ("a",), {}, "here")


def test_points_beside_masks_need_no_classes_of_the_model() -> None:
    both = replace(
        image(3),
        points_xy=np.array([[9.5, 9.5]]),
        point_types=np.array([1]),
        point_classes=("strange", "stranger"),
    )
    source = SourceConfig(path=Path("here"), classes={"nucleus": "a"})
    mapped = with_classes(both, ("a", "b"), source)
    assert mapped.points_xy is None
    assert mapped.types is not None
    assert mapped.types.tolist() == [0, 0, 0]
    with pytest.raises(UsageError, match="strange"):
        with_classes(replace(both, instances=None, types=None), ("a", "b"), source)


def test_an_unknown_image_is_named(tmp_path: Path) -> None:
    source = SourceConfig(path=draw(tmp_path / "d", images=1), images=("nowhere",))
    with pytest.raises(UsageError, match="has no image nowhere"):
        load_images([source], ("nucleus",), 0.25)
