"""Makers of slides with several files: DICOM, MIRAX, Hamamatsu's VMS and VMU, OME-TIFF sets."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from tests.slides.make import picture

EDGE, TILE, IMAGE_BYTES = 512, 128, 8192
UNDEFINED = 0xFFFFFFFF
LONG_FORM = (b"OB", b"SQ", b"UN")


def element(tag: int, kind: bytes, value: bytes | str | int, length: int | None = None) -> bytes:
    """One DICOM element, explicit and little-endian; `length` may lie."""
    if isinstance(value, int):
        value = struct.pack("<I" if kind == b"UL" else "<H", value)
    data = value.encode() if isinstance(value, str) else value
    data += (b"\0" if kind in (b"UI", b"OB") else b" ") * (len(data) % 2)
    size = len(data) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind
    return head + (struct.pack("<HI", 0, size) if kind in LONG_FORM else struct.pack("<H", size)) + data


def item(data: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


def nested(depth: int) -> bytes:
    """A sequence in a sequence in a sequence, none of which says how long it is."""
    begin = element(0x00081140, b"SQ", b"", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    return (
        begin * depth + (struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)) * depth
    )


def dicom(
    path: Path,
    pixels: np.ndarray | None = None,
    series: str = "1.2.3",
    before: bytes = b"",
    size: tuple[int, int] | None = None,
    frames: str = "",
    layout: str = "TILED_FULL",
    tile: tuple[int, int] = (TILE, TILE),
    syntax: str = "1.2.840.10008.1.2.1",
) -> Path:
    """One level of a series, uncompressed. `before` lies in front of the series' identifier."""
    pixels = picture(EDGE, EDGE) if pixels is None else pixels
    height, width = pixels.shape[:2]
    down, across = height // TILE, width // TILE
    data = pixels.reshape(down, TILE, across, TILE, 3).swapaxes(1, 2).tobytes()
    kind = b"ORIGINAL\\PRIMARY\\VOLUME\\NONE" if width == EDGE else b"DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
    spacing = item(element(0x00280030, b"DS", f"{0.5e-3 * EDGE / width}\\{0.5e-3 * EDGE / width}"))
    whole = size or (width, height)
    numbers = {0x00280002: 3, 0x00280006: 0, 0x00280010: tile[1], 0x00280011: tile[0]}
    numbers |= {0x00280100: 8, 0x00280101: 8, 0x00280102: 7, 0x00280103: 0}
    body = [
        element(0x00080008, b"CS", kind),
        element(0x00080018, b"UI", f"1.2.3.{width}"),
        before,
        element(0x0020000E, b"UI", series),
        element(0x00209311, b"CS", layout),
        element(0x00280004, b"CS", "RGB"),
        element(0x00280008, b"IS", frames or str(down * across)),
        *(element(tag, b"US", value) for tag, value in numbers.items()),
        element(0x00480006, b"UL", whole[0]),
        element(0x00480007, b"UL", whole[1]),
        element(0x52009229, b"SQ", item(element(0x00289110, b"SQ", spacing))),
        element(0x7FE00010, b"OB", data),
    ]
    group = element(0x00020002, b"UI", "1.2.840.10008.5.1.4.1.1.77.1.6") + element(0x00020010, b"UI", syntax)
    path.write_bytes(bytes(128) + b"DICM" + element(0x00020000, b"UL", len(group)) + group + b"".join(body))
    return path


def dicom_series(folder: Path) -> Path:
    """Two levels; their identifier lies beyond the first 64 kB."""
    comment = element(0x00104000, b"LT", "x" * 60_000) + element(0x001021B0, b"LT", "y" * 60_000)
    dicom(folder / "half.dcm", picture(EDGE, EDGE)[::2, ::2], before=comment)
    return dicom(folder / "base.dcm", before=comment)


def jpeg(path: Path, pixels: np.ndarray) -> None:
    """Restart markers cut it into tiles of 64 x 8 px."""
    from PIL import Image

    Image.fromarray(pixels).save(path, "JPEG", quality=95, subsampling=0, restart_marker_blocks=8)


def vms(folder: Path) -> Path:
    pixels = picture(EDGE, EDGE)
    jpeg(folder / "left.jpg", pixels[:, : EDGE // 2])
    jpeg(folder / "right.jpg", pixels[:, EDGE // 2 :])
    jpeg(folder / "map.jpg", pixels[::4, ::4])
    jpeg(folder / "macro.jpg", pixels[::4, ::4])
    (folder / "rows.opt").write_bytes(b"")
    names = ["ImageFile=left.jpg", "ImageFile(1,0)=right.jpg", "MapFile=map.jpg", "MacroImage=macro.jpg"]
    names += ["OptimisationFile=rows.opt"]
    return hamamatsu(folder / "slide.vms", "", ["NoJpegColumns=2", "NoJpegRows=1", *names])


def ngr(path: Path, pixels: np.ndarray, size: tuple[int, int, int] | None = None) -> None:
    height, width = pixels.shape[:2]
    head = bytearray(64)
    head[:2] = b"GN"
    struct.pack_into("<iii", head, 4, *(size or (width, height, width)))
    struct.pack_into("<i", head, 24, len(head))
    path.write_bytes(head + (pixels.astype("<u2") << 4).tobytes())


def vmu(folder: Path) -> Path:
    pixels = picture(EDGE, EDGE)
    ngr(folder / "base.ngr", pixels)
    ngr(folder / "map.ngr", pixels[::4, ::4])
    names = ["ImageFile=base.ngr", "MapFile=map.ngr", "BitsPerPixel=36", "PixelOrder=RGB"]
    return hamamatsu(folder / "slide.vmu", "Uncompressed ", names)


def hamamatsu(path: Path, prefix: str, lines: list[str]) -> Path:
    size = ["NoLayers=1", "SourceLens=20", "PhysicalWidth=256000", "PhysicalHeight=256000"]
    path.write_text("\n".join([f"[{prefix}Virtual Microscope Specimen]", *lines, *size]) + "\n")
    return path


def mirax(folder: Path, changes: dict[str, str] | None = None) -> Path:
    """Four images of 256 px side by side in two data files. `changes`: other values of keys of the index."""
    from PIL import Image

    inside, edge = folder / "slide", EDGE // 2
    inside.mkdir(exist_ok=True)
    (folder / "slide.mrxs").write_bytes(b"\xff\xd8\xff\xe0")
    entries = []
    for number, file in enumerate((0, 0, 1, 1)):
        encoded, y, x = io.BytesIO(), number // 2 * edge, number % 2 * edge
        Image.fromarray(picture(EDGE, EDGE)[y : y + edge, x : x + edge]).save(encoded, "JPEG", quality=95)
        place = inside / f"Data{file}.dat"
        offset = place.stat().st_size if number % 2 else 0
        data = encoded.getvalue().ljust(IMAGE_BYTES, b"\0")
        place.write_bytes((place.read_bytes() if number % 2 else b"") + data)
        entries.append(struct.pack("<iiii", number, offset, len(data), file))
    identifier = "0123456789abcdef"
    at = 5 + len(identifier) + 8
    pointers = struct.pack("<iiiiiii", at, 0, at + 4, 0, at + 12, len(entries), 0)
    (inside / "Index.dat").write_bytes(b"01.02" + identifier.encode() + pointers + b"".join(entries))
    index = {
        "GENERAL": {"SLIDE_VERSION": "01.02", "SLIDE_ID": identifier, "IMAGENUMBER_X": "2", "IMAGENUMBER_Y": "2"}
        | {"OBJECTIVE_MAGNIFICATION": "20"},
        "HIERARCHICAL": {"INDEXFILE": "Index.dat", "HIER_COUNT": "1", "NONHIER_COUNT": "0"}
        | {"HIER_0_NAME": "Slide zoom level", "HIER_0_COUNT": "1", "HIER_0_VAL_0_SECTION": "LEVEL_0"},
        "DATAFILE": {"FILE_COUNT": "2", "FILE_0": "Data0.dat", "FILE_1": "Data1.dat"},
        "LEVEL_0": {"IMAGE_CONCAT_FACTOR": "0", "OVERLAP_X": "0", "OVERLAP_Y": "0"}
        | {"MICROMETER_PER_PIXEL_X": "0.5", "MICROMETER_PER_PIXEL_Y": "0.5", "IMAGE_FILL_COLOR_BGR": "16777215"}
        | {"DIGITIZER_WIDTH": str(edge), "DIGITIZER_HEIGHT": str(edge), "IMAGE_FORMAT": "JPEG"},
    }
    lines = []
    for group, values in index.items():
        lines += [f"[{group}]", *(f"{key} = {(changes or {}).get(key, value)}" for key, value in values.items())]
    (inside / "Slidedat.ini").write_text("\r\n".join(lines))
    return folder / "slide.mrxs"


def ome_set(folder: Path) -> Path:
    """One colour per file; the description of the first file names all three."""
    identifiers = [f"urn:uuid:{number:08d}-0000-0000-0000-000000000000" for number in range(3)]
    planes = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{c}.ome.tif">{name}</UUID></TiffData>'
        for c, name in enumerate(identifiers)
    )
    channels = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(3))
    for c, name in enumerate(identifiers):
        text = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{name}">'
            f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{EDGE}" '
            f'SizeY="{EDGE}" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5">'
            f"{channels}{planes}</Pixels></Image></OME>"
        )
        plane = np.ascontiguousarray(picture(EDGE, EDGE)[..., c])
        options = {"tile": (TILE, TILE), "compression": "deflate", "photometric": "minisblack", "metadata": None}
        tifffile.imwrite(folder / f"{c}.ome.tif", plane, description=text.encode(), **options)
    return folder / "0.ome.tif"


SETS: dict[str, Callable[[Path], Path]] = {
    "dicom": dicom_series,
    "mirax": mirax,
    "vms": vms,
    "vmu": vmu,
}
