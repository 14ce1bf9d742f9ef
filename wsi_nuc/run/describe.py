"""What `wsi-nuc info` tells of a slide, without computing anything on it."""

from __future__ import annotations

from typing import Any

from wsi_nuc.models.registry import model_spec
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
        info = source.info
        facts = {"slide": slide, **_facts(info)}
        if info.mpp is None:
            return {**facts, "problem": f"{info.mpp_problem}; pass --mpp"}
        known_mpp, spec = require_mpp(slide, info), model_spec(model)
        found = tissue_for(source, known_mpp, tissue, slide)
        plan = make_plan(slide, info, known_mpp, spec, found.polygons)
        return {
            **facts,
            "tissue_share": round(found.share, 4),
            "tissue_mm2": round(_mm2(found.polygons, known_mpp), 4),
            "tissue_found": found.method,
            "model": f"{spec.name}: {', '.join(spec.classes)}",
            "plan": "\n" + "\n".join(f"  {line}" for line in str(plan).splitlines()),
            "memory_mib": round(plan.estimated_bytes(spec.batch) / 2**20),
            "problem": "",
        }
    finally:
        source.close()


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
