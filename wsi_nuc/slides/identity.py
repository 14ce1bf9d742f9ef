"""What makes two slides the same (their whole content) and what tells that one changed while it was read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.address import is_url, reaching
from wsi_nuc.slides.localfile import CHECK_PATH, refuse_special
from wsi_nuc.types import SlideRef

CHUNK_BYTES = 4 * 2**20
DICOM_HEAD_BYTES = 64 * 1024
SERIES_TAG = b"\x20\x00\x0e\x00UI"
MIRAX_INDEX = "Slidedat.ini"

Signature = tuple[tuple[str, int, int, int, int], ...]


def content_files(path: str) -> list[Path]:
    """All files that a local slide consists of, sorted by their path."""
    refuse_special(path)
    slide = Path(path)
    if slide.is_dir():
        inside = sorted(p for p in slide.rglob("*") if p.is_file())
        dicom = [p for p in inside if p.parent == slide and dicom_series(p) is not None]
        return _one_series(dicom, dicom[0]) if dicom else inside
    companion = slide.with_suffix("")
    if slide.suffix and (companion / MIRAX_INDEX).is_file():
        return sorted([slide, *(p for p in companion.rglob("*") if p.is_file())])
    if dicom_series(slide) is not None:
        return _one_series(sorted(p for p in slide.parent.iterdir() if p.is_file()), slide)
    return [slide]


def _one_series(files: Iterable[Path], of: Path) -> list[Path]:
    wanted = dicom_series(of)
    return [p for p in files if dicom_series(p) == wanted] if wanted else [of]


def dicom_series(path: Path) -> bytes | None:
    """SeriesInstanceUID of a DICOM file (b"" if it has none in its head), None for other files."""
    with path.open("rb") as file:
        head = file.read(132)
        if head[128:] != b"DICM":
            return None
        head += file.read(DICOM_HEAD_BYTES)
    at = head.find(SERIES_TAG)
    if at < 0:
        return b""
    start = at + len(SERIES_TAG) + 2
    return head[start : start + int.from_bytes(head[start - 2 : start], "little")].strip(b"\0 ")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _relative(files: list[Path], path: str) -> list[str]:
    base = Path(path) if Path(path).is_dir() else Path(path).parent
    return [p.relative_to(base).as_posix() for p in files]


def content_sha256(ref: SlideRef) -> str:
    """Hash of the whole content: for one file as `sha256sum`; for several, of their sorted names and hashes."""
    if is_url(ref.path):
        return _url_sha256(ref.path)
    try:
        files = content_files(ref.path)
        if files == [Path(ref.path)]:
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
    """Name, size, mtime, ctime and inode of every file: equal before and after a run, or the slide changed."""
    if is_url(ref.path):
        return _url_signature(ref.path)
    try:
        files = content_files(ref.path)
        stats = [p.stat() for p in files]
    except OSError as error:
        raise SlideError(ref.path, f"cannot be read ({error.strerror})", CHECK_PATH) from error
    rows = zip(_relative(files, ref.path), stats, strict=True)
    return tuple(sorted((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in rows))


def _url_signature(url: str) -> Signature:
    import fsspec

    with reaching(url):
        system, path = fsspec.core.url_to_fs(url)
        info: dict[str, Any] = system.info(path)
    tag = next((str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if key in info), "")
    return ((tag, int(info.get("size") or 0), 0, 0, 0),)
