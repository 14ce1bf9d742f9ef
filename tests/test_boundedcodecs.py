"""Chunks are decompressed to what they can hold and no further. What was honestly compressed comes back."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import BZ2, LZ4, Blosc, GZip, Zlib, Zstd
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from wsi_nuc.boundedcodecs import COMPRESSORS, decode
from wsi_nuc.safezarr import open_array

V2 = {"blosc": Blosc(), "bz2": BZ2(), "gzip": GZip(), "lz4": LZ4(), "zlib": Zlib(), "zstd": Zstd(checksum=True)}
V3 = {"blosc": BloscCodec(), "gzip": GzipCodec(), "zstd": ZstdCodec()}
WRITTEN = {f"v2 {name}": {"zarr_format": 2, "compressors": codec} for name, codec in V2.items()}
WRITTEN |= {f"v3 {name}": {"zarr_format": 3, "compressors": [codec]} for name, codec in V3.items()}
WRITTEN |= {f"sharded {name}": {**WRITTEN[f"v3 {name}"], "shards": (64, 64)} for name in V3}
WRITTEN["sum inside"] = {"zarr_format": 3, "compressors": [Crc32cCodec(), ZstdCodec()]}
WRITTEN["sum outside"] = {"zarr_format": 3, "compressors": [ZstdCodec(), Crc32cCodec()]}
WRITTEN["twice"] = {"zarr_format": 3, "compressors": [ZstdCodec(), GzipCodec()]}


def values() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 50, (100, 70), dtype=np.uint16)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_was_written_is_read(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = WRITTEN[name]
    array = zarr.create_array(tmp_path / "a", shape=(100, 70), chunks=(32, 32), dtype="uint16", **options)
    array[:] = values()
    read = open_array(tmp_path / "a", (2, 3))
    np.testing.assert_array_equal(read[...], values())
    np.testing.assert_array_equal(read[40:41, 3:60], values()[40:41, 3:60])


@pytest.mark.parametrize("name", WRITTEN)
def test_a_chunk_that_claims_to_be_more_is_an_error(name: str, tmp_path: Path) -> None:
    """The chunk comes from an array whose chunks are 40 times as large, and nothing else differs."""
    options: dict[str, Any] = WRITTEN[name]
    sizes = {"small": 32, "large": 200}
    for kind, edge in sizes.items():
        shards = {"shards": (edge, edge)} if "shards" in options else {}
        layout = {"shape": (edge, edge), "chunks": (edge, edge), "dtype": "uint16", "fill_value": 7}
        zarr.create_array(tmp_path / kind, **layout, **{**options, **shards})[:] = 0
    chunk = next(path for path in (tmp_path / "small").rglob("*") if path.is_file() and path.name[-1].isdigit())
    chunk.write_bytes((tmp_path / "large" / chunk.relative_to(tmp_path / "small")).read_bytes())
    with pytest.raises((RuntimeError, ValueError)):
        open_array(tmp_path / "small", (2, 3))[...]


@pytest.mark.parametrize("name", COMPRESSORS)
def test_decoding_stops_at_the_size_that_was_asked_for(name: str) -> None:
    data = V2[name].encode(bytes(1000))
    assert bytes(decode(name, data, 1000)) == bytes(1000)
    with contextlib.suppress(RuntimeError):
        assert len(decode(name, V2[name].encode(bytes(10**6)), 1000)) < 2000
