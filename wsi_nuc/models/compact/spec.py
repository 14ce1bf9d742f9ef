"""What planning needs to know of a compact model. No torch here."""

from __future__ import annotations

from wsi_nuc.models.base import ModelSpec
from wsi_nuc.models.compact.settings import OUTLINE_PX, Settings
from wsi_nuc.results import NUMBERS

ARCHITECTURE = "compact"


def spec_of(settings: Settings, weights_sha256: str, name: str = ARCHITECTURE) -> ModelSpec:
    use = settings.use
    return ModelSpec(
        name=name,
        classes=settings.classes,
        mpp=settings.mpp,
        core_px=use.core_px,
        halo_px=use.halo_px,
        largest_nucleus_px=use.window_px + 2 * OUTLINE_PX,
        margin_px=use.margin_px,
        batch=use.batch,
        weights_sha256=weights_sha256,
        uses_torch=True,
        reach_px=use.reach_px,
        domain=settings.domain,
        embedding=settings.net.prompt_channels,
        results=NUMBERS[ARCHITECTURE],
    )
