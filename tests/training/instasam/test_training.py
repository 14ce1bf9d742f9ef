"""What a training from dots does with its frozen part, its first labels and its dots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.models.compact_nets import CLASSES as COMPACT_CLASSES
from tests.models.compact_nets import tiny_net
from tests.models.compact_nets import tiny_settings as compact_settings
from tests.models.instasam_nets import tiny_settings
from tests.training.tiny import draw
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.models.compact.build import save_net as save_compact
from wsi_nuc.models.instasam.net import InstaSamNet
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.instasam.config import InstaSamConfig
from wsi_nuc.training.instasam.crops import Crops, collate
from wsi_nuc.training.instasam.first import Dotted, first_labels
from wsi_nuc.training.instasam.pseudo import IGNORED
from wsi_nuc.training.instasam.start import load_frozen
from wsi_nuc.training.registry import load_train_config, train

HEADER = {"training_data": [], "metrics": {}}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact model's file."""
    path = tmp_path_factory.mktemp("frozen") / "compact.safetensors"
    save_compact(path, tiny_net(), compact_settings(), HEADER)
    return path


def config(out: Path, data: Path, frozen: Path, **changes: Any) -> InstaSamConfig:
    given: dict[str, Any] = {
        "out": out, "classes": ["nucleus"], "data": {"train": [{"path": data}]}, "frozen": str(frozen),
        "first": "masks", "steps": 3, "batch": 2, "report_every": 3, "crop": {"size_px": 128}, "workers": 0,
        "precision": "fp32", "device": "cpu", "threads": 1,
        "use": {"tile_px": 256, "halo_px": 112, "precision": "fp32"},
    }  # fmt: skip
    made = load_train_config("instasam", [], {**given, **changes})
    assert isinstance(made, InstaSamConfig)
    return made


@pytest.mark.parametrize("refresh", [1, 2])
def test_what_is_frozen_keeps_every_bit_and_all_else_learns(refresh: int, frozen: Path, tmp_path: Path) -> None:
    made = train(config(tmp_path / "out", draw(tmp_path / "data"), frozen, refresh=refresh))
    before, after = open_checkpoint(frozen).tensors(), open_checkpoint(made).tensors()
    stages = {name: tensor for name, tensor in before.items() if name.startswith("encoder.")}
    for name, tensor in stages.items():
        kept = after[name.replace("encoder.", "encoder.frozen.", 1)]
        assert torch.equal(kept, tensor.float())
    assert len(stages) == sum(name.startswith("encoder.frozen.") for name in after)
    learned = [name for name in before if name in after and name.endswith("weight") and name.startswith("mask_")]
    assert learned
    assert not any(torch.equal(before[name], after[name]) for name in learned)


def test_the_adapters_change_nothing_before_they_have_learned(frozen: Path) -> None:
    torch.manual_seed(0)
    net = InstaSamNet(tiny_settings()).eval()
    load_frozen(net, str(frozen))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        adapted, plain = net(pixels), net(pixels, adapted=False)
        assert torch.equal(adapted.fine, plain.fine)
        for adapter in net.encoder.adapters:
            adapter.up.weight.normal_(0, 0.1)  # type: ignore[union-attr, operator]
        assert not torch.equal(net(pixels).fine, plain.fine)
        assert torch.equal(net(pixels, adapted=False).fine, plain.fine)


def test_a_compact_models_prompted_decoder_starts_with_its_own_masks(frozen: Path) -> None:
    torch.manual_seed(0)
    net = InstaSamNet(tiny_settings()).eval()
    load_frozen(net, str(frozen))
    compact = tiny_net()
    for name, tensor in compact.decoder.state_dict().items():
        assert torch.equal(net.decoder.state_dict()[name], tensor.half().float())
    assert len(COMPACT_CLASSES) == net.class_head.out_channels
    assert (net(torch.randn(1, 3, 64, 64)).maps[:, 1:] == 0).all(), "distances have another meaning there"


def dotted(seed: int = 0, count: int = 20) -> tuple[LabelledImage, np.ndarray, np.ndarray]:
    """An image of dark discs on pink, far apart; their labels and their centres."""
    rng = np.random.default_rng(seed)
    rgb = np.full((200, 200, 3), (225, 185, 215), np.uint8) + rng.integers(-4, 5, (200, 200, 3)).astype(np.uint8)
    labels = np.zeros((200, 200), np.int32)
    y, x = np.mgrid[:200, :200] + 0.5
    centres = np.array([(20.0 + 40 * (i % 5), 20.0 + 45 * (i // 5)) for i in range(count)]).reshape(-1, 2)
    for i, (cx, cy) in enumerate(centres, start=1):
        labels[(x - cx) ** 2 + (y - cy) ** 2 <= rng.uniform(6, 10) ** 2] = i
    rgb[labels > 0] = (95, 60, 130)
    kinds = np.arange(count) % 2
    image = LabelledImage("discs", rgb, points_xy=centres, point_types=kinds, point_classes=("a", "b"), mpp=0.25)
    return image, labels, centres


def test_clusters_and_voronoi_cells_give_discs_back(tmp_path: Path, frozen: Path) -> None:
    image, labels, _ = dotted()
    settings = config(tmp_path / "out", tmp_path, frozen, first="voronoi")
    (made,) = first_labels(settings, [image])
    inside = made.first > 0
    # Colours are blurred a little, so an edge may be a pixel off.
    grown = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8))
    assert (made.first[inside] == grown[inside]).mean() > 0.99
    assert (inside & (labels > 0)).sum() / (inside | (labels > 0)).sum() > 0.9


def test_an_image_without_dots_has_no_first_labels(tmp_path: Path, frozen: Path) -> None:
    image, _, _ = dotted(count=0)
    (made,) = first_labels(config(tmp_path / "out", tmp_path, frozen, first="voronoi"), [image])
    assert not made.first.any()
    batch = collate([Crops([made], config(tmp_path / "o", tmp_path, frozen).crop, 0)[0]])
    assert len(batch.row) == 0
    assert batch.known.any()


def test_dots_are_moved_by_a_distance_within_the_stated_range(tmp_path: Path, frozen: Path) -> None:
    image, _, centres = dotted()
    settings = config(tmp_path / "out", tmp_path, frozen, first="voronoi", shift_px=[2.0, 4.0])
    (made,) = first_labels(settings, [image])
    moved = np.hypot(*(made.xy - centres).T)
    assert (moved >= 2 - 1e-9).all()
    assert (moved <= 4 + 1e-9).all()
    assert moved.std() > 0.2


def test_every_dot_of_a_crop_lies_on_its_own_label_and_foreign_nuclei_are_not_background(
    tmp_path: Path, frozen: Path
) -> None:
    image, labels, centres = dotted()
    source = Dotted(image, centres, np.arange(20) % 2, labels, None)
    crops = Crops([source], config(tmp_path / "out", tmp_path, frozen).crop, 0)
    batch = collate([crops[i] for i in range(6)])
    assert len(batch.row) > 20
    x, y = batch.xy.floor().long().T
    assert torch.equal(batch.first[batch.row, y, x], torch.arange(1, len(batch.row) + 1))
    dark = batch.rgb.float().mean(3) < 110
    cut = dark & (batch.first == IGNORED)
    assert cut.any(), "some nucleus must reach into a crop that does not hold its dot"
    assert not batch.known[cut].any()


def test_dots_that_are_left_out_leave_unknown_places(tmp_path: Path) -> None:
    image, labels, centres = dotted()
    kept = np.array([0, 3, 4])
    fewer = Dotted(image, centres, np.arange(20) % 2, labels, None).with_dots(kept)
    assert fewer.known is not None
    assert set(np.unique(fewer.first)) == {IGNORED, 0, 1, 2, 3}
    for new, old in enumerate(kept, start=1):
        assert np.array_equal(fewer.first == new, labels == old + 1)
    assert np.array_equal(~fewer.known, (labels > 0) & ~np.isin(labels, kept + 1))
    assert (labels[fewer.first == 0] == 0).all()
