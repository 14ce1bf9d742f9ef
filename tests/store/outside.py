"""A folder outside of the output that holds everything that the program would remove or take for its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

HEX = "0123456789abcdef"
DEAD = HEX * 2


def tempting(folder: Path) -> Path:
    """Names and contents as the program leaves them in all of its private folders, and in those of a cohort."""
    for tree in (f"{DEAD}.zarr", DEAD, HEX, f"{HEX}/{HEX}", "x.svs.zarr", "tissue.svs.zarr", "deep/er"):
        (folder / tree).mkdir(parents=True, exist_ok=True)
        (folder / tree / "data").write_text("precious")
    for lock in (DEAD, HEX, f"{HEX}/{HEX}", "x.svs.zarr", "names"):
        (folder / f"{lock}.lock").touch()
    for part in (f"region-0.{HEX}.arrow", f".tmp-{DEAD}"):
        (folder / HEX / HEX / part).write_text("precious")
        (folder / part).write_text("precious")
    for store in ("x.svs.zarr", "tissue.svs.zarr"):
        manifest = {"made_from": {"slide_sha256": "a" * 64}, "files": {}}
        (folder / store / "manifest.json").write_text(json.dumps(manifest))
    (folder / "x.svs.sha256").write_text("b" * 64)
    return folder


def everything(folder: Path) -> dict[str, str]:
    """Every name below `folder` with what it is: a folder, where a link leads, or the hash of a file."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            what = f"link to {path.readlink()}"
        elif path.is_dir():
            what = "folder"
        else:
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        contents[path.relative_to(folder).as_posix()] = what
    return contents


def link(place: Path, target: Path) -> None:
    """A link at `place`. A file or folder that was there is moved aside."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() or place.is_symlink():
        place.rename(place.with_name(f"{place.name}-aside"))
    place.symlink_to(target)
