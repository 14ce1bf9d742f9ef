"""Advisory locks that die with their holder. They only save work: correctness rests on atomic renames."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_nuc.store.durable import make_dir, storage_error

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def _nothing() -> None:
    """Called where nobody wants to hear of the waiting."""


def _still_there(fd: int, path: Path) -> bool:
    # Whoever cleans up unlinks the file under the lock, so a lock on an unlinked file protects nothing.
    try:
        at_path = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), at_path)


def _acquire(fd: int, waiting: Callable[[], None] | None) -> bool | None:
    """True: locked. False: somebody else holds it and we shall not wait. None: no locks on this file system."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is None:
            return False
        waiting()
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def try_lock(path: Path, waiting: Callable[[], None] | None = None) -> tuple[int, bool | None]:
    """Open `path` and lock it. Returns the descriptor, which the caller closes, and what `_acquire` says."""
    make_dir(path.parent)
    try:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            locked = _acquire(fd, waiting)
            if not locked or _still_there(fd, path):
                return fd, locked
            os.close(fd)
    except OSError as error:
        raise storage_error(path, error) from error


@contextmanager
def hold(path: Path, waiting: Callable[[], None] = _nothing) -> Iterator[bool]:
    """Hold the lock at `path`, waiting for its holder. Yields False where the file system knows no locks."""
    fd, locked = try_lock(path, waiting)
    try:
        yield bool(locked)
    finally:
        os.close(fd)


@contextmanager
def run_lock(out_dir: Path, identity: str, waiting: Callable[[], None] = _nothing) -> Iterator[bool]:
    """One run of one identity at a time in this output folder; `waiting` is called once if another has it."""
    with hold(private_dir(out_dir) / f"{identity[:16]}.lock", waiting) as locked:
        yield locked


def private_dir(out_dir: Path) -> Path:
    """Where everything lives that is not a result: parts, staging, locks, claims of names."""
    return Path(out_dir) / ".wsi-nuc"
