"""How large outlines are: drawn discs of known area, outlined by the default and the classical model.

Dark discs on pink at 0.25 um per pixel, with a little noise. Their edges are sharp, as usual under a microscope,
or soft. They stand apart, so every difference is the outline's own. A disc counts where the centroid of an outline
lies within half of its radius. The figures stand in docs/models/default.md and wsi_nuc/models/classical/DESIGN.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.table import Row, print_rows
from wsi_nuc import RunConfig, run_slides
from wsi_nuc.store.reading import NucleiFile
from wsi_nuc.types import Float64, UInt8

MPP, NOISE, FINE = 0.25, 6.0, 8
BLURS_UM = {"sharp": 0.05, "usual": 0.3, "soft": 0.6}
NUCLEUS, TISSUE = (95, 60, 130), (215, 165, 200)
DIAMETERS_UM, PER_SIZE, PITCH_UM = (5.0, 6.5, 8.0, 10.0, 12.0), 12, 24.0
MODELS = ("default", "classical")


def drawn(diameters_um: Float64, blur_um: float) -> tuple[UInt8, Float64]:
    """The picture, and the centres of its discs in um: one in every cell of a grid, at a place between pixels."""
    rng, edge = np.random.default_rng(0), int(np.ceil(np.sqrt(len(diameters_um))))
    cell = np.column_stack([np.arange(len(diameters_um)) % edge, np.arange(len(diameters_um)) // edge])
    centres = (cell + 0.5) * PITCH_UM + rng.uniform(-2, 2, (len(diameters_um), 2))
    side = round(edge * PITCH_UM / MPP)
    inside = np.zeros((side * FINE, side * FINE), np.uint8)
    for (x, y), diameter in zip(centres / MPP * FINE, diameters_um / MPP * FINE, strict=True):
        cv2.circle(inside, (round(x), round(y)), round(diameter / 2), 255, cv2.FILLED)
    share = cv2.resize(inside.astype(np.float32) / 255, (side, side), interpolation=cv2.INTER_AREA)
    share = cv2.GaussianBlur(share, (0, 0), blur_um / MPP)[..., None]
    rgb = share * np.array(NUCLEUS) + (1 - share) * np.array(TISSUE) + rng.normal(0, NOISE, (side, side, 1))
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), centres


def outlined(slide: Path, out: Path, model: str) -> tuple[Float64, Float64]:
    """Centroids (um) and areas (um2) of what the model finds."""
    config = RunConfig(out=out / model, model=model, scheduler="serial", mpp=MPP, tissue="none")
    (result,) = run_slides(config, [str(slide)])
    if result.error:
        raise RuntimeError(result.error)
    with NucleiFile(Path(result.store)) as file:
        points = [file.points(group) for group in range(file.groups)]
    return (
        np.concatenate([np.zeros((0, 2)), *(part.xy_l0 * MPP for part in points)]),
        np.concatenate([np.zeros(0), *(part.area_um2 for part in points)]),
    )


def ratios(centres: Float64, diameters_um: Float64, xy: Float64, area_um2: Float64) -> Float64:
    """Outlined over true area of each disc; NaN where none was found."""
    out = np.full(len(centres), np.nan)
    for i, (centre, diameter) in enumerate(zip(centres, diameters_um, strict=True)):
        away = np.hypot(*(xy - centre).T)
        if len(away) and away.min() < diameter / 4:
            out[i] = area_um2[away.argmin()] / (np.pi / 4 * diameter**2)
    return out


def measure(small: bool = False) -> list[Row]:
    diameters = np.repeat(DIAMETERS_UM, 2 if small else PER_SIZE)
    rows = []
    for model in MODELS:
        for edge, blur_um in list(BLURS_UM.items())[: 1 if small else None]:
            ratio = _ratios(model, diameters, blur_um)
            for diameter in DIAMETERS_UM:
                here = ratio[diameters == diameter]
                known = here[np.isfinite(here)]
                what = f"{model}: outlined over true area, {edge} discs of {diameter:g} um"
                rows.append(Row(f"{what} ({len(known)} of {len(here)})", float(np.median(known)), "x"))
    return rows


def _ratios(model: str, diameters_um: Float64, blur_um: float) -> Float64:
    with tempfile.TemporaryDirectory(prefix="wsi-nuc-bench-") as folder:
        slide = Path(folder) / "discs.png"
        rgb, centres = drawn(diameters_um, blur_um)
        Image.fromarray(rgb).save(slide)
        return ratios(centres, diameters_um, *outlined(slide, Path(folder), model))


if __name__ == "__main__":
    print_rows(measure())
