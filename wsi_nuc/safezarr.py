"""The one way into a Zarr store, our own or a stranger's: nothing acts on its metadata before they were judged.

A store that we wrote is a stranger's as soon as somebody else could write to it, so both are read by the same
rules: codecs of a list, numbers and texts but never objects, sizes that some writer could have meant.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.boundedcodecs import COMPRESSORS, bounded, bounded_v2
from wsi_nuc.safezip import Folder, Member

Json = Mapping[str, Any]

# Codecs that only move bytes; anything else (pickle above all) is refused before a chunk is read.
PIXEL_CODECS = frozenset({*COMPRESSORS, "bytes", "crc32c", "sharding_indexed", "transpose"})
TEXT_CODEC, TEXT = "vlen-utf8", "string"
MAX_METADATA_BYTES = 4 * 2**20
MAX_DIMENSIONS = 8
MAX_LENGTH = 2**48
MAX_CHUNK_BYTES = 2**28
MAX_SHARD_CHUNKS = 2**16
_NUMBERS = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_NUMBERS_V2 = re.compile(r"\|b1|[<>|][iuf][1248]")
# A text in memory is at least a reference to it.
_TEXT_BYTES = 8


class RefusedZarr(ValueError):
    """What a store asks for is not done; `remedy` is what its writer can do about it."""

    def __init__(self, cause: str, remedy: str = "write it again with zarr-python's defaults") -> None:
        super().__init__(cause, remedy)
        self.cause, self.remedy = cause, remedy

    def __str__(self) -> str:
        return self.cause


def attributes(folder: Folder) -> dict[str, Any]:
    """The attributes of the group or array in `folder`, {} where it has none; RefusedZarr if they are unusable."""
    if (folder / "zarr.json").is_file():
        attributes = _document(folder / "zarr.json").get("attributes", {})
    else:
        attributes = _document(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
    if not isinstance(attributes, dict):
        raise RefusedZarr("its attributes are no JSON object")
    return attributes


def below(folder: Folder, name: str) -> Folder:
    """Where the node `name` of a group lies; RefusedZarr where the name leads out of its folder."""
    parts = name.split("/")
    if not name or ".." in parts or Path(name).is_absolute():
        raise RefusedZarr(f"its metadata name an array {name[:64]!r}, which is no place inside of it")
    return folder.joinpath(*parts)


def open_array(folder: Folder, formats: Sequence[int] = (3,)) -> Any:
    """The zarr array in `folder`, to be read only. `formats`: the versions of Zarr that are expected."""
    import zarr
    from zarr.storage import LocalStore, StorePath

    if (folder / "zarr.json").is_file():
        document = _document(folder / "zarr.json")
    else:
        document = {**_document(folder / ".zarray"), "attributes": attributes(folder)}
    document = _checked(document, formats)
    # Made of the very document that was judged: what lies in the folder may be another one by now.
    store = _members_below(folder) if isinstance(folder, Member) else LocalStore(folder, read_only=True)
    return zarr.Array.from_dict(StorePath(store), document)


def _members_below(folder: Member) -> Any:
    """What lies below a folder of a packed store as zarr-python wants it, to be read only."""
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    class Members(MemoryStore):  # type: ignore[misc]
        def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
            if not (folder / key).is_file():
                return None
            start, size = (folder / key).run()
            first, last = 0, size
            if isinstance(byte_range, RangeByteRequest):
                first, last = byte_range.start, min(byte_range.end, size)
            elif isinstance(byte_range, OffsetByteRequest):
                first = byte_range.offset
            elif isinstance(byte_range, SuffixByteRequest):
                first = max(0, size - byte_range.suffix)
            buffer = (prototype or default_buffer_prototype()).buffer
            return buffer.from_bytes(folder.packed.read(start + first, last - first))

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            return self.get_sync(key, prototype=prototype, byte_range=byte_range)

        async def exists(self, key: str) -> bool:
            return (folder / key).is_file()

    return Members(read_only=True)


def read_array(folder: Folder, most_items: int) -> npt.NDArray[Any]:
    """A small array of our own as a whole."""
    array = open_array(folder)
    if array.size > most_items:
        raise RefusedZarr(f"its shape {array.shape} has more than the {most_items:,} items that it can need")
    return np.asarray(array[...])


def _document(file: Folder) -> dict[str, Any]:
    with file.open("rb") as stream:
        data = stream.read(MAX_METADATA_BYTES + 1)
    if len(data) > MAX_METADATA_BYTES:
        raise RefusedZarr(f"its {file.name} is larger than {MAX_METADATA_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RefusedZarr(f"its {file.name} is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise RefusedZarr(f"its {file.name} is no JSON object")
    return document


def _checked(document: Json, formats: Sequence[int]) -> dict[str, Any]:
    """The metadata once more, with codecs that decode no more than a chunk can hold."""
    version = document.get("zarr_format")
    if version not in formats:
        wanted = " or ".join(map(str, formats))
        raise RefusedZarr(f"it is Zarr of version {str(version)[:32]}, not {wanted}")
    shape = _sizes(document.get("shape"), least=0)
    if version == 2:
        _check_codecs(_plain_list(document.get("filters") or []), "id")
        _check_codecs([document["compressor"]] if document.get("compressor") else [], "id")
        item_bytes, chunk = _item_bytes_v2(document.get("dtype")), _sizes(document.get("chunks"))
    else:
        item_bytes, chunk = _item_bytes(document.get("data_type")), _chunk_shape(document.get("chunk_grid"))
        chunk = _inner_chunk(_plain_list(document.get("codecs")), chunk, document.get("data_type") == TEXT)
    if len(shape) != len(chunk):
        raise RefusedZarr(f"its shape has {len(shape)} dimensions and its chunks {len(chunk)}")
    size = math.prod(chunk) * item_bytes
    if size > MAX_CHUNK_BYTES:
        raise RefusedZarr(f"its chunks of {list(chunk)} are larger than {MAX_CHUNK_BYTES} bytes")
    if version == 2:
        compressor, filters = document.get("compressor"), document.get("filters")
        return {
            **document,
            "compressor": bounded_v2(compressor, size) if compressor else None,
            "filters": [bounded_v2(codec, size) for codec in filters] if filters else None,
        }
    # How long texts are is not told by their number.
    most = MAX_CHUNK_BYTES if document.get("data_type") == TEXT else size
    return {**document, "codecs": [bounded(codec, most) for codec in document["codecs"]]}


def _inner_chunk(codecs: list[Any], chunk: tuple[int, ...], text: bool) -> tuple[int, ...]:
    """Shape of what is decoded at once: the chunks of a shard, where the codecs make one of the chunk."""
    _check_codecs(codecs, "name", text)
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            inside = _mapping(codec.get("configuration"))
            inner = _sizes(inside.get("chunk_shape"))
            if len(inner) != len(chunk):
                raise RefusedZarr(f"its shards have {len(chunk)} dimensions and the chunks in them {len(inner)}")
            if math.prod(-(-a // b) for a, b in zip(chunk, inner, strict=True)) > MAX_SHARD_CHUNKS:
                raise RefusedZarr(f"a shard of it has more than {MAX_SHARD_CHUNKS} chunks")
            _check_codecs(_plain_list(inside.get("index_codecs", [])), "name")
            return _inner_chunk(_plain_list(inside.get("codecs", [])), inner, text)
    return chunk


def _check_codecs(codecs: Sequence[Any], key: str, text: bool = False) -> None:
    for codec in codecs:
        name = str(_mapping(codec).get(key))
        if name not in PIXEL_CODECS and not (text and name == TEXT_CODEC):
            raise RefusedZarr(f"its codec {name[:32]!r} is not allowed", "write it with zstd or blosc")


def _item_bytes(data_type: Any) -> int:
    if data_type == TEXT:
        return _TEXT_BYTES
    if not isinstance(data_type, str) or not _NUMBERS.fullmatch(data_type):
        raise RefusedZarr(f"its data are of type {str(data_type)[:32]!r}, neither numbers nor texts")
    return np.dtype(data_type).itemsize


def _item_bytes_v2(data_type: Any) -> int:
    if not isinstance(data_type, str) or not _NUMBERS_V2.fullmatch(data_type):
        raise RefusedZarr(f"its data are of type {str(data_type)[:32]!r}, not numbers")
    return int(data_type[2:])


def _chunk_shape(grid: Any) -> tuple[int, ...]:
    grid = _mapping(grid)
    if grid.get("name") != "regular":
        raise RefusedZarr(f"its chunk grid {str(grid.get('name'))[:32]!r} is not regular")
    return _sizes(_mapping(grid.get("configuration")).get("chunk_shape"))


def _sizes(value: Any, least: int = 1) -> tuple[int, ...]:
    sizes = _plain_list(value)
    if len(sizes) > MAX_DIMENSIONS or not all(type(n) is int and least <= n <= MAX_LENGTH for n in sizes):
        raise RefusedZarr(f"its sizes {str(sizes)[:64]} are not those of an array")
    return tuple(sizes)


def _plain_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RefusedZarr(f"its metadata have {type(value).__name__} in place of a list")
    return value


def _mapping(value: Any) -> Json:
    if not isinstance(value, Mapping):
        raise RefusedZarr(f"its metadata have {type(value).__name__} in place of an object")
    return value
