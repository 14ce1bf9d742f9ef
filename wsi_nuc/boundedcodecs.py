"""Decompression that never yields more than a chunk can hold: 30 kB of zstd may claim to be a gigabyte.

zarr's own codecs take as much memory as the data ask for. These take their place in the metadata of an array under
a name of their own, so that no other reader of the process is touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

# imagecodecs has a decoder of each name that fills a buffer and stops at its end.
COMPRESSORS = ("blosc", "bz2", "gzip", "lz4", "zlib", "zstd")
NAME = "wsi_nuc_bounded"
# For checksums among the compressed data.
SLACK_BYTES = 64

Codec = Mapping[str, Any]


def decode(codec: str, data: Any, most_bytes: int) -> memoryview:
    """What was compressed, if it is no more than `most_bytes`; else RuntimeError."""
    import imagecodecs

    options = {"header": True} if codec == "lz4" else {}
    decoder = getattr(imagecodecs, f"{codec}_decode")
    # Memory that is not written to is not taken, however much may come.
    return memoryview(decoder(data, out=np.empty(most_bytes + SLACK_BYTES, np.uint8), **options))


def bounded(codec: Codec, most_bytes: int) -> Codec:
    """A codec of Zarr v3, those inside of a shard included, whose decoded chunks have at most so many bytes."""
    if codec["name"] == "sharding_indexed":
        inside = codec["configuration"]
        inner = [bounded(codec, most_bytes) for codec in inside["codecs"]]
        return {**codec, "configuration": {**inside, "codecs": inner}}
    if codec["name"] not in COMPRESSORS:
        return codec
    _register()
    return {"name": NAME, "configuration": {"codec": codec["name"], "most_bytes": most_bytes}}


def bounded_v2(codec: Codec, most_bytes: int) -> Codec:
    """The same for a compressor or filter of Zarr v2."""
    if codec["id"] not in COMPRESSORS:
        return codec
    _register()
    return {"id": NAME, "codec": codec["id"], "most_bytes": most_bytes}


@cache
def _register() -> None:
    """Make the codecs known to zarr and numcodecs, which are not imported before an array is opened."""
    import numcodecs.abc
    import numcodecs.registry
    from zarr.abc.codec import BytesBytesCodec
    from zarr.registry import register_codec

    class Bounded(BytesBytesCodec):  # type: ignore[misc]
        is_fixed_size = False

        def __init__(self, codec: str, most_bytes: int) -> None:
            self.codec, self.most_bytes = codec, most_bytes

        @classmethod
        def from_dict(cls, data: Any) -> Any:
            return cls(**data["configuration"])

        def to_dict(self) -> Any:
            return {"name": NAME, "configuration": vars(self)}

        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            data = await asyncio.to_thread(decode, self.codec, chunk_bytes.to_bytes(), self.most_bytes)
            return chunk_spec.prototype.buffer.from_bytes(data)

        async def _encode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            raise NotImplementedError

        def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
            raise NotImplementedError

    class BoundedV2(numcodecs.abc.Codec):  # type: ignore[misc]
        codec_id = NAME

        def __init__(self, codec: str, most_bytes: int) -> None:
            self.codec, self.most_bytes = codec, most_bytes

        def decode(self, buf: Any, out: Any = None) -> Any:
            return decode(self.codec, buf, self.most_bytes)

        def encode(self, buf: Any) -> Any:
            raise NotImplementedError

    register_codec(NAME, Bounded)
    numcodecs.registry.register_codec(BoundedV2)
