"""Checkpoint files: what was written is read, and nothing else is read or executed."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from wsi_nuc.errors import ModelError
from wsi_nuc.models.classical import build as classical
from wsi_nuc.models.foreign import read_foreign, read_pth
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.models.weights import (
    KEY,
    check_class_count,
    check_sense,
    check_state,
    open_checkpoint,
    read_info,
    sha256_of,
)

shape_tables = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.integers(0, 3), max_size=3).map(tuple), max_size=6
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    classical.save(path)
    return path


def rewrite(path: Path, header: dict[str, Any] | None = None, **tensors: Any) -> None:
    """Change header entries and tensors of a native file; None removes a tensor."""
    state = {**load_file(path), **tensors}
    text = {**read_info(path).details, **(header or {})}
    save_file({name: array for name, array in state.items() if array is not None}, path, {KEY: json.dumps(text)})


def refused(path: Path, *, about: str) -> ModelError:
    with pytest.raises(ModelError, match=about) as caught:
        load_model(str(path))
    assert caught.value.exit_code == 4
    assert caught.value.subject == str(path)
    assert caught.value.remedy
    return caught.value


def test_header_and_hash_come_back(saved: Path) -> None:
    info = read_info(saved)
    assert info.architecture == "classical"
    assert info.classes == model_spec("classical").classes
    assert info.sha256 == sha256_of(saved)
    assert info.shapes == {name: array.shape for name, array in open_checkpoint(saved).arrays().items()}
    assert {"normalisation", "training_data", "metrics", "format_version"} <= set(info.details)


@settings(max_examples=60, deadline=None)
@given(shape_tables, shape_tables)
def test_any_difference_of_names_or_shapes_is_listed(
    expected: dict[str, tuple[int, ...]], given: dict[str, tuple[int, ...]]
) -> None:
    different = [n for n in {*expected, *given} if expected.get(n) != given.get(n)]
    if not different:
        check_state("file", expected, given)
        return
    with pytest.raises(ModelError) as caught:
        check_state("file", expected, given)
    listed = caught.value.cause.replace(",", " ").replace(";", " ").split()
    assert all(name in listed for name in different)


@pytest.mark.parametrize(
    ("change", "about"),
    [
        ({"gain": None}, "1 missing: gain"),
        ({"surplus": np.zeros(2)}, "1 unexpected: surplus"),
        ({"stain": np.zeros(4)}, r"of another shape: stain \(4,\) instead of \(3,\)"),
        ({"class_weights": np.zeros((5, 4))}, r"class_weights \(5, 4\) instead of \(4, 4\)"),
        ({"stain": np.array([1.0, np.nan, 0.0])}, "NaN or infinite weights in stain"),
        ({"contrast": np.array([np.inf])}, "NaN or infinite weights in contrast"),
        ({"contrast": np.array([-1.0])}, "not positive: .*contrast"),
    ],
)
def test_wrong_weights_are_refused_by_name(saved: Path, change: dict[str, Any], about: str) -> None:
    rewrite(saved, **change)
    refused(saved, about=about)


@pytest.mark.parametrize(
    ("header", "about"),
    [
        ({"classes": ["a", "b"]}, "class_weights"),
        ({"classes": []}, "makes no sense"),
        ({"classes": ["a", "a", "b", "c"]}, "makes no sense"),
        ({"mpp": "wide"}, "incomplete"),
        ({"mpp": -1}, "makes no sense"),
        ({"format_version": 99}, "newer than"),
        ({"architecture": "something-else"}, "cannot be used here"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(saved: Path, header: dict[str, Any], about: str) -> None:
    rewrite(saved, header)
    refused(saved, about=about)


def test_class_counts_are_compared_in_words() -> None:
    check_class_count("file", ("a", "b"), 2)
    with pytest.raises(ModelError, match=r"for 3 classes, its header names 2 \(a, b\)"):
        check_class_count("file", ("a", "b"), 3)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_was_cut(
    share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    classical.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, about="truncated|damaged")


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("bytes") / "model.safetensors"
    path.write_bytes(content)
    refused(path, about="truncated|damaged|not a safetensors|without the")


def test_a_header_of_absurd_size_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40))
    os.truncate(path, 1 << 41)  # sparse
    refused(path, about="header of 1099511627776 bytes")


def test_foreign_and_missing_files_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file({"x": np.zeros(1)}, path)
    refused(path, about="without the 'wsi_nuc' header")
    refused(tmp_path / "gone.safetensors", about="No such file")
    refused(tmp_path / "model.pth", about="not a native checkpoint")


class _Gadget:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_gadget_is_refused_and_not_executed(tmp_path: Path, protocol: int, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    path, marker = tmp_path / "gadget.pth", tmp_path / "executed"
    if zipped:
        torch.save({"state_dict": _Gadget(marker)}, path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(_Gadget(marker), protocol=protocol))
    with pytest.raises(ModelError, match=r"nothing in it was executed|not a PyTorch file") as caught:
        read_pth(path)
    assert caught.value.exit_code == 4
    assert not marker.exists()
    # The gadget works: plain unpickling executes it.
    pickle.loads(pickle.dumps(_Gadget(marker)))
    assert marker.exists()


class _Strange(argparse.Namespace):
    """A class of its own, which no reader knows."""


def test_a_namespace_of_plain_values_is_read_as_a_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path, values = tmp_path / "latest.pth", {"lr": 1e-4, "opts": [1, ("a", None)], "on": True, "more": {"x": -2}}
    itself: list[Any] = [1]
    itself.append(itself)
    content = {
        "model": {"w": torch.ones(2)},
        "args": argparse.Namespace(**values),
        "metrics": {"f1": np.float32(2)},
    }
    torch.save(content, path)
    tensors, about = read_foreign(path)
    assert list(tensors) == ["w"]
    assert about == {"args": values, "metrics": {"f1": 2}}
    torch.save(content | {"args": argparse.Namespace(loop=itself)}, path)
    assert list(read_pth(path)) == ["w"]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (_Gadget, "posix.mkdir|nt.mkdir"),
        (lambda marker: [{"deep": (1, _Gadget(marker))}], "posix.mkdir|nt.mkdir"),
        (lambda marker: _Strange(x=1), "test_weights._Strange"),
        (lambda marker: _Strange, "test_weights._Strange"),
        (lambda marker: marker, "pathlib"),
        (lambda marker: __import__("torch").ones(1), r"hook \(Tensor\)"),
        (lambda marker: [np.float64(1)], r"hook \(float64\)"),
        (lambda marker: {"a": {1, 2}}, r"hook \(set\)"),
        (lambda marker: argparse.Namespace(x=1), r"hook \(Arguments\)"),
    ],
)
def test_a_namespace_with_anything_else_inside_is_refused_and_named(
    tmp_path: Path, value: Callable[[Path], Any], named: str
) -> None:
    torch = pytest.importorskip("torch")
    path, marker = tmp_path / "latest.pth", tmp_path / "executed"
    args = argparse.Namespace(lr=1e-4, hook=value(marker))
    torch.save({"model": {"w": torch.ones(2)}, "args": args}, path)
    with pytest.raises(ModelError, match=named) as caught:
        read_pth(path)
    assert "nothing in it was executed" in caught.value.cause
    assert caught.value.exit_code == 4
    assert not marker.exists()


_NAMESPACE, _HOOK = b"cargparse\nNamespace\n", b"X\x04\x00\x00\x00hook"
# A Namespace is built with a list, which gets a set afterwards; a Namespace is called with an argument.
_FILLED_LATER = b"\x80\x02}(K\x00" + _NAMESPACE + b")\x81}(" + _HOOK + b"]q\x03ubK\x01h\x03cbuiltins\nset\n)Rau."
_CALLED = b"\x80\x02" + _NAMESPACE + _HOOK + b"\x85R."


@pytest.mark.parametrize(("stream", "said"), [(_FILLED_LATER, r"hook \(set\)"), (_CALLED, "with arguments")])
def test_a_namespace_is_judged_by_what_it_holds_in_the_end(tmp_path: Path, stream: bytes, said: str) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "latest.pth"
    torch.save({"w": torch.ones(1)}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "made.pth", "w", zipfile.ZIP_STORED) as made:
        for entry in whole.namelist():
            made.writestr(entry, stream if entry.endswith("data.pkl") else whole.read(entry))
    with pytest.raises(ModelError, match=said):
        read_pth(tmp_path / "made.pth")


def test_a_plain_pth_gives_its_tensors_and_damage_is_reported(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "plain.pth"
    torch.save({"state_dict": {"w": torch.ones(3)}}, path)
    assert read_pth(path)["w"].tolist() == [1, 1, 1]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match="truncated"):
        read_pth(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="not hold a plain table of tensors"):
        read_pth(path)
    with pytest.raises(ModelError, match="No such file"):
        read_pth(tmp_path / "gone.pth")


def test_finite_is_checked_for_torch_too() -> None:
    torch = pytest.importorskip("torch")
    check_sense("file", {"ok": torch.ones(2)})
    with pytest.raises(ModelError, match="bad"):
        check_sense("file", {"ok": torch.ones(2), "bad": torch.tensor([float("nan")])})
