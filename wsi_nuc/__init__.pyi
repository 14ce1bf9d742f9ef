"""What type checkers see of the package: the modules are imported only when a name is first used."""

from wsi_nuc.api.result import Result as Result
from wsi_nuc.api.result import open as open
from wsi_nuc.api.segment import segment as segment
from wsi_nuc.config import RunConfig as RunConfig
from wsi_nuc.features.running import run_slides as run_slides
from wsi_nuc.models.registry import load_model as load_model
from wsi_nuc.quality.describe import describe_slide as describe_slide
from wsi_nuc.run.success_or_failure import SlideResult as SlideResult
from wsi_nuc.slides.registry import open_slide as open_slide
from wsi_nuc.store.verify import verify as verify

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
__version__: str
