"""Learning from another network's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.compact_nets import CLASSES, NET, tiny_net, tiny_settings
from tests.training.compact.test_crops import disks
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.build import save_net
from wsi_nuc.models.compact.net import Asked, CompactNet, window_origin
from wsi_nuc.models.compact.settings import MASK_STRIDE
from wsi_nuc.models.compact.team import Team
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.training.compact import agreement
from wsi_nuc.training.compact.agreement import agreement_loss
from wsi_nuc.training.compact.config import CompactTrainConfig, CropConfig, TeacherConfig
from wsi_nuc.training.compact.crops import Batch, Crops, collate
from wsi_nuc.training.compact.recipe import LossNet
from wsi_nuc.training.compact.teaching import clear_points, teacher_of, teaching_losses
from wsi_nuc.training.loop import with_last

SIDE = 48


def pixels() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 128, 128)


def bold(net: CompactNet) -> CompactNet:
    """With points that it is sure of."""
    with torch.no_grad():
        net.point_head.bias[0] = 1.0
        net.point_head.weight[0] *= 5
    return net.eval()


def test_nothing_is_left_to_learn_where_both_agree() -> None:
    net = bold(tiny_net())
    with torch.no_grad():
        maps = net(pixels())
        losses = teaching_losses(net, maps, net, maps, 4, SIDE)
        other = bold(tiny_net(1))
        apart = teaching_losses(other, other(pixels()), net, maps, 4, SIDE)
    assert set(losses) == {"taught_heat", "taught_offset", "taught_kind", "taught_region", "taught_mask"}
    for name, loss in losses.items():
        assert abs(float(loss)) < 1e-4, name
        assert float(apart[name]) > 1e-3, name


def test_prompts_are_the_teachers_clearest_points_with_their_nearest_neighbours() -> None:
    net = bold(tiny_net())
    with torch.no_grad():
        maps = net(pixels())
    asked = clear_points(maps, 5)
    assert 2 <= len(asked.row) <= 10
    for crop in (0, 1):
        here = (asked.row == crop).nonzero()[:, 0]
        for index in here:
            others = asked.xy[here[here != index]]
            nearest = others[(others - asked.xy[index]).norm(dim=1).argmin()]
            assert torch.allclose(asked.negative[index], nearest)


def test_a_point_alone_has_no_negative() -> None:
    net = bold(tiny_net())
    with torch.no_grad():
        asked = clear_points(net(pixels()), 1)
    assert asked.negative.isnan().all()


def test_a_network_learns_from_its_teacher_on_images_without_labels(tmp_path: Path) -> None:
    """And the teacher stays as it is, and is not saved with what learns."""
    file = tmp_path / "teacher.safetensors"
    save_net(file, bold(tiny_net(1)), tiny_settings(), {"training_data": [], "metrics": {}})
    image = LabelledImage("plain", np.asarray(disks(0).rgb), mpp=0.25)
    config = CompactTrainConfig.model_validate({
        "out": tmp_path, "classes": CLASSES, "net": NET, "crop": {"size_px": 128},
        "data": {"train": [{"path": tmp_path}]}, "teacher": {"models": [str(file)], "prompts": 4},
    })  # fmt: skip
    teacher = teacher_of(config.teacher, CLASSES, "cpu")
    module = LossNet(tiny_net(2).train(), config, teacher)
    crops = Crops([[image]], [1.0], CropConfig(size_px=128), 0)
    batch = collate([crops[0], crops[1]])
    optimizer, sums = torch.optim.Adam(module.parameters(), 3e-3), []
    for _ in range(15):
        losses = module(batch)
        assert all(float(loss.detach()) == 0 for name, loss in losses.items() if "taught" not in name)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        sums.append(float(total.detach()))
    assert sums[-1] < 0.7 * sums[0]
    assert not any("teacher" in name for name in module.state_dict())


def test_several_teachers_are_one_and_classes_must_agree(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.safetensors" for i in (0, 1)]
    for i, file in enumerate(files):
        save_net(file, tiny_net(i), tiny_settings(), {"training_data": [], "metrics": {}})
    config = TeacherConfig(models=tuple(map(str, files)), views=2)
    assert isinstance(teacher_of(config, CLASSES, "cpu"), Team)
    with pytest.raises(ModelError, match=r"knows the classes epithelial, inflammatory, other and not a, b"):
        teacher_of(config, ("a", "b"), "cpu")
    assert teacher_of(TeacherConfig(), CLASSES, "cpu") is None


def test_the_last_batch_is_known_as_such() -> None:
    assert list(with_last(iter([3, 4, 5]))) == [(3, False), (4, False), (5, True)]
    assert list(with_last(iter([]))) == []


def a_batch() -> Batch:
    crops = Crops([[disks(0)]], [1.0], CropConfig(size_px=256), 0)
    return collate([crops[i] for i in range(4)])


def test_looks_that_differ_by_where_they_begin_cost_something_and_training_lowers_it() -> None:
    batch, net = a_batch(), bold(tiny_net())
    pixels = normalise(batch.rgb)
    optimizer, sums = torch.optim.Adam(net.parameters(), 1e-3), []
    for _ in range(6):
        torch.manual_seed(3)
        loss = agreement_loss(net, net(pixels), pixels, batch, SIDE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sums.append(float(loss.detach()))
    assert 0 < sums[-1] < 0.95 * sums[0]


def test_a_network_that_sees_every_place_alike_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """With moves of whole coarsest cells, nothing but the edges of the crop differs."""
    batch, net = a_batch(), bold(tiny_net())
    pixels = normalise(batch.rgb)
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor([0, 0]))
    with torch.no_grad():
        assert float(agreement_loss(net, net(pixels), pixels, batch, SIDE)) < 1e-6


@pytest.mark.parametrize("move", [(1, 0), (0, 3), (5, 2), (7, 7), (8, 4)])
def test_masks_are_compared_pixel_by_pixel_whatever_the_move(
    move: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, net = a_batch(), tiny_net().eval()
    pixels = normalise(batch.rgb)

    def loss_of(shift: float) -> float:
        """Of masks that show the same disk on the tissue, in the second look `shift` pixels too far right."""
        looks = iter([(0.0, 0.0), (move[0] + shift, float(move[1]))])

        def disk(_: object, __: object, asked: Asked, side: int) -> torch.Tensor:
            middle = torch.tensor(next(looks)) + 128
            cells = window_origin(asked.xy, side)[:, :, None] + torch.arange(side)
            away = (cells + 0.5) * MASK_STRIDE - middle[:, None]
            return 12 - (away[:, 0, None, :].square() + away[:, 1, :, None].square()).sqrt()

        monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(list(move)))
        monkeypatch.setattr(agreement, "mask_windows", disk)
        with torch.no_grad():
            return float(agreement.agreement_loss(net, net(pixels), pixels, batch, SIDE))

    same, left, right = loss_of(0), loss_of(-1), loss_of(1)
    assert same < min(left, right)
    assert abs(left - right) < 0.2 * (left - same)
