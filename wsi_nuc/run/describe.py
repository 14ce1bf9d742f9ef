"""What `wsi-nuc info` tells of a slide, without computing anything on it."""

from __future__ import annotations

from typing import Any

from wsi_nuc.errors import SlideError
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.models.registry import model_spec
from wsi_nuc.slides.base import SlideSource
from wsi_nuc.slides.mpp import require_mpp
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.tiling.plan import make_plan
from wsi_nuc.tiling.tissue import tissue_for
from wsi_nuc.types import SlideInfo, SlideRef


def describe_slide(
    slide: str, model: str = "classical", reader: str = "auto", mpp: float | None = None, tissue: str = "auto"
) -> dict[str, Any]:
    """Facts and plan as JSON values; `problem` is empty when the slide can be run as it is."""
    source = open_slide(SlideRef(slide, reader, mpp))
    try:
        facts = {"slide": slide, **_facts(source.info)}
        if source.info.mpp is None:
            return {**facts, "problem": f"{source.info.mpp_problem}; pass --mpp"}
        try:
            return {**facts, **_plan(slide, source, model_spec(model), tissue), "problem": ""}
        except SlideError as error:
            return {**facts, "problem": f"{error.cause}; {error.remedy}"}
    finally:
        source.close()


def _plan(slide: str, source: SlideSource, spec: ModelSpec, tissue: str) -> dict[str, Any]:
    mpp = require_mpp(slide, source.info)
    found = tissue_for(source, mpp, tissue, slide)
    plan = make_plan(slide, source.info, mpp, spec, found.polygons)
    return {
        "tissue_share": round(found.share, 4),
        "tissue_mm2": round(_mm2(found.polygons, mpp), 4),
        "tissue_found": found.method,
        "model": f"{spec.name}: {', '.join(spec.classes)}",
        "plan": "\n" + "\n".join(f"  {line}" for line in str(plan).splitlines()),
        "memory_mib": round(plan.estimated_bytes(spec.batch) / 2**20),
    }


def _facts(info: SlideInfo) -> dict[str, Any]:
    levels = ", ".join(f"{one.width} x {one.height} (1/{one.downsample:.4g})" for one in info.levels)
    return {
        "reader": info.reader,
        "vendor": info.vendor,
        "size_px": f"{info.width} x {info.height}",
        "levels": levels,
        "objective": info.objective,
        "mpp": info.mpp,
        "mpp_source": info.mpp_source,
    }


def _mm2(polygons: Any, mpp: float) -> float:
    return float(polygons.area) * (mpp / 1000) ** 2
