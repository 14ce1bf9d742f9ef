"""Slides copied to the node's own disk, for shared file systems that are slow to read in small pieces.

A copy is used once its whole content has the hash that the slide has. It goes when its slide is done, and at the
latest with the next run on this node: a lock tells the copies of the living from those of the dead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from wsi_nuc.errors import SlideError, StorageError
from wsi_nuc.slides.address import is_url
from wsi_nuc.slides.files import content_files
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.slides.localfile import CHECK_PATH
from wsi_nuc.store import durable
from wsi_nuc.store.locks import Held, try_lock
from wsi_nuc.store.oserror import free_bytes
from wsi_nuc.store.place import Place
from wsi_nuc.store.private import Private, private, sweep_trees
from wsi_nuc.types import SlideRef

CHUNK_BYTES = 8 << 20
REMEDY = "free space, choose another folder with --stage, or leave the option out"


class StagedSlide:
    """The copy at `ref`, held until `close`. A slide at an address is not copied: `ref` is what it was."""

    def __init__(self, ref: SlideRef, stage: Place, sha256: str, check_source: Callable[[], None]) -> None:
        """`sha256`: of the slide's whole content; `check_source` raises if the slide changed meanwhile."""
        self.ref, self._held = ref, Held(-1)
        self._folder: Place | None = None
        if is_url(ref.path):
            return
        self._folder = _copies(stage) / uuid.uuid4().hex
        self._held = Held(try_lock(_lock(self._folder))[0])
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self.ref = _copied(ref, stage, self._folder)
            if content_sha256(self.ref) != sha256:
                check_source()
                raise StorageError(stage, f"the copy of {ref.path} differs from it", "check the disk; " + REMEDY)
            on_failure.pop_all()

    def close(self) -> None:
        folder, self._folder = self._folder, None
        with self._held:
            if folder is not None and durable.remove_tree(folder):
                durable.remove_file(_lock(folder))

    def __enter__(self) -> StagedSlide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_abandoned(stage: Place) -> list[Place]:
    """Delete the copies of runs that were killed. Returns what lies among them and was not made by wsi-nuc."""
    return sweep_trees(_copies(stage))


def _copies(stage: Place) -> Place:
    return private(stage, Private.SLIDES)


def _lock(folder: Place) -> Place:
    return folder.parent / f"{folder.name}.lock"


def _copied(ref: SlideRef, stage: Place, folder: Place) -> SlideRef:
    """All files of the slide below `folder`, at the same places relative to each other."""
    slide = Path(ref.path)
    base = slide.parent
    try:
        sources = content_files(ref.path)
        needed = sum(source.stat().st_size for source in sources)
    except OSError as error:
        raise SlideError(ref.path, f"cannot be read ({error.strerror})", CHECK_PATH) from error
    free = free_bytes(stage.path)
    if free < needed:
        cause = f"about {needed:,} bytes are needed to copy {ref.path}, {free:,} are free"
        raise StorageError(stage, cause, REMEDY)
    for source in sources:
        _copy(source, folder / source.relative_to(base).as_posix(), stage)
    return replace(ref, path=str(folder / slide.name))


def _copy(source: Path, target: Place, stage: Place) -> None:
    try:
        reader = source.open("rb")
    except OSError as error:
        raise SlideError(source, f"cannot be opened ({error.strerror})", CHECK_PATH) from error
    with reader:
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        try:
            with durable.DurableFile(target) as file:
                while chunk := _read(reader, source):
                    file.write(chunk)
        except StorageError as error:
            raise StorageError(stage, f"{source} cannot be copied there: {error.cause}", REMEDY) from error


def _read(reader: BinaryIO, source: Path) -> bytes:
    try:
        return reader.read(CHUNK_BYTES)
    except OSError as error:
        raise SlideError(source, f"cannot be read ({error.strerror})", CHECK_PATH) from error
