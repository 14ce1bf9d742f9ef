"""Training samples: augmented random crops of labelled images, with the points and prompts that the losses need.

A sample follows from image and seed alone, so neither the number of workers and processes nor an interruption
changes what a step sees.

The augmentations are those of Table S1. Albumentations 2 changed two of them: GaussNoise takes a deviation (the
square root of the old variance, as a share of 255), and ElasticTransform lost `alpha_affine`, which moved three
points 85 px from the middle by up to 15 px; an affine transform of the same reach replaces it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.record import DataError, Int32, LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.windows import Layout, plan_jobs
from wsi_nuc.training.compact.config import Cropping
from wsi_nuc.training.compact.crops import cropped, jittered
from wsi_nuc.training.compact.scene import Scene, grown, moments
from wsi_nuc.training.pieces import centres, pieces
from wsi_nuc.training.promptnucseg.config import PromptConfig
from wsi_nuc.types import Bool, Float32, Float64, Int64, Prompts, UInt8

UInt16 = npt.NDArray[np.uint16]
WHITE = 255
TURNED = Cropping(size_px=WINDOW_PX)


class Augmentation:
    """Crops and, if `augment` says so, augments. The same seed gives the same crop."""

    def __init__(self, augment: bool | str) -> None:
        self._compact = augment == "compact"
        if self._compact:
            return
        albumentations = _albumentations()
        steps = _table_s1(albumentations) if augment else _crop_only(albumentations)
        keypoints = albumentations.KeypointParams("xy", label_fields=["kinds"], remove_invisible=True)
        self._compose = albumentations.Compose(steps, keypoint_params=keypoints)

    def __call__(
        self, rgb: UInt8, mask: UInt16, xy: Float64, kinds: Int64, seed: int
    ) -> tuple[UInt8, UInt16, Float64, Int64]:
        """Pixels, labels, points (first pixel's centre at 0.5) and classes of points of one crop of 256 px."""
        if self._compact:
            return _as_compact(rgb, mask, xy, kinds, seed)
        self._compose.set_random_seed(seed)
        made = self._compose(image=rgb, mask=mask, keypoints=xy - 0.5, kinds=kinds)
        moved = np.asarray(made["keypoints"], np.float64).reshape(-1, 2) + 0.5
        return made["image"], made["mask"], moved, np.asarray(made["kinds"], np.int64).reshape(-1)


def _as_compact(
    rgb: UInt8, mask: UInt16, xy: Float64, kinds: Int64, seed: int
) -> tuple[UInt8, UInt16, Float64, Int64]:
    least = int(np.ceil(WINDOW_PX * 2**0.5 / TURNED.scale[0])) + 2
    spread = np.zeros((len(xy), 2, 2))
    scene = Scene("", grown(rgb, least), grown(mask, least).astype(np.int32), None, xy, spread, kinds)
    made = cropped(scene, np.random.default_rng(seed), TURNED)
    assert made.instances is not None
    assert made.xy is not None
    inside = ((made.xy >= 0) & (made.xy < WINDOW_PX)).all(1)
    return made.rgb, made.instances.astype(np.uint16), made.xy[inside], kinds[inside]


def _albumentations() -> Any:
    # Otherwise it looks for newer versions on the internet when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError as error:
        raise UsageError("wsi-nuc train", f"needs albumentations ({error})", "install wsi-nuc[train]") from error
    return albumentations


def _crop_only(a: Any) -> list[Any]:
    return [_at_least_a_crop(a), a.RandomCrop(WINDOW_PX, WINDOW_PX)]


def _at_least_a_crop(a: Any) -> Any:
    # The image lies at the top left and the rest is white, as in inference.
    return a.PadIfNeeded(WINDOW_PX, WINDOW_PX, position="top_left", border_mode=0, fill=WHITE, fill_mask=0)


def _table_s1(a: Any) -> list[Any]:
    """In the order of the table. Normalisation happens on the device, as in inference."""
    bent = [
        a.ElasticTransform(sigma=25, alpha=0.5, p=1),
        a.Affine(
            scale=(0.85, 1.15),
            translate_px=(-15, 15),
            rotate=(-10, 10),
            shear=(-10, 10),
            border_mode=4,  # reflected, as in ElasticTransform; the pieces become nuclei of their own
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


@dataclass(frozen=True, slots=True)
class Sample:
    """A crop of 256 x 256 pixels with P prompts. What is not known of the image is None."""

    id: str
    """The name of the image."""
    rgb: UInt8
    """256 x 256 x 3."""
    instances: Int32
    """256 x 256 labels, 1..N of connected pieces; all 0 where masks are not known."""
    region: Bool | None
    """256 x 256: the foreground."""
    points_xy: Float64 | None
    """N x 2; the first pixel's centre lies at 0.5."""
    point_types: Int64 | None
    """N classes; -1: not known."""
    prompt_xy: Float32
    """P x (1 + K) x 2: the point itself first, then its K negatives."""
    prompt_label: Int64
    """P x (1 + K): POSITIVE, NEGATIVE or NO_POINT."""
    prompt_id: Int64
    """P labels in `instances`."""
    prompt_type: Int64
    """P classes; -1: not known."""


def make_sample(
    image: LabelledImage, augmentation: Augmentation, prompts: PromptConfig, use: UseSettings, seed: int
) -> Sample:
    masks, points = image.instances is not None, image.points_xy is not None
    xy = np.zeros((0, 2)) if masks or image.points_xy is None else image.points_xy
    kinds = np.zeros(0, np.int64) if masks or image.point_types is None else image.point_types
    rgb, mask, xy, kinds = augmentation(image.rgb, _mask_of(image), xy, kinds, seed)
    known_region = masks or image.foreground is not None
    labels, whole = pieces(mask) if masks else (np.zeros(mask.shape, np.int32), np.zeros(0, np.int64))
    if masks:
        types = np.full(int(mask.max(initial=0)) + 1, -1, np.int64) if image.types is None else image.types
        xy, kinds = centres(labels), types[whole - 1]
    chosen = _prompts(labels, xy, prompts, use, np.random.default_rng((seed, 1)))
    return Sample(
        id=image.id,
        rgb=np.ascontiguousarray(rgb),
        instances=labels,
        region=(mask > 0) if known_region else None,
        points_xy=xy if masks or points else None,
        point_types=kinds if masks or points else None,
        prompt_xy=chosen[0],
        prompt_label=chosen[1],
        prompt_id=chosen[2],
        prompt_type=kinds[chosen[2] - 1] if masks else np.zeros(0, np.int64),
    )


def _mask_of(image: LabelledImage) -> npt.NDArray[np.uint16]:
    """Instances, or else the foreground, in a type that every transform of the augmentation accepts."""
    if image.instances is not None:
        if image.instances.max(initial=0) > np.iinfo(np.uint16).max:
            raise DataError(image.id, "has over 65535 nuclei", "cut the image into parts")
        return image.instances.astype(np.uint16)
    if image.foreground is not None:
        return image.foreground.astype(np.uint16)
    return np.zeros(image.rgb.shape[:2], np.uint16)


def _prompts(
    labels: Int32, centre_xy: Float64, prompts: PromptConfig, use: UseSettings, rng: np.random.Generator
) -> tuple[Float32, Int64, Int64]:
    """Points of Z nuclei, each with its K nearest others, chosen by the same code as in inference."""
    count, width = int(labels.max(initial=0)), 1 + prompts.negatives
    if not count:
        return np.zeros((0, width, 2), np.float32), np.zeros((0, width), np.int64), np.zeros(0, np.int64)
    if prompts.positive == "random":
        xy = _random_pixels(labels, count, rng)
    elif prompts.positive == "near":
        xy = jittered(centre_xy, moments(labels, count)[1], labels, np.arange(1, count + 1), rng)
    else:
        xy = centre_xy
    nowhere = np.zeros(count, np.int64)
    points = Prompts(xy.astype(np.float32), np.ones(count, np.float32), np.ones((count, 1), np.float32), nowhere)
    wanted = np.sort(rng.permutation(count)[: prompts.nuclei])
    jobs = plan_jobs(points, wanted.tolist(), Layout.of(WINDOW_PX, WINDOW_PX, use), prompts.negatives)
    real = [len(job.prompt) for job in jobs]
    return (
        np.concatenate([job.xy_window[:n] for job, n in zip(jobs, real, strict=True)]),
        np.concatenate([job.label[:n] for job, n in zip(jobs, real, strict=True)]),
        np.concatenate([job.prompt for job in jobs]) + 1,
    )


def _random_pixels(labels: Int32, count: int, rng: np.random.Generator) -> Float64:
    """N x 2: the centre of a random pixel of each id."""
    inside = np.flatnonzero(labels)
    order = np.argsort(labels.flat[inside], kind="stable")
    ends = np.cumsum(np.bincount(labels.flat[inside], minlength=count + 1)[1:])
    starts = np.concatenate([[0], ends[:-1]])
    picked = inside[order[rng.integers(starts, ends)]]
    y, x = np.divmod(picked, labels.shape[1])
    return np.stack([x, y], 1) + 0.5
