"""Where networks run, and how exactly they compute there."""

from __future__ import annotations

import pytest
import torch

from wsi_nuc.errors import UsageError
from wsi_nuc.models.device import Device


def test_single_precision_is_never_rounded_on_the_way() -> None:
    device = Device.of("cpu", "bf16")
    assert device.bf16
    device = Device.of("cpu", "fp32")
    assert not device.bf16
    Device.of("cpu", "bf16")  # another model of the same process
    assert not torch.backends.cudnn.allow_tf32
    with device.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(("capability", "half"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_computes_in_half_precision_where_it_can(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], half: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert Device.of("auto", "auto") == Device(torch.device("cuda"), half)
    assert Device.of("cuda:1", "fp32") == Device(torch.device("cuda:1"), False)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Device.of("auto", "auto").torch_device == torch.device("cpu")
    with pytest.raises(UsageError, match="no CUDA device"):
        Device.of("cuda", "auto")
