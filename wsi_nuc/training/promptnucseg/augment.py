"""The augmentations of Table S1, and the random crop that every training sample is.

Albumentations 2 has new names for some of them: GaussNoise takes a deviation (the square root of the old variance,
as a share of 255), and ElasticTransform lost `alpha_affine`, which moved three points 85 px from the middle by up
to 15 px; an affine transform of the same reach takes its place.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import UsageError
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX
from wsi_nuc.types import Float64, Int64, UInt8

UInt16 = npt.NDArray[np.uint16]
WHITE = 255


class Augmentation:
    """Crops and, if wanted, augments; the same seed gives the same crop."""

    def __init__(self, augment: bool) -> None:
        albumentations = _albumentations()
        steps = _table_s1(albumentations) if augment else _crop_only(albumentations)
        keypoints = albumentations.KeypointParams("xy", label_fields=["kinds"], remove_invisible=True)
        self._compose = albumentations.Compose(steps, keypoint_params=keypoints)

    def __call__(
        self, rgb: UInt8, mask: UInt16, xy: Float64, kinds: Int64, seed: int
    ) -> tuple[UInt8, UInt16, Float64, Int64]:
        """Pixels, labels and points (first pixel's centre at 0.5) of one crop of 256 px."""
        self._compose.set_random_seed(seed)
        made = self._compose(image=rgb, mask=mask, keypoints=xy - 0.5, kinds=kinds)
        moved = np.asarray(made["keypoints"], np.float64).reshape(-1, 2) + 0.5
        return made["image"], made["mask"], moved, np.asarray(made["kinds"], np.int64).reshape(-1)


def _albumentations() -> Any:
    # It would ask a package registry for newer versions when imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError as error:
        raise UsageError("wsi-nuc train", f"needs albumentations ({error})", "install wsi-nuc[train]") from error
    return albumentations


def _crop_only(a: Any) -> list[Any]:
    return [_at_least_a_crop(a), a.RandomCrop(WINDOW_PX, WINDOW_PX)]


def _at_least_a_crop(a: Any) -> Any:
    # Top left and white, as inference fills up an image smaller than a window.
    return a.PadIfNeeded(WINDOW_PX, WINDOW_PX, position="top_left", border_mode=0, fill=WHITE, fill_mask=0)


def _table_s1(a: Any) -> list[Any]:
    """In the order of the table; normalisation happens on the device, where inference does it too."""
    bent = [
        a.ElasticTransform(sigma=25, alpha=0.5, p=1),
        a.Affine(
            scale=(0.85, 1.15),
            translate_px=(-15, 15),
            rotate=(-10, 10),
            shear=(-10, 10),
            border_mode=4,  # reflected, as ElasticTransform did; pieces become nuclei of their own
            p=1,
        ),
    ]
    return [
        _at_least_a_crop(a),
        a.RandomGridShuffle(grid=(4, 4), p=0.5),
        a.RandomCrop(WINDOW_PX, WINDOW_PX),
        a.RandomRotate90(p=0.5),
        a.HorizontalFlip(p=0.5),
        a.VerticalFlip(p=0.5),
        a.Downscale(scale_range=(0.5, 0.5), p=0.15),
        a.Blur(blur_limit=(3, 11), p=0.2),
        a.GaussNoise(std_range=(0.0, 50**0.5 / 255), p=0.25),
        a.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.1, hue=0.05, p=0.2),
        a.Superpixels(p_replace=0.1, n_segments=200, max_size=128, p=0.1),
        a.ZoomBlur(max_factor=1.05, p=0.1),
        a.RandomSizedCrop(min_max_height=(WINDOW_PX // 2, WINDOW_PX), size=(WINDOW_PX, WINDOW_PX), p=0.1),
        a.Sequential(bent, p=0.2),
    ]
