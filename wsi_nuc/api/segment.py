"""`wsi_nuc.segment`: a slide or an array in, its result out. It is the pipeline of `wsi-nuc run`."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc import errors
from wsi_nuc.api.progress import progress
from wsi_nuc.api.result import Result
from wsi_nuc.config import RunConfig
from wsi_nuc.configuring import with_settings
from wsi_nuc.errors import OK, SlideError, UsageError, WsiNucError
from wsi_nuc.features.running import run_slides
from wsi_nuc.types import UInt8

# Workers would need longer to start than one process needs for so few pixels.
FEW_PX = 2048**2
TILE_PX = 256
SlideOrArray = str | Path | UInt8


def segment(
    slide: SlideOrArray,
    *,
    model: str = "default",
    mpp: float | None = None,
    out: str | Path | None = None,
    progress_bar: bool = True,
    **settings: Any,
) -> Result:
    """Find, outline and classify every nucleus of a slide (path or URL) or of an H x W x 3 array of 8 bits.

    `mpp`: microns per pixel; an array needs it. `out`: folder that keeps the result; without it, nothing is left
    when the result goes. `settings`: further keys of the configuration, such as features=True, tissue="none" or
    workers=4. The same slide and settings in the same `out` are not computed twice. Raises one of the errors of
    `wsi_nuc.errors`, which say what is wrong and what helps.
    """
    folder = Path(tempfile.mkdtemp(prefix="wsi-nuc-"))
    try:
        alone = settings.get("workers") == 1
        if isinstance(slide, np.ndarray):
            alone |= slide.size <= 3 * FEW_PX
            slide = _written(slide, mpp, folder / "array.tif")
        slide = os.fspath(slide)
        given = {"model": model, "mpp": mpp, "scheduler": "serial" if alone else "local", **settings}
        config = with_settings(RunConfig(out=folder / "results" if out is None else Path(out)), given)
        return Result(_run(slide, config, out is not None, progress_bar), slide, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _run(slide: str, config: RunConfig, class_tables: bool, progress_bar: bool) -> str:
    """The path of the store."""
    with (
        progress(progress_bar) as emit,
        closing(run_slides(config, [slide], emit, class_tables=class_tables)) as results,
    ):
        (result,) = results
    if result.exit_code != OK:
        raise _as_error(result.exit_code, result.error)
    return result.store


def _as_error(exit_code: int, text: str) -> WsiNucError:
    """The kind of error that ends with this code. The text names the slide, the cause and the remedy."""
    kinds = (errors.UsageError, errors.ModelError, errors.StorageError)
    return next((kind for kind in kinds if kind.exit_code == exit_code), SlideError)("", text)


def _written(rgb: UInt8, mpp: float | None, path: Path) -> str:
    """The array as a tiled TIFF, which every reader of the pipeline takes."""
    import tifffile

    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        cause = f"is {rgb.dtype} of shape {rgb.shape}, and not H x W x 3 of uint8"
        raise UsageError("array", cause, "give red, green and blue with 8 bits")
    if mpp is None:
        raise UsageError("array", "has no microns per pixel", "pass mpp, such as mpp=0.25 for a scan at 40x")
    tifffile.imwrite(path, np.ascontiguousarray(rgb), photometric="rgb", tile=(TILE_PX, TILE_PX), metadata=None)
    return str(path)
