"""What is at a path, told by its content, and the refusals that need no reader."""

from __future__ import annotations

from pathlib import Path

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.address import is_url
from wsi_nuc.slides.limits import first_attributes
from wsi_nuc.slides.localfile import CHECK_PATH, COPY_AGAIN, SLIDES_ARE, LocalFile, refuse_special
from wsi_nuc.slides.tiff import MAGIC, read_structure

ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")


def kind_of(path: str) -> str:
    """url, tiff, png, jpeg, dicom, zarr, folder (DICOM, perhaps) or other; SlideError if it cannot be a slide."""
    if is_url(path):
        return "url"
    place = Path(path)
    try:
        if place.is_dir():
            return _folder_kind(place)
        if not place.exists():
            raise SlideError(path, "does not exist", CHECK_PATH)
        refuse_special(path)
    except OSError as error:
        raise SlideError(path, f"cannot be opened ({error.strerror})", CHECK_PATH) from error
    file = LocalFile(path)
    head = file.read_at(0, 256)
    file.close()
    if not head:
        raise SlideError(path, "is empty", COPY_AGAIN)
    return _file_kind(head)


def _folder_kind(folder: Path) -> str:
    if any((folder / name).is_file() for name in ZARR_FILES):
        return "zarr"
    if not any(path.is_file() for path in folder.iterdir()):
        raise SlideError(folder, "is a folder without files", SLIDES_ARE)
    return "folder"


def _file_kind(head: bytes) -> str:
    if head[:4] in MAGIC:
        return "tiff"
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(b"\x89PNG"):
        return "png"
    return "jpeg" if head.startswith(b"\xff\xd8\xff") else "other"


def check(path: str) -> str:
    """The kind, after the structure of a TIFF was followed: what is broken there is broken for every reader."""
    kind = kind_of(path)
    if kind == "tiff":
        file = LocalFile(path)
        for page in read_structure(file).pages:
            if page.description.lstrip().startswith("<"):
                # Each TIFF library has its own XML parser; none of them should meet a bomb.
                first_attributes(path, page.description, "")
        file.close()
    return kind
