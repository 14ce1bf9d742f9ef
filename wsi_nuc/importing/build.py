"""Cells of a file become the store of a slide: same layout, same manifest, published in one step."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc import results
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
from wsi_nuc.store.manifest import Accounting, Origin
from wsi_nuc.store.names import claim_name, output_folder, tell_of_strangers
from wsi_nuc.store.nuclei import NucleiWriter, Summary
from wsi_nuc.store.tissue import write_thumbnail, write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.store.zipping import present
from wsi_nuc.tissue.find import Tissue, tissue_for
from wsi_nuc.types import Float64, Int64, SlideInfo, SlideRef, TileCounts

MOST_CLASSES = 1000
# Inside of the private folder: it goes where that goes, after a kill too.
SPOOL = ".cells"


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import where. `scale`: level-0 pixels a pixel of the file; `format`: of the registry, or "auto"."""

    cells: Path
    slide: str
    out: Path
    format: str = "auto"
    wanted: Wanted = field(default_factory=Wanted)
    reader: str = "auto"
    mpp: float | None = None
    scale: float = 1.0
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """`repaired` and `dropped`: numbers of cells by what was wrong with them; empty where the store was there."""

    published: Published
    format: str
    repaired: dict[str, int]
    dropped: dict[str, int]


@dataclass(frozen=True)
class _Slide:
    ref: SlideRef
    info: SlideInfo
    mpp: float
    tissue: Tissue
    sha256: str


def import_cells(request: ImportRequest, emit: Emit = ignore) -> Imported:
    """Read, mend, write and publish. The same call again finds its result and does nothing."""
    name = format_of(request.cells, request.format)
    out = output_folder(request.out)
    tell_of_strangers(clean_up(out), emit)
    slide = _slide(request)
    origin = _origin(request, name, slide)
    with claim_name(request.slide, out, slide.sha256) as claim:
        final = out / claim.name
        there = check_target(out, claim.name, _key(present(final).path, origin), request.overwrite)
        if there is not None:
            return Imported(there, name, {}, {})
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
    """The content of the file stands where a run has its weights."""
    config = {
        "model": f"import: {name}",
        "reader": slide.info.reader,
        "mpp": slide.mpp,
        "scale": request.scale,
        "element": request.wanted.element,
        "class_column": request.wanted.class_column,
    }
    key = manifests.identity_key(slide.sha256, _cells_sha256(request.cells), config, results.of_import())
    return Origin(key, slide_facts(request.slide, slide.info, slide.mpp, slide.sha256), versions())


def _key(final: Path, origin: Origin) -> manifests.Json:
    """That of the result which is there, if features were added to these very nuclei; else our own."""
    there = manifests.made_from(final)
    return there if there is not None and covers(there, origin.key) else origin.key


def _cells_sha256(path: Path) -> str:
    """Of a file's content; of a folder, of its files' names and contents."""
    try:
        if path.is_file():
            return manifests.hash_file(path)
        digest = hashlib.sha256()
        for file in sorted(one for one in path.rglob("*") if one.is_file()):
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
            "give the slide that they belong to, or --scale where they are not level-0 pixels",
        )


def _publish(
    request: ImportRequest, slide: _Slide, origin: Origin, staging: Staging, found: tuple[Spool, Mender]
) -> Published:
    spool, mender = found
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
    """The class is certain as far as the file says: its probability is 1."""
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
