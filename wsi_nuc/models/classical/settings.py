"""All constants of the classical model. They were chosen on 21 labelled colon images; see `DESIGN.md`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import ModelError
from wsi_nuc.types import Float64

CLASSES = ("epithelial", "inflammatory", "connective", "other")
FEATURES = ("bias", "log2 area", "log2 elongation", "contrast")
MPP = 0.5
# `Sample.size_um` (room `quality`) on images of known resolution, 5th to 95th percentile, as
# `benchmarks/resolution_check.py` measures it.
NUCLEUS_UM = (4.6, 7.8)
CORE_PX, HALO_PX, MARGIN_PX, CROP_PX = 1024, 144, 8, 64


# Optical densities of red, green and blue (Ruifrok & Johnston 2001); each is scaled to length 1.
STAINS = {
    "haematoxylin": (0.650, 0.704, 0.286),
    "eosin": (0.072, 0.990, 0.105),
    "rest": (0.268, 0.570, 0.776),
}


def unmixing() -> Float64:
    """3 x 3, one column per stain of `STAINS`: how much of the stain an optical density of red, green and blue
    stands for."""
    stains = np.array(list(STAINS.values()))
    return np.asarray(np.linalg.inv(stains / np.linalg.norm(stains, axis=1, keepdims=True)))


def _haematoxylin() -> Float64:
    return np.asarray(unmixing()[:, 0])


def _class_weights() -> Float64:
    """One row per class, one column per feature: epithelial nuclei are large, lymphocytes small and round,
    connective ones long. Fitted by a ridge-penalised softmax and rounded, since further digits mean nothing."""
    return np.array(
        [
            [0.83, 0.54, 0.17, -1.34],
            [0.46, -0.47, -0.91, 0.52],
            [-0.51, -0.38, 0.80, -0.05],
            [-0.78, 0.30, -0.05, 0.87],
        ]
    )


@dataclass(frozen=True)
class Parameters:
    """The constants. Lengths are in pixels of 0.5 um, densities in units of `foreground.UNIT`."""

    stain: Float64 = field(default_factory=_haematoxylin)
    """Weights of the optical densities of red, green and blue."""
    smooth_px: float = 0.8
    """Sigma of the first blur."""
    window_px: int = 32
    """Half the edge of the window of the local threshold."""
    share: float = 0.75
    """Where the threshold lies between the paler mean (0) and the darker one (1)."""
    floor: int = 170
    """The threshold is never lower."""
    contrast: int = 220
    """A smaller difference between the two means counts as this much."""
    gain: float = 2.0
    """Steepness of the soft foreground."""
    blob_px: float = 2.0
    """Sigma of the smallest blob."""
    blob_scales: int = 3
    """How many sizes of blobs, each 1.34 times the one before."""
    blob_floor: int = 150
    """Strength of the weakest blob."""
    apart_px: int = 6
    """Two points are further apart than this in x or y."""
    edge_px: float = 0.7
    """Sigma that smooths the foreground's edge."""
    flood_px: float = 1.0
    """Sigma that smooths the order of the flood."""
    levels: int = 10
    """Levels of the flood."""
    steps: int = 2
    """How many pixels the flood grows at each level."""
    closing_px: int = 3
    """Notches up to twice as wide are filled."""
    least_px: int = 25
    """Least area of a nucleus."""
    most_px: int = 1500
    """Largest area of a nucleus."""
    class_weights: Float64 = field(default_factory=_class_weights)
    """Classes x features."""

    @property
    def reach_px(self) -> int:
        """How far from its point a nucleus can depend on pixels: the sum of all neighbourhoods, see DESIGN.md."""
        flood = self.levels * self.steps
        blob = blur_radius(self.blob_px * 1.34**self.blob_scales)
        local = 2 * self.window_px + blur_radius(self.smooth_px)
        return 2 * flood + self.apart_px + max(blob, blur_radius(self.flood_px), blur_radius(self.edge_px)) + local


def blur_radius(sigma_px: float) -> int:
    return int(np.ceil(3 * sigma_px))


def to_state(parameters: Parameters) -> dict[str, npt.NDArray[np.float64]]:
    """As tensors, the form in which a file holds them."""
    return {f.name: np.atleast_1d(np.asarray(getattr(parameters, f.name), np.float64)) for f in fields(Parameters)}


def from_state(state: dict[str, Any], subject: str) -> Parameters:
    """The inverse of `to_state`; shapes and finite values were checked before."""
    values: dict[str, Any] = {}
    for f in fields(Parameters):
        array = np.asarray(state[f.name], np.float64)
        kind = type(f.default) if isinstance(f.default, (int, float)) else None
        values[f.name] = array if kind is None else kind(array[0])
    parameters = Parameters(**values)
    positive = {name: value for name, value in values.items() if np.ndim(value) == 0 and not value > 0}
    if positive:
        raise ModelError(subject, f"these constants are not positive: {positive}", "save the model again")
    if parameters.levels * parameters.steps + 2 * parameters.closing_px >= CROP_PX // 2:
        cause = f"{parameters.levels} levels of {parameters.steps} px and a closing of {parameters.closing_px} px"
        raise ModelError(subject, f"{cause} do not fit the crop of {CROP_PX} px", "choose fewer levels or steps")
    if parameters.reach_px + MARGIN_PX > HALO_PX:
        cause = f"with these constants a nucleus depends on pixels {parameters.reach_px} px away"
        raise ModelError(subject, cause, f"choose smaller windows: at most {HALO_PX - MARGIN_PX} px can be read")
    return parameters
