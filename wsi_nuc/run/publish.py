"""From the parts of all regions to a published store: stitch, write, seal, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_nuc.config import RunConfig
from wsi_nuc.models.domain import MUCH_COARSER, enlarged, implausible_size, unlike
from wsi_nuc.run.job import SlideJob
from wsi_nuc.run.tally import BadPlace, Clock, RegionReport
from wsi_nuc.stitch import RegionCandidates, StitchGeometry, StitchRule, StitchStats, stitch
from wsi_nuc.store import layout
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.commit import Published, Staging, publish
from wsi_nuc.store.labels import write_labels
from wsi_nuc.store.manifest import Accounting, Lost
from wsi_nuc.store.nuclei_columns import NucleiWriter, Summary
from wsi_nuc.store.parts import read_part
from wsi_nuc.store.place import Place
from wsi_nuc.store.tissue import write_thumbnail, write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.tiling.gaps import ROUNDING
from wsi_nuc.tiling.plan import tiles_per_edge
from wsi_nuc.tissue.stain import DARK_FIELD
from wsi_nuc.types import TileCounts

# Edge of the squares that order the rows of a result, in pixels as read. Part of the format, not a setting: it is
# the size of a region of a large slide, for which stitching holds the least.
BLOCK_PX = 4096


Measuring = Callable[[ZarrFolder, Accounting], dict[str, Any]]


def publish_slide(
    job: SlideJob,
    final: Place,
    parts: Mapping[int, Place],
    reports: Sequence[RegionReport],
    measuring: Measuring | None = None,
) -> Published:
    """Write the result of a slide into a private folder and make it visible in one step, as `final`.

    `measuring` measures the nuclei that were written, before the result is sealed, and says what the counts of the
    manifest say of that.
    """
    clock, stats, config = Clock(), StitchStats(), job.config
    accounting = _accounting(job, reports)
    usable_mm2 = _less(job.area_mm2, accounting.lost_mm2)
    with Staging(final.parent, final.name) as staging:
        folder = ZarrFolder(staging.root)
        with clock.stage("stitch and write"):
            summary = _write_nuclei(folder, job, parts, usable_mm2, stats)
        write_tissue(folder, job.area, job.mpp)
        measured: dict[str, Any] = {}
        if measuring is not None:
            with clock.stage("features"):
                measured = measuring(folder, accounting)
        with clock.stage("images"):
            write_thumbnail(folder, job.tissue.thumbnail, job.tissue.l0_per_px)
            if config.labels:
                write_labels(folder, summary, job.info.width, job.info.height)
        layout.seal(folder, job.origin.key, summary.class_figures, config.labels)
        counts = _counts(job, summary, reports, usable_mm2, stats) | measured
        run = {
            "seconds": _seconds(reports, clock),
            "regions": len(parts),
            "stitched_from": stats.candidates,
            "tile_l0": job.plan.grid.core_px * job.plan.grid.l0_per_grid,
            **_doubts(job, summary),
            **({"stain": job.stain} if job.stain else {}),
        }

        def finish(root: Path) -> dict[str, Any]:
            return manifests.build(root, job.origin, accounting, counts, run)

        return publish(staging, job.origin, finish, config.overwrite, job.check_unchanged, acceptable(config))


def acceptable(config: RunConfig) -> Callable[[dict[str, Any]], bool]:
    """A result that lacks places is only good enough where the user said so."""
    return lambda manifest: config.allow_bad_tiles or not manifests.is_partial(manifest)


def _write_nuclei(
    folder: ZarrFolder, job: SlideJob, parts: Mapping[int, Place], usable_mm2: float, stats: StitchStats
) -> Summary:
    rule = StitchRule(job.config.stitch.iou, job.config.stitch.containment)
    grid = job.plan.grid
    with NucleiWriter(folder, job.spec.classes, job.mpp, grid.core_boxes_l0) as writer:
        for table in stitch(_candidates(job, parts), _geometry(job), rule, stats):
            writer.append(table)
        return writer.finish(job.area_mm2, usable_mm2)


def _candidates(job: SlideJob, parts: Mapping[int, Place]) -> Iterator[RegionCandidates]:
    """The parts in the order of the grid of regions, one in memory at a time."""
    grid, edge = job.plan.grid, job.plan.tiles_per_region
    per_row = -(-grid.cols // edge)
    edge_l0 = edge * grid.core_px * grid.l0_per_grid
    for index in sorted(parts):
        table, own, _ = read_part(parts[index])
        row, column = divmod(index, per_row)
        x0, y0 = column * edge_l0, row * edge_l0
        yield RegionCandidates((x0, y0, x0 + edge_l0, y0 + edge_l0), table, own)


def _geometry(job: SlideJob) -> StitchGeometry:
    grid, spec = job.plan.grid, job.spec
    block_tiles = tiles_per_edge(BLOCK_PX, spec.core_px, job.plan.scale)
    scale = grid.l0_per_grid
    return StitchGeometry(
        region_l0=job.plan.tiles_per_region * grid.core_px * scale,
        margin_l0=spec.margin_px * scale,
        reach_l0=spec.largest_nucleus_px * scale,
        block_l0=block_tiles * grid.core_px * scale,
    )


def _accounting(job: SlideJob, reports: Sequence[RegionReport]) -> Accounting:
    tallies = [report.tally for report in reports]
    background = TileCounts(background=job.plan.background_tiles)
    return Accounting(
        tiles=TileCounts.sum([background, *(tally.counts for tally in tallies)]),
        missing=_lost(job, [place for tally in tallies for place in tally.missing]),
        damaged=_lost(job, [place for tally in tallies for place in tally.damaged]),
        failed=_lost(job, [place for tally in tallies for place in tally.failed]),
        repairs=sum(tally.repairs for tally in tallies),
    )


def _lost(job: SlideJob, places: Sequence[BadPlace]) -> Lost:
    if not places:
        return Lost()
    # In one order, whatever regions they came from: the last bits of an area depend on it.
    boxes = np.array(sorted(place.box_l0 for place in places))
    area = shapely.area(shapely.intersection(shapely.union_all(shapely.box(*boxes.T)), job.area))
    whole = [(x0, y0, x1, y1) for x0, y0, x1, y1 in np.round(boxes).astype(int).tolist()]
    return Lost(tuple(whole), float(area) * (job.mpp / 1000) ** 2)


def _less(whole: float, part: float) -> float:
    """The difference of two areas, 0 where it is nothing but rounding."""
    return whole - part if part < whole * (1 - ROUNDING) else 0.0


def _counts(
    job: SlideJob, summary: Summary, reports: Sequence[RegionReport], usable_mm2: float, stats: StitchStats
) -> dict[str, Any]:
    return {
        "nuclei": summary.nuclei,
        "at_seams": summary.seam,
        "cut_by_gaps": sum(report.tally.cut for report in reports),
        "cut_by_neighbours": stats.cut,
        "classes": summary.counts,
        "area_mm2": job.area_mm2,
        "usable_mm2": usable_mm2,
        "tissue_share": job.tissue.share,
        "tissue_method": job.tissue.method,
        "unlike_training_images": unlike(
            [look for report in reports for look in report.tally.looks], job.spec.domain
        ),
    }


def _doubts(job: SlideJob, summary: Summary) -> dict[str, Any]:
    """Reasons to look twice, and how much the scan was enlarged, if there is something to say. The digest does not
    cover them: they follow from what it covers."""
    size = "" if job.tissue.method == DARK_FIELD else implausible_size(summary.median_um2, summary.nuclei)
    coarse = enlarged(job.mpp, job.spec.mpp, job.spec.name)
    doubts = [text for text in (size, coarse if job.mpp >= MUCH_COARSER * job.spec.mpp else "") if text]
    return ({"doubts": doubts} if doubts else {}) | ({"enlarged": coarse} if coarse else {})


def _seconds(reports: Sequence[RegionReport], clock: Clock) -> dict[str, float]:
    """Worker seconds of each stage, summed over the regions of this run, and those of this process."""
    total = dict(clock.seconds)
    for report in reports:
        for stage, seconds in report.seconds.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return {stage: round(seconds, 3) for stage, seconds in sorted(total.items())}
