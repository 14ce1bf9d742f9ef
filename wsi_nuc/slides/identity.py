"""When two slides are the same (their whole content is) and when a slide changed while it was read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.address import is_url, reaching, shown
from wsi_nuc.slides.files import content_files
from wsi_nuc.slides.localfile import CHECK_PATH
from wsi_nuc.types import SlideRef

CHUNK_BYTES = 4 * 2**20

Signature = tuple[tuple[str, int, int, int, int], ...]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _relative(files: tuple[Path, ...], path: str) -> list[str]:
    base = Path(path) if Path(path).is_dir() else Path(path).parent
    return [p.relative_to(base).as_posix() for p in files]


def content_sha256(ref: SlideRef) -> str:
    """Hash of the whole content: as `sha256sum` for one file, else over the sorted names and hashes of files."""
    if is_url(ref.path):
        return _url_sha256(ref.path)
    try:
        files = content_files(ref.path)
        if files == (Path(ref.path),):
            return _sha256(files[0])
        digest = hashlib.sha256()
        for name, file in sorted(zip(_relative(files, ref.path), files, strict=True)):
            digest.update(f"{name}\0{_sha256(file)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    except OSError as error:
        raise SlideError(ref.path, f"cannot be read ({error.strerror})", CHECK_PATH) from error


def _url_sha256(url: str) -> str:
    import fsspec

    digest = hashlib.sha256()
    with reaching(url), fsspec.open(url, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def stat_signature(ref: SlideRef) -> Signature:
    """Name, size, mtime, ctime and inode of every file. They differ after a run if the slide changed."""
    if is_url(ref.path):
        return _url_signature(ref.path)
    try:
        files = content_files(ref.path)
        stats = [p.stat() for p in files]
    except OSError as error:
        raise SlideError(ref.path, f"cannot be read ({error.strerror})", CHECK_PATH) from error
    rows = zip(_relative(files, ref.path), stats, strict=True)
    return tuple(sorted((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in rows))


def refuse_change(ref: SlideRef, signature: Signature, name: str) -> None:
    """Raise if any file of the slide no longer has this signature; `name` stands for the slide in the message."""
    try:
        unchanged = stat_signature(ref) == signature
    except SlideError:
        unchanged = False
    if not unchanged:
        cause = "the slide changed during the run: it was replaced, rewritten or deleted"
        raise SlideError(shown(name), cause, "nothing was published; run it again when the file is at rest")


def refuse_other(ref: SlideRef, sha256: str, remedy: str) -> None:
    """Raise if the slide is not the one, by its content, on which the nuclei of a result were found."""
    if content_sha256(ref) != sha256:
        cause = f"is not the slide that the nuclei were found on (content {sha256}), or has changed since"
        raise SlideError(shown(ref.path), cause, remedy)


def _url_signature(url: str) -> Signature:
    import fsspec

    with reaching(url):
        system, path = fsspec.core.url_to_fs(url)
        info: dict[str, Any] = system.info(path)
    tag = next((str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if key in info), "")
    return ((tag, int(info.get("size") or 0), 0, 0, 0),)
