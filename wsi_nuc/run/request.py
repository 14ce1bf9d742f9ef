"""What a call asks of one slide, where that is more than its path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsi_nuc.config import ConfigError, RunConfig, with_settings
from wsi_nuc.errors import UsageError
from wsi_nuc.slides.address import shown
from wsi_nuc.store.names import NameClaim, claim_name, plain_name
from wsi_nuc.store.place import Place


@dataclass(frozen=True, slots=True)
class SlideRequest:
    """`name` of the result, "" for one made from the slide's own; `settings` in place of the call's, by key."""

    slide: str
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def config(self, common: RunConfig) -> RunConfig:
        try:
            return with_settings(common, self.settings)
        except ConfigError as error:
            raise UsageError(shown(self.slide), str(error)) from None

    def claim(self, out: Place, content_sha256: str) -> NameClaim:
        """The name of the result. One that was asked for is never changed to make room for another slide's."""
        claim = claim_name(self.name or self.slide, out, content_sha256)
        if self.name and claim.name != f"{plain_name(self.name)}.zarr":
            claim.close()
            raise UsageError(
                out / f"{plain_name(self.name)}.zarr",
                f"holds the result of another slide than {shown(self.slide)}",
                "move it away, or give the slide another name",
            )
        return claim


def as_request(slide: str | SlideRequest) -> SlideRequest:
    return slide if isinstance(slide, SlideRequest) else SlideRequest(slide)
