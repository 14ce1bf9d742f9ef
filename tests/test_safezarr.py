"""Crafted Zarr stores: every reader refuses them before it decodes a chunk, and nothing in them runs."""

from __future__ import annotations

import ast
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsi_nuc
from tests.slides.make import zarr_folder
from wsi_nuc.errors import SlideError, StorageError, WsiNucError
from wsi_nuc.features.means import feature_means
from wsi_nuc.features.write import Nuclei, _rows
from wsi_nuc.report.pictures import thumbnail
from wsi_nuc.safezarr import RefusedZarr, attributes, below, open_array, read_array
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store import layout
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.reading import class_names
from wsi_nuc.store.zarrfile import CHUNK_ROWS, RowArray, ZarrFolder
from wsi_nuc.types import SlideRef

PACKAGE = Path(wsi_nuc.__file__).parent
READS = {"read_zarr", "read_h5ad", "read_elem", "open_zarr"}


def test_zarr_is_opened_in_one_module_only() -> None:
    offenders = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent == PACKAGE and path.name in ("safezarr.py", "boundedcodecs.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            called = [node.attr] if isinstance(node, ast.Attribute) else []
            if {name.partition(".")[0] for name in imported} & {"zarr", "numcodecs", "spatialdata"}:
                offenders.append(f"{path.name}: imports {imported}")
            if READS.intersection(called):
                offenders.append(f"{path.name}: {called}")
    assert offenders == []


class Gadget:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def plain(**changes: Any) -> dict[str, Any]:
    """Metadata of an array of 8 numbers."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [8],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
        "storage_transformers": [],
    }
    return document | changes


def sharded(chunk: list[int], inner: list[int], codecs: list[Any] | None = None) -> dict[str, Any]:
    bytes_codec = {"name": "bytes", "configuration": {"endian": "little"}}
    configuration = {
        "chunk_shape": inner,
        "codecs": codecs or [bytes_codec, {"name": "zstd"}],
        "index_codecs": [bytes_codec, {"name": "crc32c"}],
    }
    return plain(
        shape=chunk,
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunk}},
        codecs=[{"name": "sharding_indexed", "configuration": configuration}],
    )


CRAFTED = {
    "unknown codec": (plain(codecs=[{"name": "bytes"}, {"name": "numcodecs.pickle"}]), "numcodecs.pickle"),
    "unknown codec in a shard": (sharded([8], [4], [{"name": "bytes"}, {"name": "evil"}]), "evil"),
    "codec without a name": (plain(codecs=["bytes"]), "in place of"),
    "texts' codec on numbers": (plain(codecs=[{"name": "vlen-utf8"}]), "vlen-utf8"),
    "objects": (plain(data_type="object"), "neither numbers nor texts"),
    "structured": (plain(data_type={"name": "structured"}), "neither numbers nor texts"),
    "one huge chunk in a shard": (sharded([2**33], [2**32]), "larger than"),
    "a shard of many chunks": (sharded([2**20], [1]), "more than"),
    "a huge chunk": (plain(chunk_grid={"name": "regular", "configuration": {"chunk_shape": [2**40]}}), "larger"),
    "a negative size": (plain(shape=[-1]), "sizes"),
    "a million axes": (plain(shape=[1] * 10**6), "sizes"),
    "other dimensions": (plain(shape=[8, 8]), "dimensions"),
    "irregular chunks": (plain(chunk_grid={"name": "rectilinear"}), "not regular"),
    "another version": (plain(zarr_format=2), "version 2"),
    "no list": (plain(shape={"a": 1}), "in place of"),
}


def crafted(folder: Path, document: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("name", CRAFTED)
def test_what_no_writer_of_ours_wrote_is_refused(name: str, tmp_path: Path) -> None:
    document, match = CRAFTED[name]
    with pytest.raises(RefusedZarr, match=match):
        open_array(crafted(tmp_path / "a", document))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '"a"', '{"a": ' * 100_000])
def test_metadata_that_are_not_a_json_object_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text(text)
    for read in (open_array, attributes):
        with pytest.raises(RefusedZarr, match=r"zarr\.json"):
            read(tmp_path)


def test_what_is_larger_than_it_can_need_to_be_is_not_read(tmp_path: Path) -> None:
    array = crafted(tmp_path / "a", plain(shape=[2**40]))
    with pytest.raises(RefusedZarr, match="more than the 100 items"):
        read_array(array, 100)


@pytest.mark.parametrize("name", ["", "../other", "/etc", "a/../../b"])
def test_a_name_never_leads_out_of_its_group(name: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedZarr, match="no place inside"):
        below(tmp_path, name)


def test_what_our_writer_wrote_is_read(tmp_path: Path) -> None:
    folder = ZarrFolder(made_folder(tmp_path))
    folder.array("texts", np.array(["a", "Kern", ""]))
    rows = RowArray(folder, "rows", np.zeros((0, 3), np.float32), {})
    values = np.random.default_rng(0).normal(size=(CHUNK_ROWS + 5, 3)).astype(np.float32)
    rows.append(values)
    rows.finish()
    assert read_array(tmp_path / "texts", 3).tolist() == ["a", "Kern", ""]
    np.testing.assert_array_equal(open_array(tmp_path / "rows")[CHUNK_ROWS - 2 :], values[CHUNK_ROWS - 2 :])


def pickled(folder: Path, mark: Path, shape: tuple[int, ...]) -> Path:
    """A version 2 array of "texts" whose only chunk is a pickle that leaves `mark`.

    zarr-python takes the first codec of texts that it finds, and does not check the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": shape,
        "dtype": "|O",
        "compressor": {"id": "pickle"},
        "filters": [{"id": "vlen-utf8"}],
        "fill_value": "",
        "order": "C",
        "dimension_separator": ".",
    }
    (folder / ".zarray").write_text(json.dumps(document))
    (folder / ".".join("0" * len(shape))).write_bytes(pickle.dumps(Gadget(mark)))
    return folder


def read_classes(root: Path, mark: Path) -> None:
    pickled(root / layout.NUCLEI_TABLE / "obs/class/categories", mark, (3,))
    class_names(root)


def read_means(root: Path, mark: Path) -> None:
    for name in ("X", "var/_index"):
        pickled(root / layout.NUCLEI_TABLE / name, mark, (4, 3))
    feature_means(root, 4)


def read_probabilities(root: Path, mark: Path) -> None:
    table = pickled(root / "X", mark, (4, 3))
    np.save(root / "part.npy", np.zeros((4, 1), np.float32))
    nuclei = Nuclei(root, table, SlideRef("slide.svs"), 0.25, ("a", "b", "c"))
    list(_rows(nuclei, [0, 4], [str(root / "part.npy")]))


def read_thumbnail(root: Path, mark: Path) -> None:
    pickled(root / layout.THUMBNAIL / "s0", mark, (3, 4, 4))
    assert thumbnail(root, 100) is None
    raise StorageError(root, "no thumbnail is shown: this reader leaves out what it cannot read")


def read_slide(root: Path, mark: Path) -> None:
    path = zarr_folder(root / "slide.zarr", "0.4")
    pickled(path / "2", mark, (3, 125, 175))
    open_slide(SlideRef(str(path)))


@pytest.mark.parametrize("read", [read_classes, read_means, read_probabilities, read_thumbnail, read_slide])
def test_a_pickle_in_a_store_never_runs(
    read: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As numcodecs was before it refused to unpickle.
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    with pytest.raises((WsiNucError, RefusedZarr)):
        read(tmp_path, tmp_path / "ran")
    assert not (tmp_path / "ran").exists()


def test_the_pickle_of_these_tests_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr

    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    array = zarr.open_array(pickled(tmp_path / "a", tmp_path / "ran", (4, 3)), mode="r")
    with pytest.raises((AttributeError, TypeError, ValueError)):
        array[:]
    assert (tmp_path / "ran").exists()


def test_a_slide_says_which_codec_and_what_to_do(tmp_path: Path) -> None:
    path = zarr_folder(tmp_path / "slide.zarr")
    document = json.loads((path / "0" / "zarr.json").read_text())
    document["codecs"].append({"name": "evil"})
    (path / "0" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(SlideError, match="'evil' is not allowed") as caught:
        open_slide(SlideRef(str(path)))
    assert "zstd" in caught.value.remedy
