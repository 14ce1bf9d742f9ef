"""Errors of the system, in words that a user can act on."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
from pathlib import Path

from wsi_nuc.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def free_bytes(path: Path) -> int:
    """Bytes left for this user on the file system of `path`, or of the nearest folder above that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def storage_error(path: Path, error: OSError, needed: int = 0) -> StorageError:
    """The error for the user after a failed call on `path` that wanted to write `needed` bytes."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        sizes = f"{needed:,} bytes needed, {free_bytes(path.parent):,} free"
        return StorageError(
            path, f"{reason} ({sizes})", "free space or raise the quota, then repeat the same command: it resumes"
        )
    if error.errno in _FORBIDDEN:
        return _forbidden(path, reason)
    return StorageError(path, reason, "check the file system, then repeat the same command: it resumes")


def _forbidden(path: Path, reason: str) -> StorageError:
    """The error in a folder that several people share: it names the owner, and what they can do."""
    own = "choose another output folder with --out, or make this one writable"
    nearest = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    try:
        status, above = nearest.lstat(), nearest.parent.lstat()
        owner = _user(status.st_uid)
    except OSError:
        return StorageError(path, reason, own)
    if status.st_uid == os.geteuid():
        return StorageError(path, reason, own)
    if nearest == path and above.st_mode & stat.S_ISVTX:
        cause = (
            f"{reason}: it belongs to {owner}, and in the sticky folder {path.parent} nobody else may replace it"
        )
        return StorageError(path, cause, f"have it removed by {owner}, or the folder opened (chmod -t)")
    remedy = f"share it: {owner} sets umask 002 and calls chmod -R g+w; or choose another output folder with --out"
    return StorageError(path, f"{reason}: {nearest} belongs to {owner}", remedy)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
