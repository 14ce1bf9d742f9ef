"""wsi-nuc: every nucleus of a whole-slide image, found, outlined, classified and verified.

The public names are imported when they are first used, so that the command line starts at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

if sys.platform == "win32":
    raise SystemExit("wsi-nuc runs on Linux, macOS and WSL2: on Windows, install it inside of WSL2.")

__version__ = "0.1.0"

__all__ = [
    "Result",
    "RunConfig",
    "SlideResult",
    "describe_slide",
    "load_model",
    "open",
    "open_slide",
    "run_slides",
    "segment",
    "verify",
]

_HOME = {
    "Result": "wsi_nuc.api.result",
    "RunConfig": "wsi_nuc.config",
    "SlideResult": "wsi_nuc.run.success_or_failure",
    "describe_slide": "wsi_nuc.quality.describe",
    "load_model": "wsi_nuc.models.registry",
    "open": "wsi_nuc.api.result",
    "open_slide": "wsi_nuc.slides.registry",
    "run_slides": "wsi_nuc.features.running",
    "segment": "wsi_nuc.api.segment",
    "verify": "wsi_nuc.store.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
