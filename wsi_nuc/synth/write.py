"""Writes a synthetic slide (Aperio SVS or OME-TIFF) and its truth beside it, block by block in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.synth.paint import Block, Painter
from wsi_nuc.synth.pyramid import SUBSAMPLING, TILE_PX, Pyramid
from wsi_nuc.synth.spec import SynthSpec, SynthTruth
from wsi_nuc.synth.tiff import LONG, SHORT, Entry, TiffFile, entry, rational, text
from wsi_nuc.synth.truth import TruthWriter

SUFFIXES = (".svs", ".ome.tif", ".ome.tiff")
# With more pixels, the offsets could need more than 32 bits.
_CLASSIC_PX = 2**30
_THREADS = 2
_OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
    'Creator="wsi-nuc synth"><Image ID="Image:0" Name="synthetic"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
    'Type="uint8" SizeX="{width}" SizeY="{height}" SizeC="3" SizeZ="1" SizeT="1" Interleaved="true" '
    'PhysicalSizeX="{mpp!r}" PhysicalSizeXUnit="µm" PhysicalSizeY="{mpp!r}" PhysicalSizeYUnit="µm">'
    '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)

Progress = Callable[[int, int], None]


def aperio_directories(tiff: TiffFile, pyramid: Pyramid, spec: SynthSpec) -> None:
    """The levels as a chain of directories, described as Aperio does it."""
    width, height = spec.size, spec.height_px
    shape = f"{width}x{height} [0,0 {width}x{height}] ({TILE_PX}x{TILE_PX})"
    tail = f"|AppMag = {round(10 / spec.mpp)}|MPP = {max(f'{spec.mpp:.4f}', repr(float(spec.mpp)), key=len)}"
    for image in pyramid.images:
        smaller = "" if image.width == width else f" -> {image.width}x{image.height}"
        words = f"Aperio Image Library (wsi-nuc synth)\r\n{shape}{smaller} JPEG/RGB Q={spec.quality}"
        image.entries.append(text(270, words + tail))
    view = pyramid.thumbnail()
    view.entries.append(
        text(270, f"Aperio Image Library (wsi-nuc synth)\r\n{width}x{height} -> {view.width}x{view.height} - ")
    )
    first, *smaller_levels = _with_resolution(tiff, pyramid, spec)
    # Aperio's order: the thumbnail comes second.
    tiff.finish([first, tiff.stripped_entries(view, SUBSAMPLING), *smaller_levels])


def ome_directories(tiff: TiffFile, pyramid: Pyramid, spec: SynthSpec) -> None:
    """A main directory with the OME-XML. The smaller levels are its SubIFDs."""
    described = _OME.format(width=spec.size, height=spec.height_px, mpp=float(spec.mpp))
    pyramid.images[0].entries.append(text(270, described))
    for image in pyramid.images[1:]:
        image.entries.append(entry(254, LONG, [1]))
    main, *smaller = _with_resolution(tiff, pyramid, spec)
    tiff.finish([main], smaller)


def _with_resolution(tiff: TiffFile, pyramid: Pyramid, spec: SynthSpec) -> list[list[Entry]]:
    listed = []
    for image in pyramid.images:
        # Pixels per centimetre of this level.
        per_cm = 10_000 / spec.mpp * image.width / spec.size
        image.entries += [rational(282, per_cm), rational(283, per_cm), entry(296, SHORT, [3])]
        listed.append(tiff.tiled_entries(image, SUBSAMPLING))
    return listed


def truth_path(slide: Path) -> Path:
    """The path of a slide's truth: all of its name and `.truth.parquet`, so b.svs and b.ome.tif each have one."""
    return slide.with_name(slide.name + ".truth.parquet")


def write_slide(
    path: Path | str,
    spec: SynthSpec | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> SynthTruth:
    """Write the slide as Aperio SVS or OME-TIFF, by suffix, and its truth as GeoParquet.

    `progress` gets the number of finished rows of blocks and their total. Neither file appears before it is
    complete. Without `overwrite`, existing files are refused (UsageError). StorageError if the files cannot be
    written.
    """
    slide, spec = Path(path), spec or SynthSpec()
    suffix = _suffix(slide)
    try:
        _check_target(slide, overwrite)
        return _write(slide, suffix, spec, progress or (lambda done, total: None))
    except OSError as error:
        cause = f"cannot be written ({error.strerror or error})"
        raise StorageError(slide, cause, "make room or choose a folder that you may write to") from error


def _check_target(slide: Path, overwrite: bool) -> None:
    if not slide.parent.is_dir():
        raise UsageError(slide, "its folder does not exist", "create the folder first")
    for target in (slide, truth_path(slide)):
        if target.is_dir():
            raise UsageError(target, "is a folder", "choose another name")
        if target.exists() and not overwrite:
            raise UsageError(target, "exists already", "choose another name, or replace it with --overwrite")


def _write(slide: Path, suffix: str, spec: SynthSpec, progress: Progress) -> SynthTruth:
    truth = truth_path(slide)
    parts = [target.with_name(target.name + ".partial") for target in (slide, truth)]
    try:
        with parts[0].open("wb") as stream, TruthWriter(parts[1]) as rows:
            tiff = TiffFile(stream, big=spec.size * spec.height_px > _CLASSIC_PX)
            pyramid = Pyramid(tiff, spec.size, spec.height_px, spec.quality)
            _draw(spec, pyramid, rows, progress)
            directories = aperio_directories if suffix == ".svs" else ome_directories
            directories(tiff, pyramid, spec)
        parts[1].replace(truth)
        parts[0].replace(slide)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return SynthTruth(slide, truth, spec, rows.nuclei, dict(rows.counts))


def synth_slide(folder: Path | str, size: int = 2048, suffix: str = ".svs", **options: Any) -> SynthTruth:
    """A small slide in `folder`, with a name that describes it. `options` are those of SynthSpec."""
    spec = replace(SynthSpec(size=size), **options)
    return write_slide(Path(folder) / f"synth-{spec.size}px-seed{spec.seed}{suffix}", spec)


def _suffix(slide: Path) -> str:
    for suffix in SUFFIXES:
        if slide.name.lower().endswith(suffix):
            return slide.name[-len(suffix) :]
    raise UsageError(slide, "no synthetic slide is written in this format", f"name it {', '.join(SUFFIXES)}")


def _draw(spec: SynthSpec, pyramid: Pyramid, rows: TruthWriter, progress: Progress) -> None:
    painter = Painter(spec)
    columns, block_rows = painter.grid
    # OpenCV's own threads would compete with ours.
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for (column, row), block in _ahead(painter, columns, block_rows):
            pyramid.add(column, row, block.rgb)
            rows.add(block.polygon, block.class_id)
            if column == columns - 1:
                pyramid.end_row(row, last=row == block_rows - 1)
                progress(row + 1, block_rows)
    finally:
        cv2.setNumThreads(threads_before)


def _ahead(painter: Painter, columns: int, rows: int) -> Iterator[tuple[tuple[int, int], Block]]:
    """All blocks in order, a few of them drawn ahead by threads."""
    places = ((column, row) for row in range(rows) for column in range(columns))
    waiting: deque[tuple[tuple[int, int], Future[Block]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for place in places:
            waiting.append((place, pool.submit(painter.block, *place)))
            if len(waiting) > 2 * _THREADS:
                ready, drawn = waiting.popleft()
                yield ready, drawn.result()
        for ready, drawn in waiting:
            yield ready, drawn.result()
