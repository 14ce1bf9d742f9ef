"""The manifest: what a result consists of, what it was made from, and whether it still is what was published."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_nuc.errors import StorageError
from wsi_nuc.types import TileCounts

MANIFEST = "manifest.json"
FORMAT = 1
Json = dict[str, Any]


def canonical(document: Any) -> bytes:
    """One byte string per document: sorted keys, no spaces, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def identity(slide_sha256: str, weights_sha256: str, config: Mapping[str, Any], version: str) -> str:
    """What a result depends on, and nothing else: no path, no clock, no machine."""
    return hashlib.sha256(canonical(identity_key(slide_sha256, weights_sha256, config, version))).hexdigest()


def identity_key(slide_sha256: str, weights_sha256: str, config: Mapping[str, Any], version: str) -> Json:
    return {
        "config": dict(config),
        "slide_sha256": slide_sha256,
        "version": version,
        "weights_sha256": weights_sha256,
    }


@dataclass(frozen=True, slots=True)
class Lost:
    """Where no result is from, for one reason: level-0 boxes x0, y0, x1, y1, and their searched area."""

    boxes_l0: tuple[tuple[int, int, int, int], ...] = ()
    mm2: float = 0.0


@dataclass(frozen=True, slots=True)
class Accounting:
    """What became of every tile. `missing`: the file holds no data there; `damaged`: its data cannot be decoded,
    in tiles that are processed otherwise; `failed`: whole tiles. No two of their boxes overlap."""

    tiles: TileCounts
    missing: Lost = Lost()
    damaged: Lost = Lost()
    failed: Lost = Lost()
    repairs: int = 0

    def document(self) -> Json:
        counts = {name: getattr(self.tiles, name) for name in ("processed", "background", "missing", "failed")}
        lost = {name: getattr(self, name) for name in ("missing", "damaged", "failed")}
        return {
            **counts,
            "total": self.tiles.total,
            **{f"{name}_boxes_l0": sorted(map(list, one.boxes_l0)) for name, one in lost.items()},
            **{f"{name}_mm2": one.mm2 for name, one in lost.items()},
        }

    @property
    def lost_mm2(self) -> float:
        return self.missing.mm2 + self.damaged.mm2 + self.failed.mm2


@dataclass(frozen=True, slots=True)
class Origin:
    """What a result was made from. `key` is that of `identity_key`; `slide` holds numbers and names only."""

    key: Json
    slide: Json
    versions: dict[str, str]

    @property
    def identity(self) -> str:
        return hashlib.sha256(canonical(self.key)).hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(store: Path) -> Iterator[str]:
    """Every file, and every link to a folder, below `store` with `/` between the parts; not the manifest."""
    root = os.fspath(store)
    # Texts rather than paths: of a small slide, taking paths apart is a good part of the work.
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]  # noqa: PTH114
        for name in sorted(files + links):
            relative = f"{folder}/{name}"[len(root) + 1 :]
            if relative != MANIFEST:
                yield relative


def build(store: Path, origin: Origin, accounting: Accounting, counts: Json, run: Json) -> Json:
    """The manifest of the files that lie in `store`. `run` (times, workers) stays outside of the digest."""
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
    return {**body, "digest": digest(body), "run": run}


def _files(store: Path) -> Json:
    paths = {name: store / name for name in sorted(walk(store))}
    return {name: {"sha256": hash_file(path), "size": path.stat().st_size} for name, path in paths.items()}


def rebuild(store: Path, old: Json, key: Json, run: Json) -> Json:
    """The manifest of `old` for other files of the same nuclei, made from `key`."""
    body = {k: v for k, v in old.items() if k not in ("run", "digest")}
    origin = Origin(key, old["slide"], old["versions"])
    body |= {"identity": origin.identity, "made_from": key, "files": _files(store)}
    return {**body, "digest": digest(body), "run": {**old.get("run", {}), **run}}


def digest(manifest: Mapping[str, Any]) -> str:
    """sha256 over everything that has to be identical when the same run is repeated."""
    return hashlib.sha256(canonical({k: v for k, v in manifest.items() if k not in ("run", "digest")})).hexdigest()


def read(store: Path) -> Json:
    """The manifest of a published store; StorageError where there is none or it cannot be parsed."""
    path = Path(store) / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StorageError(
            path, "is missing, so nothing says what was published", "run the slide again"
        ) from error
    except (OSError, ValueError) as error:
        raise StorageError(path, f"cannot be read ({error})", "run the slide again") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise StorageError(path, "is not a manifest of a wsi-nuc result", "run the slide again")
    return manifest


def is_partial(manifest: Json) -> bool:
    """Whether places of a result could not be decoded or computed: good enough only where that is allowed."""
    tiles = manifest["tiles"]
    return bool(tiles["failed"] or tiles.get("damaged_boxes_l0"))


def owner_of(store: Path) -> str:
    """The content hash of the slide that `store` belongs to, "" if there is none or it is unreadable."""
    key = made_from(store)
    return str(key.get("slide_sha256", "")) if key else ""


def made_from(store: Path) -> Json | None:
    """The identity key of a result: from its manifest or, if that is lost, from the root group's copy."""
    try:
        found = read(store).get("made_from")
    except StorageError:
        found = None
    if isinstance(found, dict):
        return found
    try:
        root = json.loads((Path(store) / "zarr.json").read_bytes())
        found = root["attributes"]["wsi_nuc"]["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None
