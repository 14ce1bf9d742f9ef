"""Checks of the output folder before anything is computed, and of links that somebody put into it."""

from __future__ import annotations

import uuid
from pathlib import Path

from wsi_nuc.errors import StorageError
from wsi_nuc.store import durable
from wsi_nuc.store.locks import private_dir


def refuse_links(out_dir: Path, path: Path) -> None:
    """No component of `path` below `out_dir` may be a symbolic link: a result never lands outside `out_dir`."""
    here = Path(out_dir)
    for part in path.relative_to(out_dir).parts:
        here /= part
        if here.is_symlink():
            raise StorageError(
                here,
                f"is a symbolic link to {str(here.readlink())!r}",
                "remove the link; results are not written through it",
            )


def check_writable(out_dir: Path, needed: int = 0) -> None:
    """Fail early, before a model is loaded: create, write, sync, rename and delete a probe file."""
    out_dir = Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise StorageError(out_dir, "is not a folder", "choose another output folder with --out")
    folder = private_dir(out_dir)
    if out_dir.is_dir():
        refuse_links(out_dir, folder)
    durable.make_dir(folder)
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        durable.atomic_write(probe, b"probe")
    finally:
        probe.unlink(missing_ok=True)
    free = durable.free_bytes(out_dir)
    if free < needed:
        raise StorageError(
            out_dir, f"about {needed:,} bytes are needed, {free:,} are free", "free space or choose another --out"
        )
