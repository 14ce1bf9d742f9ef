"""A small Zarr v3 writer: groups, whole arrays, and arrays that grow row by row into sharded files.

Everything is written front to back through `durable`. So memory stays constant, the order of system calls is
fixed, and the bytes depend only on the data. Reading is left to zarr-python and other readers of the format.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.safezip import contents
from wsi_nuc.store import durable
from wsi_nuc.store.place import Place

Json = dict[str, Any]
AnyArray = npt.NDArray[Any]

CHUNK_ROWS = 16_384
SHARD_CHUNKS = 32
_ZSTD: Json = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
_LITTLE: Json = {"name": "bytes", "configuration": {"endian": "little"}}
_ABSENT = 2**64 - 1


def compress(data: bytes) -> bytes:
    import pyarrow as pa

    return bytes(pa.Codec("zstd", compression_level=3).compress(data, asbytes=True))


def _crc32c(data: bytes) -> int:
    import google_crc32c

    return int(google_crc32c.value(data))


def _is_text(values: AnyArray) -> bool:
    return values.dtype.kind in "UO"


def _type_name(values: AnyArray) -> str:
    return "string" if _is_text(values) else values.dtype.name


def _fill(values: AnyArray) -> Any:
    if _is_text(values):
        return ""
    return False if values.dtype == np.bool_ else values.dtype.type(0).item()


def _codecs(values: AnyArray) -> list[Json]:
    if _is_text(values):
        return [{"name": "vlen-utf8", "configuration": {}}, _ZSTD]
    return [_LITTLE if values.dtype.itemsize > 1 else {"name": "bytes"}, _ZSTD]


def chunk_file(index: Sequence[int]) -> str:
    """The name of a chunk (or shard) in the folder of its array. Rows and columns have no folders of their own."""
    return ".".join(["c", *map(str, index)])


def encode_chunk(values: AnyArray, fill: Any = None) -> bytes:
    """One chunk, encoded and compressed. Empty if all of it is the fill value, so that it need not be stored."""
    given = np.flatnonzero(values != (_fill(values) if fill is None else fill))
    if not len(given):
        return b""
    if not _is_text(values):
        return compress(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes())
    # A small slide has a single chunk, and most of it is padding.
    flat, used = values.ravel(), int(given[-1]) + 1
    texts = [str(text).encode() for text in flat[:used]]
    framed = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return compress(struct.pack("<I", len(flat)) + framed + bytes(4 * (len(flat) - used)))


@dataclass(frozen=True, slots=True)
class Chunks:
    """How an array is cut into files."""

    shape: Sequence[int]
    """Of each file: a chunk, or a shard of chunks."""
    inner: Sequence[int] | None = None
    """Of the chunks inside of a shard; None where each file is one chunk."""
    fill: Any = None
    """The value of chunks that are not stored, if it is not the usual one."""


class ZarrFolder:
    """The store that is being written. It remembers the metadata of each node, for the consolidated copy in the
    root."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self._nodes: dict[str, Json] = {}

    def adopt(self, store: Path, drop: Callable[[str], bool]) -> Json:
        """Take over the metadata of nodes from the root of another store, except of paths that `drop` accepts.
        Returns the attributes of that root."""
        document = json.loads((contents(store) / "zarr.json").read_bytes())
        for path, node in document["consolidated_metadata"]["metadata"].items():
            if not drop(path):
                self._nodes[path] = {key: node[key] for key in node if key != "consolidated_metadata"}
        attributes: Json = document["attributes"]
        return attributes

    @property
    def paths(self) -> list[str]:
        """The paths of all nodes that were written."""
        return sorted(self._nodes)

    def _node(self, path: str, document: Json) -> None:
        self._nodes[path] = document
        durable.write_file(self.root / path / "zarr.json", json.dumps(document).encode())

    def group(self, path: str, attributes: Json | None = None) -> None:
        self._node(path, {"attributes": attributes or {}, "zarr_format": 3, "node_type": "group"})

    def describe(
        self,
        path: str,
        sample: AnyArray,
        shape: Sequence[int],
        chunks: Chunks,
        attributes: Json | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Write the metadata of an array with values like `sample`."""
        codecs = _codecs(sample) if chunks.inner is None else [_sharding(sample, chunks.inner)]
        document: Json = {
            "shape": list(shape),
            "data_type": _type_name(sample),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks.shape)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": _fill(sample) if chunks.fill is None else chunks.fill,
            "codecs": codecs,
            "attributes": attributes or {},
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        }
        if names is not None:
            document["dimension_names"] = list(names)
        self._node(path, document)

    def array(
        self, path: str, values: AnyArray, attributes: Json | None = None, names: Sequence[str] | None = None
    ) -> None:
        """A small array as one chunk."""
        chunk, fill = [max(1, size) for size in values.shape], _fill(values)
        if _is_text(values) and len(set(values.ravel().tolist())) == 1:
            # If all texts are the same, the metadata hold it, and no chunk is needed.
            fill = str(values.ravel()[0])
        self.describe(path, values, values.shape, Chunks(chunk, fill=fill), attributes, names)
        data = encode_chunk(values, fill)
        if data:
            durable.write_file(self.root / path / chunk_file([0] * values.ndim), data)

    def seal(self, attributes: Json) -> None:
        """Write the root group, at last, with the metadata of all nodes, so that a reader needs one request."""
        nested = {"kind": "inline", "must_understand": False, "metadata": {}}
        metadata: Json = {}
        for path in sorted(self._nodes, key=lambda name: (name.count("/"), name)):
            node = self._nodes[path]
            metadata[path] = {**node, "consolidated_metadata": nested} if node["node_type"] == "group" else node
        consolidated = {"kind": "inline", "must_understand": False, "metadata": metadata}
        document = {
            "attributes": attributes,
            "zarr_format": 3,
            "consolidated_metadata": consolidated,
            "node_type": "group",
        }
        durable.write_file(self.root / "zarr.json", json.dumps(document).encode())


def _sharding(sample: AnyArray, inner: Sequence[int]) -> Json:
    configuration = {
        "chunk_shape": list(inner),
        "codecs": _codecs(sample),
        "index_codecs": [_LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {"name": "sharding_indexed", "configuration": configuration}


class ShardFile:
    """A shard: chunks in C order, each compressed as it comes, then the index. An empty shard has no file."""

    def __init__(self, place: Place, chunks: int) -> None:
        self._place = place
        self._index = np.full((chunks, 2), _ABSENT, np.uint64)
        self._file: durable.DurableFile | None = None
        self._next = 0

    def append(self, values: AnyArray) -> None:
        data = encode_chunk(values)
        if data:
            if self._file is None:
                self._file = durable.DurableFile(self._place)
            self._index[self._next] = self._file.size, len(data)
            self._file.write(data)
        self._next += 1

    def close(self) -> None:
        if self._file is not None:
            index = self._index.astype("<u8").tobytes()
            self._file.write(index + struct.pack("<I", _crc32c(index)))
            self._file.close()

    def abandon(self) -> None:
        if self._file is not None:
            self._file.abandon()


class RowArray:
    """An array that grows along its first axis. Memory holds one chunk of rows; chunks do not depend on the pieces
    that are appended."""

    def __init__(self, folder: ZarrFolder, path: str, sample: AnyArray, attributes: Json) -> None:
        """`sample`: an array without rows, with the dtype and the trailing shape."""
        self._folder, self._path, self._attributes = folder, path, attributes
        self._sample, self._pending, self.rows = sample, [sample], 0
        self._held = 0
        self._shard: ShardFile | None = None

    def append(self, values: AnyArray) -> None:
        self._pending.append(values)
        self._held += len(values)
        while self._held >= CHUNK_ROWS:
            held = np.concatenate(self._pending)
            self._chunk(held[:CHUNK_ROWS])
            self._pending, self._held = [held[CHUNK_ROWS:].copy()], len(held) - CHUNK_ROWS

    def _chunk(self, values: AnyArray) -> None:
        number = self.rows // CHUNK_ROWS
        if number % SHARD_CHUNKS == 0:
            self._end_shard()
            index = [number // SHARD_CHUNKS] + [0] * (self._sample.ndim - 1)
            self._shard = ShardFile(self._folder.root / self._path / chunk_file(index), SHARD_CHUNKS)
        assert self._shard is not None
        self.rows += len(values)
        padding = np.full((CHUNK_ROWS - len(values), *values.shape[1:]), _fill(values), values.dtype)
        self._shard.append(np.concatenate([values, padding]) if len(padding) else values)

    def _end_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def finish(self) -> None:
        if self._held:
            self._chunk(np.concatenate(self._pending))
        self._end_shard()
        tail = self._sample.shape[1:]
        shard, inner = (CHUNK_ROWS * SHARD_CHUNKS, *tail), (CHUNK_ROWS, *tail)
        self._folder.describe(self._path, self._sample, (self.rows, *tail), Chunks(shard, inner), self._attributes)

    def abandon(self) -> None:
        """Close the file after a failure."""
        if self._shard is not None:
            self._shard.abandon()
