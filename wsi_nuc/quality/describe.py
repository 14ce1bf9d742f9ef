"""What `wsi-nuc info` tells of a slide; all that is computed is a sample of nuclei, to judge the resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import SlideError
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.quality import check_mpp
from wsi_nuc.run.resources import sized
from wsi_nuc.slides.mpp import require_mpp
from wsi_nuc.slides.overview import overview
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.tiling.plan import make_plan
from wsi_nuc.tissue.find import Tissue, tissue_for
from wsi_nuc.tissue.stain import brown_share
from wsi_nuc.types import SlideInfo, SlideRef, SlideSource


def describe_slide(
    slide: str,
    model: str = "default",
    reader: str = "auto",
    mpp: float | None = None,
    tissue: str = "auto",
    check: bool = True,
) -> dict[str, Any]:
    """Facts and plan as JSON values; `problem` is empty when the slide can be run as it is.

    `check`: judge a header's microns per pixel by a sample of nuclei, which loads the model.
    """
    source = open_slide(SlideRef(slide, reader, mpp))
    try:
        facts = {"slide": slide, **_facts(source.info)}
        if source.info.mpp is None:
            return {**facts, "problem": f"{source.info.mpp_problem}; pass --mpp"}
        try:
            return {**facts, **_planned(source, model, tissue, check), "problem": ""}
        except SlideError as error:
            return {**facts, "problem": f"{error.cause}; {error.remedy}"}
    finally:
        source.close()


def _planned(source: SlideSource, model: str, tissue: str, check: bool) -> dict[str, Any]:
    mpp, spec = require_mpp(source.info), model_spec(model)
    tissue_found = tissue_for(overview(source, mpp), tissue)
    whole = make_plan(source.info, mpp, spec, tissue_found.polygons)
    plan = sized(whole, RunConfig(out=Path()), spec, "cpu")
    return {
        **(_judged(source, tissue_found, model) if check else {}),
        "tissue_share": round(tissue_found.share, 4),
        "tissue_mm2": round(_mm2(tissue_found.polygons, mpp), 4),
        "tissue_found": tissue_found.method,
        "brown_share": round(brown_share(tissue_found.thumbnail), 4),
        "model": f"{spec.name}: {', '.join(spec.classes)}",
        "plan": "\n" + "\n".join(f"  {line}" for line in str(plan).splitlines()),
        "memory_mib": round(plan.estimated_bytes(spec.batch) / 2**20),
    }


def _judged(source: SlideSource, tissue: Tissue, model: str) -> dict[str, Any]:
    info = source.info
    if info.mpp_source == "--mpp" or info.mpp is None:
        return {}
    judged = check_mpp(source, info.mpp, tissue, load_model(model))
    return {"mpp_check": judged.verdict, "mpp_reason": judged.reason, "mpp_implied": judged.implied_mpp}


def _facts(info: SlideInfo) -> dict[str, Any]:
    levels = ", ".join(f"{level.width} x {level.height} (1/{level.downsample:.4g})" for level in info.levels)
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
