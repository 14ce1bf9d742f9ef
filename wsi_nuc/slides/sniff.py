"""The kind of slide at a path, by its content, and the refusals that need no reader."""

from __future__ import annotations

from pathlib import Path

from wsi_nuc.errors import SlideError
from wsi_nuc.slides import hamamatsu, mirax
from wsi_nuc.slides.address import is_url
from wsi_nuc.slides.dicom import check_series
from wsi_nuc.slides.files import ZARR_FILES, contents
from wsi_nuc.slides.limits import first_attributes
from wsi_nuc.slides.localfile import CHECK_PATH, COPY_AGAIN, SLIDES_ARE, LocalFile, refuse_special
from wsi_nuc.slides.tiff import MAGIC, read_structure


def kind_of(path: str) -> str:
    """url, tiff, png, jpeg, dicom, hamamatsu, zarr, folder (of DICOM, perhaps) or other; else SlideError."""
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
    kind = _file_kind(head)
    return "hamamatsu" if kind == "other" and hamamatsu.is_index(place) else kind


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
    """The kind, or mirax. What the headers claim is compared with the files before any library reads them."""
    kind = kind_of(path)
    if kind in ("url", "zarr"):
        return kind
    try:
        consists = contents(path)
        if consists.rule == "dicom":
            check_series(path, consists.files)
        if consists.rule == "hamamatsu":
            hamamatsu.check_images(Path(path))
        if companion := mirax.folder_of(Path(path)):
            mirax.check_index(companion)
    except OSError as error:
        raise SlideError(path, f"cannot be read ({error.strerror})", CHECK_PATH) from error
    if kind == "tiff":
        _check_tiff(path)
    return "mirax" if consists.rule == "mirax" else kind


def _check_tiff(path: str) -> None:
    file = LocalFile(path)
    for page in read_structure(file).pages:
        # Each TIFF library has its own XML parser, and none should get an XML bomb.
        for text in (page.description, page.xmp):
            first_attributes(path, text, "")
    file.close()
