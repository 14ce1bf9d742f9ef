"""One slide made ready: opened, hashed, its tissue found, its tiles planned, its place in the output known."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

import wsi_nuc
from wsi_nuc import results_numbers
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import UsageError, about
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.resources import sized
from wsi_nuc.slides.address import is_url, shown
from wsi_nuc.slides.identity import Signature, content_sha256, refuse_change, stat_signature
from wsi_nuc.slides.mpp import require_mpp
from wsi_nuc.slides.overview import overview
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.manifest import Origin, identity, identity_key
from wsi_nuc.store.parts import parts_key
from wsi_nuc.store.reading import slide_beside
from wsi_nuc.tiling.plan import LARGEST_REGION_PX, TilePlan, make_plan
from wsi_nuc.tissue.find import Tissue, intersect, tissue_for
from wsi_nuc.tissue.geojson import read_polygons
from wsi_nuc.tissue.stain import DARK_FIELD, LEAST_BROWN, brown_share
from wsi_nuc.types import SlideInfo, SlideRef, SlideSource

VERSIONED = ("numpy", "opencv-python-headless", "openslide-bin", "pyarrow", "shapely", "torch", "zarr")


@dataclass(frozen=True, eq=False)
class Survey:
    """A slide of which a small level was looked at."""

    slide: str
    """As the user named it."""
    ref: SlideRef
    info: SlideInfo
    mpp: float
    """Microns per level-0 pixel."""
    tissue: Tissue
    damaged: float
    """Share of the small level that could not be decoded, 0..1."""
    area: Any
    """Where nuclei are kept: the tissue, cut to the region of interest. Shapely, level-0 pixels."""
    plan: TilePlan
    spec: ModelSpec

    @property
    def area_mm2(self) -> float:
        return float(self.area.area) * (self.mpp / 1000) ** 2

    @property
    def stain(self) -> str:
        """The stain that the slide seems to have, where it is not that of most slides; else ""."""
        if self.tissue.method == DARK_FIELD:
            return "fluorescence"
        share = brown_share(self.tissue.thumbnail)
        return f"immunohistochemistry: {share:.0%} of what is stained is brown" if share >= LEAST_BROWN else ""

    @property
    def warnings(self) -> list[str]:
        """What a user must know, although the slide can be computed."""
        warnings = []
        if self.damaged:
            warnings.append(f"{self.damaged:.1%} of the low-resolution view could not be decoded")
        if self.tissue.polygons.is_empty:
            warnings.append("no tissue was found; pass --tissue none to look everywhere")
        elif self.area.is_empty:
            warnings.append("the region of interest meets no tissue; pass --tissue none to ignore that")
        if self.tissue.method == DARK_FIELD:
            what = "it looks like fluorescence, and the models are made for bright-field H&E"
            warnings.append(f"{what}: the classes mean nothing")
        elif self.stain:
            what = f"it looks like {self.stain} (DAB), and the models are made for H&E"
            warnings.append(f"{what}: look at the outlines and classes; --dab measures the brown in every nucleus")
        return warnings


@dataclass(frozen=True, eq=False)
class SlideJob(Survey):
    """A slide that is ready to be computed."""

    signature: Signature
    """Of its files, before the run."""
    config: RunConfig
    origin: Origin
    """What the published result depends on."""
    work_key: str
    """Names what the computed tiles depend on, however they are grouped."""
    copy: SlideRef | None = None
    """Of the slide, on this node's disk."""

    @property
    def parts_key(self) -> str:
        """Names the folder of the parts of regions of this size."""
        return parts_key(self.work_key, self.plan.tiles_per_region)

    @property
    def pixels(self) -> SlideRef:
        """Where workers read the slide."""
        return self.copy or self.ref

    @property
    def content_sha256(self) -> str:
        return str(self.origin.key["slide_sha256"])

    def check_unchanged(self) -> None:
        """Raise if any file of the slide is not the one that was hashed."""
        refuse_change(self.ref, self.signature, self.slide)


def prepare(
    slide: str,
    config: RunConfig,
    spec: ModelSpec,
    device: str,
    measured: Callable[[RunConfig, ModelSpec], Mapping[str, Any]] = lambda config, spec: {},
) -> SlideJob:
    """All that is decided before a tile is computed. The slide is hashed while its tissue is searched for.

    `measured`: what will be measured of the nuclei, as the identity of a result states it.
    """
    ref = reference(slide, config)
    signature = stat_signature(ref)
    with ThreadPoolExecutor(1) as beside:
        hashed = beside.submit(content_sha256, ref)
        seen = survey(slide, config, spec)
        sha256 = hashed.result()
    wanted = _result_config(config, seen.info, seen.mpp, spec, device, measured(config, spec))
    numbers = results_numbers.of_run(spec.results)
    key = identity_key(sha256, spec.weights_sha256, wanted, numbers)
    tiles = {"core_px": spec.core_px, "halo_px": spec.halo_px}
    plan = sized(seen.plan, config, spec, device)
    return SlideJob(
        **(vars(seen) | {"plan": plan}),
        signature=signature,
        config=config,
        origin=Origin(key, slide_facts(slide, seen.info, seen.mpp, sha256), versions()),
        work_key=identity(sha256, spec.weights_sha256, _parts_config({**wanted, **tiles}), numbers),
    )


def reference(slide: str, config: RunConfig) -> SlideRef:
    """Workers elsewhere have another current folder, hence the absolute path."""
    return SlideRef(slide if is_url(slide) else os.path.abspath(slide), config.reader, config.mpp)


def slide_of(store: Path, given: str | None = None, reader: str = "auto") -> SlideRef | None:
    """The slide of a result: the given one, or the file that the manifest names: beside the store, one folder up,
    or here. None if it is in none of these places."""
    facts = manifests.read(store)["slide"]
    given = given or str(slide_beside(store, str(facts["file"])) or "")
    if not given:
        return None
    return SlideRef(given if is_url(given) else os.path.abspath(given), reader, float(facts["mpp"]))


def survey(slide: str, config: RunConfig, spec: ModelSpec) -> Survey:
    """Open the slide, find its tissue and plan its tiles: one look at a small level, no hash of the content."""
    ref = reference(slide, config)
    source = open_slide(ref)
    try:
        with about(shown(slide)):
            info, mpp = source.info, require_mpp(source.info)
            view = overview(source, mpp)
            tissue = tissue_for(view, config.tissue)
            area = _area(tissue, source, config)
            plan = make_plan(info, mpp, spec, area, config.region_size or LARGEST_REGION_PX)
    finally:
        source.close()
    return Survey(slide, ref, info, mpp, tissue, view.damaged, area, plan, spec)


def _area(tissue: Tissue, source: SlideSource, config: RunConfig) -> Any:
    if config.roi is None:
        return tissue.polygons
    return intersect(tissue.polygons, read_polygons(config.roi, source.info))


def _result_config(
    config: RunConfig, info: SlideInfo, mpp: float, spec: ModelSpec, device: str, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that show in the result. Workers, region size and the like do not."""
    inference = config.inference
    return {
        "model": spec.name,
        "device_class": device.partition(":")[0],
        "reader": info.reader,
        "mpp": mpp,
        "tissue": config.tissue if config.tissue in ("auto", "none") else file_sha256(config.tissue),
        "roi": file_sha256(config.roi) if config.roi else None,
        "stitch": config.stitch.model_dump(),
        "labels": config.labels,
        **({"inference": inference} if inference else {}),
        **measured,
    }


def _parts_config(shape: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shape.items() if key not in ("stitch", "labels", "features")}


def file_sha256(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(
            path, f"cannot be read ({error.strerror})", "check the path of the GeoJSON file"
        ) from None


def slide_facts(slide: str, info: SlideInfo, mpp: float, sha256: str) -> dict[str, Any]:
    """What the manifest says of the slide: its file name and numbers, never its path or free text."""
    return {
        "file": PurePath(urlsplit(slide).path if is_url(slide) else os.path.abspath(slide)).name,
        "sha256": sha256,
        "width_px": info.width,
        "height_px": info.height,
        "mpp": mpp,
        "mpp_source": info.mpp_source,
        "reader": info.reader,
        "levels": [[level.width, level.height, level.downsample] for level in info.levels],
    }


@cache
def versions() -> dict[str, str]:
    known = {"wsi-nuc": wsi_nuc.__version__, "python": platform.python_version()}
    for name in VERSIONED:
        with suppress(PackageNotFoundError):
            known[name] = installed(name)
    return known
