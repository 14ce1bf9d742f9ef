"""The manifest: the files of a result, what it was made from, and whether it is still as it was published."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_nuc.errors import StorageError
from wsi_nuc.safezip import Folder, Member, contents, flaw_of, mentions
from wsi_nuc.types import TileCounts

MANIFEST = "manifest.json"
LOST = ("missing", "damaged", "failed")
ROOT = "zarr.json"
FORMAT = 3
# In format 1, `run` has no checksum. Up to format 2, the figures of the classes are a table of their own.
FORMATS = (1, 2, FORMAT)
Json = dict[str, Any]
# The entries that may differ when the same run is repeated, and the checksums themselves.
_OUTSIDE_OF_DIGEST = ("run", "run_sha256", "digest")
_AGAIN = "run the slide again"


def canonical(document: Any) -> bytes:
    """The same bytes for equal documents: sorted keys, no spaces, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def identity(slide_sha256: str, weights_sha256: str, config: Mapping[str, Any], results: Mapping[str, int]) -> str:
    """The hash of everything that a result depends on, and of nothing else: no path, clock, machine or version."""
    return sha256_of(identity_key(slide_sha256, weights_sha256, config, results))


def sha256_of(document: Any) -> str:
    """The hash of a document. ValueError for NaN, infinity and what is not JSON."""
    return hashlib.sha256(canonical(document)).hexdigest()


def identity_key(
    slide_sha256: str, weights_sha256: str, config: Mapping[str, Any], results: Mapping[str, int]
) -> Json:
    """What a result depends on. `results`: the numbers of `wsi_nuc.results_numbers` that apply; older keys have a
    `version` instead."""
    return {
        "config": dict(config),
        "results": dict(results),
        "slide_sha256": slide_sha256,
        "weights_sha256": weights_sha256,
    }


@dataclass(frozen=True, slots=True)
class Lost:
    """The places without a result, for one of the reasons."""

    boxes_l0: tuple[tuple[int, int, int, int], ...] = ()
    """x0, y0, x1, y1 of each place, in level-0 pixels."""
    mm2: float = 0.0
    """Their area, as far as it lies in the tissue that is searched."""


@dataclass(frozen=True, slots=True)
class Accounting:
    """What became of every tile. The boxes of the lost places do not overlap."""

    tiles: TileCounts
    missing: Lost = Lost()
    """The file holds no data there."""
    damaged: Lost = Lost()
    """The data cannot be decoded there, in tiles whose other pixels were processed."""
    failed: Lost = Lost()
    """Whole tiles."""
    repairs: int = 0
    """How many outlines were mended."""

    def document(self) -> Json:
        counts = {name: getattr(self.tiles, name) for name in ("processed", "background", "missing", "failed")}
        lost = {name: getattr(self, name) for name in LOST}
        return {
            **counts,
            "total": self.tiles.total,
            **{f"{name}_boxes_l0": sorted(map(list, places.boxes_l0)) for name, places in lost.items()},
            **{f"{name}_mm2": places.mm2 for name, places in lost.items()},
        }

    @property
    def lost_mm2(self) -> float:
        return self.missing.mm2 + self.damaged.mm2 + self.failed.mm2


@dataclass(frozen=True, slots=True)
class Origin:
    """What a result was made from."""

    key: Json
    """As `identity_key` returns it."""
    slide: Json
    """Only numbers and names."""
    versions: dict[str, str]
    """Of this program and of the libraries that it used."""

    @property
    def identity(self) -> str:
        return sha256_of(self.key)


def hash_file(path: Folder) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(store: Folder) -> Iterator[str]:
    """Every file, and every link to a folder, below `store`, except the manifest. Parts are separated by `/`."""
    if isinstance(store, Member):
        yield from sorted(store.packed.members.keys() - {MANIFEST})
        return
    root = os.fspath(store)
    # Texts rather than paths: for a small slide, taking paths apart is a good part of the work.
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]  # noqa: PTH114
        for name in sorted(files + links):
            relative = f"{folder}/{name}"[len(root) + 1 :]
            if relative != MANIFEST:
                yield relative


def build(store: Path, origin: Origin, accounting: Accounting, counts: Json, run: Json) -> Json:
    """The manifest of the files in `store`. `run` (times, workers) is not part of the digest."""
    body: Json = {
        "format": FORMAT,
        "identity": origin.identity,
        "made_from": origin.key,
        "slide": origin.slide,
        "versions": origin.versions,
        "tiles": accounting.document(),
        "repairs": accounting.repairs,
        "counts": counts,
        "files": _files(store),
    }
    return _sealed(body, run)


def _sealed(body: Json, run: Json) -> Json:
    return {**body, "digest": digest(body), "run": run, "run_sha256": sha256_of(run)}


def _files(store: Path) -> Json:
    paths = {name: store / name for name in sorted(walk(store))}
    return {name: {"sha256": hash_file(path), "size": path.stat().st_size} for name, path in paths.items()}


def rebuild(store: Path, old: Json, key: Json, run: Json) -> Json:
    """The manifest `old` for other files of the same nuclei, made from `key`."""
    body = {name: entry for name, entry in old.items() if name not in _OUTSIDE_OF_DIGEST}
    body |= {"format": FORMAT, "identity": sha256_of(key), "made_from": key, "files": _files(store)}
    return _sealed(body, {**old["run"], **run})


def digest(manifest: Mapping[str, Any]) -> str:
    """sha256 over everything that has to be identical when the same run is repeated."""
    return sha256_of({name: entry for name, entry in manifest.items() if name not in _OUTSIDE_OF_DIGEST})


def read(store: Path) -> Json:
    """The manifest of a published store, as it was published; StorageError if it was changed or lost."""
    manifest, problem = load(store)
    if problem:
        raise StorageError(Path(store) / MANIFEST, problem, _AGAIN)
    return manifest


def load(store: Path) -> tuple[Json, str]:
    """The manifest of a store, and what is wrong with it: "" if nothing is, and only then its content may be
    believed. Nothing is raised; a file without the shape of a manifest counts as an empty manifest."""
    try:
        document = json.loads((contents(store) / MANIFEST).read_bytes())
    except FileNotFoundError:
        return {}, "is missing, so nothing says what was published"
    except (OSError, StorageError, ValueError, RecursionError) as error:
        return {}, f"cannot be read ({error})"
    if not isinstance(document, dict) or not _is_list_of_files(document.get("files")):
        return {}, "is not a manifest of a wsi-nuc result"
    return document, _flaw(document)


def _is_list_of_files(files: Any) -> bool:
    """Whether these are names inside of a store, each with the size and the sha256 of its content."""
    return isinstance(files, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("sha256"), str)
        and not {"", ".", ".."} & set(name.split("/"))
        and "\0" not in name
        for name, entry in files.items()
    )


def _flaw(document: Json) -> str:
    if not _is_sha256_of(document.get("digest"), digest, document):
        return "was changed: its digest does not match its content"
    if document.get("format") not in FORMATS:
        return f"has format {document.get('format')!r}, which this version of wsi-nuc does not know"
    if document["format"] > 1 and not _is_sha256_of(document.get("run_sha256"), sha256_of, document.get("run")):
        return "was changed: what it says of the run does not match its checksum"
    return ""


def _is_sha256_of(stated: Any, hashed: Callable[[Any], str], document: Any) -> bool:
    try:
        return bool(stated == hashed(document))
    except (ValueError, RecursionError):
        return False


def lost_boxes(tiles: Json) -> list[list[int]]:
    """x0, y0, x1, y1 of all places without a result, in level-0 pixels. `tiles`: what a manifest says of them."""
    return [box for kind in LOST for box in tiles.get(f"{kind}_boxes_l0", [])]


def is_partial(manifest: Json) -> bool:
    """Whether places of a result could not be decoded or computed. The user has to allow such a result."""
    tiles = manifest["tiles"]
    return bool(tiles["failed"] or tiles.get("damaged_boxes_l0"))


def owner_of(store: Path) -> str:
    """The content hash of the slide that `store` belongs to; "" if there is no store, or if it is unreadable."""
    key = made_from(store)
    return str(key.get("slide_sha256", "")) if key else ""


def made_from(store: Path) -> Json | None:
    """The identity key of a result, from its manifest or, if that is damaged or lost, from the root group's copy.

    A key is believed if the hash beside it matches. Roots of the first format have no hash.
    """
    root = _parsed(store, ROOT)
    copies = (_parsed(store, MANIFEST), _dict(_dict(root.get("attributes")).get("wsi_nuc")))
    return next((copy["made_from"] for copy in copies if _has_key(copy)), None)


def is_ours(store: Path) -> bool:
    """Whether a folder or packed store is a result, intact or not: its manifest or its root mentions what it was
    made from. Files with these names are not enough."""
    sign = b'"made_from"'
    if any(sign in _bytes(store, name) for name in (MANIFEST, ROOT)):
        return True
    try:
        return bool(flaw_of(store)) and mentions(store, sign)
    except OSError:
        return False


def _has_key(copy: Json) -> bool:
    key, stated = _dict(copy.get("made_from")), copy.get("identity")
    if stated is not None:
        return _is_sha256_of(stated, sha256_of, key)
    config = _dict(key.get("config"))
    return bool(config) and isinstance(config.get("features", {}), dict) and bool(key.get("slide_sha256"))


def _parsed(store: Path, name: str) -> Json:
    try:
        return _dict(json.loads(_bytes(store, name)))
    except (ValueError, RecursionError):
        return {}


def _bytes(store: Path, name: str) -> bytes:
    try:
        return (contents(store) / name).read_bytes()
    except (OSError, StorageError):
        return b""


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
