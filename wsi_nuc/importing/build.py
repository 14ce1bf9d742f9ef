"""Cells of a file become the store of a slide, with the layout and manifest of a run, published in one step."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc import results_numbers
from wsi_nuc.errors import UsageError, about
from wsi_nuc.events import Emit, ignore
from wsi_nuc.features.job import covers
from wsi_nuc.importing.outlines import OFF_SLIDE, Mender, Outlines
from wsi_nuc.importing.record import UNCLASSIFIED, Wanted
from wsi_nuc.importing.registry import format_of, reader
from wsi_nuc.importing.spool import Spool
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.run.job import slide_facts, versions
from wsi_nuc.slides.address import is_url, shown
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.slides.mpp import require_mpp
from wsi_nuc.slides.overview import overview
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store import durable, layout
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.commit import Published, Staging, check_target, clean_up, publish
from wsi_nuc.store.folders import output_folder, tell_of_strangers
from wsi_nuc.store.manifest import Accounting, Origin
from wsi_nuc.store.names import claim_name
from wsi_nuc.store.nuclei_columns import NucleiWriter, Summary
from wsi_nuc.store.tissue import write_thumbnail, write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.store.zipping import present
from wsi_nuc.tissue.find import Tissue, tissue_for
from wsi_nuc.types import Float64, Int64, SlideInfo, SlideRef, TileCounts

MOST_CLASSES = 1000
# In the private folder, so that it disappears together with that folder, even after a kill.
SPOOL = ".cells"


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import, and where to."""

    cells: Path
    """A file, or a folder such as a zarr."""
    slide: str
    out: Path
    """The folder of results."""
    format: str = "auto"
    """A name of the registry, or "auto" to decide by content."""
    wanted: Wanted = field(default_factory=Wanted)
    reader: str = "auto"
    """The reader of the slide."""
    mpp: float | None = None
    """The user's own resolution of the slide, in microns per pixel."""
    scale: float = 1.0
    """Level-0 pixels per pixel of the file."""
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import."""

    published: Published
    format: str
    repaired: dict[str, int]
    """Numbers of mended cells, by what was wrong with them; empty if the store existed before."""
    dropped: dict[str, int]
    """Numbers of cells that were left out, by what was wrong with them; empty if the store existed before."""


@dataclass(frozen=True)
class _Slide:
    ref: SlideRef
    info: SlideInfo
    mpp: float
    tissue: Tissue
    sha256: str


def import_cells(request: ImportRequest, emit: Emit = ignore) -> Imported:
    """Read, mend, write and publish. If the result exists already, the call does nothing."""
    name = format_of(request.cells, request.format)
    out = output_folder(request.out)
    tell_of_strangers(clean_up(out), emit)
    slide = _slide(request)
    origin = _origin(request, name, slide)
    with claim_name(request.slide, out, slide.sha256) as claim:
        final = out / claim.name
        published = check_target(out, claim.name, _key(present(final).path, origin), request.overwrite)
        if published is not None:
            return Imported(published, name, {}, {})
        with Staging(out, claim.name) as staging:
            spool, mender = Spool(staging.root / SPOOL), Mender(slide.info, slide.mpp, request.scale)
            for cells in reader(name).cells(request.cells, request.wanted):
                spool.add(mender.mend(cells))
            _refuse_senseless(request, mender)
            published = _publish(request, slide, origin, staging, (spool, mender))
        return Imported(published, name, dict(mender.repaired), dict(mender.dropped))


def _slide(request: ImportRequest) -> _Slide:
    path = request.slide if is_url(request.slide) else os.path.abspath(request.slide)
    ref = SlideRef(path, request.reader, request.mpp)
    source = open_slide(ref)
    try:
        with about(shown(request.slide)):
            mpp = require_mpp(source.info)
            tissue = tissue_for(overview(source, mpp))
        return _Slide(ref, source.info, mpp, tissue, content_sha256(ref))
    finally:
        source.close()


def _origin(request: ImportRequest, name: str, slide: _Slide) -> Origin:
    """The origin has the content of the file in the place where a run has its weights."""
    config = {
        "model": f"import: {name}",
        "reader": slide.info.reader,
        "mpp": slide.mpp,
        "scale": request.scale,
        "element": request.wanted.element,
        "class_column": request.wanted.class_column,
    }
    key = manifests.identity_key(slide.sha256, _cells_sha256(request.cells), config, results_numbers.of_import())
    return Origin(key, slide_facts(request.slide, slide.info, slide.mpp, slide.sha256), versions())


def _key(final: Path, origin: Origin) -> manifests.Json:
    """The key of the existing result if it is these nuclei with features added, else the key of this import."""
    existing = manifests.made_from(final)
    return existing if existing is not None and covers(existing, origin.key) else origin.key


def _cells_sha256(path: Path) -> str:
    """The hash of a file's content or, for a folder, of the names and contents of its files."""
    try:
        if path.is_file():
            return manifests.hash_file(path)
        digest = hashlib.sha256()
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{manifests.hash_file(file)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise UsageError(path, f"cannot be read ({error.strerror or error})", "check the file") from error


def _refuse_senseless(request: ImportRequest, mender: Mender) -> None:
    if len(mender.names) > MOST_CLASSES:
        cause = f"its cells have {len(mender.names):,} classes, more than {MOST_CLASSES:,}"
        raise UsageError(request.cells, cause, "name the right property with --class-column")
    off = mender.dropped.get(OFF_SLIDE, 0)
    if off > mender.kept:
        cause = f"{off:,} of its cells lie off the slide {request.slide}"
        raise UsageError(
            request.cells,
            cause,
            "give the slide that they belong to, or --scale if they are not in level-0 pixels",
        )


def _publish(
    request: ImportRequest, slide: _Slide, origin: Origin, staging: Staging, cells: tuple[Spool, Mender]
) -> Published:
    spool, mender = cells
    folder = ZarrFolder(staging.root)
    summary = _write_nuclei(folder, slide, spool, mender)
    durable.remove_whole(staging.root / SPOOL)
    area = slide.tissue.polygons
    write_tissue(folder, area, slide.mpp)
    write_thumbnail(folder, slide.tissue.thumbnail, slide.tissue.l0_per_px)
    layout.seal(folder, origin.key, summary.class_figures)
    accounting = Accounting(tiles=TileCounts(), repairs=sum(mender.repaired.values()))
    counts = _counts(slide, summary, mender)

    def finish(root: Path) -> dict[str, Any]:
        return manifests.build(root, origin, accounting, counts, {})

    return publish(staging, origin, finish, request.overwrite)


def _write_nuclei(folder: ZarrFolder, slide: _Slide, spool: Spool, mender: Mender) -> Summary:
    classes = sorted(mender.names) or [UNCLASSIFIED]
    place = np.array([classes.index(name) for name in mender.names], np.int64)
    whole = np.array([0.0, 0.0, slide.info.width, slide.info.height])

    def core_boxes(tiles: Int64) -> Float64:
        return np.tile(whole, (len(tiles), 1))

    area_mm2 = float(slide.tissue.polygons.area) * (slide.mpp / 1000) ** 2
    with NucleiWriter(folder, classes, slide.mpp, core_boxes) as writer:
        for outlines in spool.squares():
            writer.append(_table(outlines, place, len(classes)))
        return writer.finish(area_mm2)


def _table(outlines: Outlines, place: Int64, classes: int) -> NucleiTable:
    """The class of the file is taken as certain: its probability is 1."""
    count = len(outlines)
    probabilities = np.zeros((count, classes), np.float32)
    probabilities[np.arange(count), place[outlines.class_id]] = 1.0
    return NucleiTable(
        xy=outlines.xy,
        offsets=outlines.offsets,
        prompt_xy=outlines.areas_and_centres()[1],
        score=outlines.score,
        prompt_score=outlines.score,
        predicted_iou=np.full(count, np.nan, np.float32),
        class_probs=probabilities,
        tile=np.zeros(count, np.int64),
    )


def _counts(slide: _Slide, summary: Summary, mender: Mender) -> dict[str, Any]:
    return {
        "nuclei": summary.nuclei,
        "at_seams": summary.seam,
        "classes": summary.counts,
        "area_mm2": float(slide.tissue.polygons.area) * (slide.mpp / 1000) ** 2,
        "tissue_share": slide.tissue.share,
        "tissue_method": slide.tissue.method,
        "repaired": dict(sorted(mender.repaired.items())),
        "dropped": dict(sorted(mender.dropped.items())),
    }
