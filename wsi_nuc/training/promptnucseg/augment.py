"""Training samples: augmented random crops of labelled images, with the points and prompts that the losses need.

A sample follows from image and seed alone, so neither the number of workers and processes nor an interruption
changes what a step sees.

The augmentations are those of Table S1, or the released code's, in the meaning of albumentations 1.x, which the
authors used. Albumentations 2 changed three of them:

- `Blur(blur_limit=10)` drew the edge of its box evenly from 3, 5, 7 and 9; now a limit of 10 includes 11.
- `GaussNoise(var_limit=50)` drew the variance evenly from 0 to 50 squared grey levels, and the deviation is its
  root; now a deviation is drawn evenly, as a share of 255, and noise that is rounded to 0 loses a tenth of it.
- `ElasticTransform` lost `alpha_affine`, which moved three points 85 px from the middle by up to 15 px; an affine
  transform of the same reach replaces it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.overlaps import compact
from wsi_nuc.datasets.record import DataError, Int32, LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.windows import Layout, plan_jobs
from wsi_nuc.training.compact.config import Cropping
from wsi_nuc.training.compact.crops import cropped, jittered
from wsi_nuc.training.compact.scene import Scene, grown, moments
from wsi_nuc.training.pieces import Middle, centre_of_contour, centre_of_mass, centres, pieces
from wsi_nuc.training.promptnucseg.config import Part, PromptConfig, TrainConfig
from wsi_nuc.types import Bool, Float32, Float64, Int64, Prompts, UInt8

UInt16 = npt.NDArray[np.uint16]
WHITE = 255
Augment = Callable[[UInt8, UInt16, Float64, Int64, int], tuple[UInt8, UInt16, Float64, Int64]]
BLUR_LIMIT, VAR_LIMIT = 10, 50  # of Table S1


# In the order of Table S1. Normalisation happens on the device, as in inference.
TABLE_S1 = (
    "shuffle", "crop", "turn", "mirror", "flip", "coarse", "blur", "noise", "colour", "superpixels", "zoom",
    "resized", "elastic",
)  # fmt: skip
# In the order of the released configurations.
RELEASED = {
    "segmentor": (
        "crop", "turn", "mirror", "flip", "coarse", "blur", "noise", "colour", "superpixels", "zoom", "resized",
        "elastic",
    ),
    "prompter": (
        "crop", "shuffle", "colour", "turn", "coarse", "blur", "noise", "zoom", "mirror", "flip", "shift",
    ),
}  # fmt: skip


class Augmentation:
    """Crops and, if `steps` names any, augments. The same seed gives the same crop."""

    def __init__(self, steps: Sequence[str] = ("crop",), crop_px: int = WINDOW_PX, multiple_px: int = 1) -> None:
        """`multiple_px`: the crop is continued as in a mirror to a multiple of this, as inference does."""
        a = _albumentations()
        named = _transforms(a, crop_px)
        continued = a.PadIfNeeded(
            None, None, multiple_px, multiple_px, position="top_left", border_mode=cv2.BORDER_REFLECT_101
        )
        chosen = [_at_least(a, crop_px), *(named[step] for step in steps)]
        keypoints = a.KeypointParams("xy", label_fields=["kinds"], remove_invisible=True)
        chosen += [continued] if crop_px % multiple_px else []
        self._compose = a.Compose(chosen, keypoint_params=keypoints)

    @classmethod
    def of(cls, config: TrainConfig, part: Part) -> Augment:
        crop_px = getattr(config.train, part).crop_px
        if config.data.augment == "compact":
            return Restained(Cropping(size_px=crop_px))
        if config.data.augment == "released":
            steps = RELEASED["prompter" if part == "prompter" else "segmentor"]
        else:
            steps = TABLE_S1 if config.data.augment else ("crop",)
        return cls(steps, crop_px, config.prompter.space_px if part == "prompter" else 1)

    def __call__(
        self, rgb: UInt8, mask: UInt16, xy: Float64, kinds: Int64, seed: int
    ) -> tuple[UInt8, UInt16, Float64, Int64]:
        """Pixels, labels, points (first pixel's centre at 0.5) and classes of points of one crop."""
        self._compose.set_random_seed(seed)
        made = self._compose(image=rgb, mask=mask, keypoints=xy - 0.5, kinds=kinds)
        moved = np.asarray(made["keypoints"], np.float64).reshape(-1, 2) + 0.5
        return made["image"], made["mask"], moved, np.asarray(made["kinds"], np.int64).reshape(-1)


@dataclass(frozen=True, slots=True)
class Restained:
    """Crops as those of the compact network: turned by any angle, mirrored, enlarged, and stained anew."""

    how: Cropping

    def __call__(
        self, rgb: UInt8, mask: UInt16, xy: Float64, kinds: Int64, seed: int
    ) -> tuple[UInt8, UInt16, Float64, Int64]:
        size = self.how.size_px
        least = int(np.ceil(size * 2**0.5 / self.how.scale[0])) + 2
        spread = np.zeros((len(xy), 2, 2))  # not asked for
        scene = Scene("", grown(rgb, least), grown(mask, least).astype(np.int32), None, xy, spread, kinds)
        made = cropped(scene, np.random.default_rng(seed), self.how)
        assert made.instances is not None
        assert made.xy is not None
        inside = ((made.xy >= 0) & (made.xy < size)).all(1)
        return made.rgb, made.instances.astype(np.uint16), made.xy[inside], kinds[inside]


def _albumentations() -> Any:
    # Otherwise it looks for newer versions on the internet when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError as error:
        raise UsageError("wsi-nuc train", f"needs albumentations ({error})", "install wsi-nuc[train]") from error
    return albumentations


def _at_least(a: Any, crop_px: int) -> Any:
    # The image lies at the top left and the rest is white, as in inference.
    return a.PadIfNeeded(crop_px, crop_px, position="top_left", border_mode=0, fill=WHITE, fill_mask=0)


def _transforms(a: Any, crop_px: int) -> dict[str, Any]:
    """All steps by name."""
    bent = [
        a.ElasticTransform(sigma=25, alpha=0.5, p=1),
        a.Affine(
            scale=(0.85, 1.15),
            translate_px=(-15, 15),
            rotate=(-10, 10),
            shear=(-10, 10),
            border_mode=cv2.BORDER_REFLECT_101,  # as in ElasticTransform; the pieces become nuclei of their own
            p=1,
        ),
    ]
    size = (crop_px, crop_px)
    return {
        "shuffle": a.RandomGridShuffle(grid=(4, 4), p=0.5),
        "crop": a.RandomCrop(crop_px, crop_px),
        "turn": a.RandomRotate90(p=0.5),
        "mirror": a.HorizontalFlip(p=0.5),
        "flip": a.VerticalFlip(p=0.5),
        "coarse": a.Downscale(scale_range=(0.5, 0.5), p=0.15),
        "blur": a.Blur(blur_limit=(3, BLUR_LIMIT - 1), p=0.2),
        "noise": _noise(a),
        "colour": a.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.1, hue=0.05, p=0.2),
        "superpixels": a.Superpixels(p_replace=0.1, n_segments=200, max_size=128, p=0.1),
        "zoom": a.ZoomBlur(max_factor=1.05, p=0.1),
        "resized": a.RandomSizedCrop(min_max_height=(crop_px // 2, crop_px), size=size, p=0.1),
        "elastic": a.Sequential(bent, p=0.2),
        # ShiftScaleRotate, whose angle is 0; what comes in from outside is black.
        "shift": a.Affine(
            scale=(0.9, 1.1), translate_percent={"x": (-0.3, 0.3), "y": (-0.3, 0.3)}, border_mode=0, fill=0, p=0.5
        ),
    }


def _noise(a: Any) -> Any:
    """GaussNoise as albumentations 1.x computes it."""

    class Noise(a.ImageOnlyTransform):  # type: ignore[misc]
        def get_params_dependent_on_data(self, params: Any, data: Any) -> dict[str, Any]:
            deviation = self.py_random.uniform(0, VAR_LIMIT) ** 0.5
            return {"noise": self.random_generator.normal(0, deviation, data["image"].shape)}

        def apply(self, img: UInt8, noise: Float64, **params: Any) -> UInt8:
            return np.clip(img + noise, 0, WHITE).astype(np.uint8)

    return Noise(p=0.25)


@dataclass(frozen=True, slots=True)
class Sample:
    """A crop of h x h pixels with P prompts. What is not known of the image is None."""

    id: str
    """The name of the image."""
    rgb: UInt8
    """h x h x 3."""
    instances: Int32
    """h x h labels, 1..N of nuclei or their pieces; all 0 where masks are not known."""
    region: Bool | None
    """h x h: the foreground."""
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


@dataclass(frozen=True, slots=True)
class Truth:
    """What counts as a nucleus of a crop, and where its point lies."""

    split: Callable[[UInt16], tuple[Int32, Int64]] = pieces
    middle: Middle = centre_of_mass
    side_px: int | None = None
    """Nuclei beyond these first pixels do not count; None: all count."""

    @classmethod
    def of(cls, config: TrainConfig, part: Part) -> Truth:
        data = config.data
        return cls(
            compact if data.cut_nuclei == "whole" else pieces,
            centre_of_contour if data.points == "contour" else centre_of_mass,
            None if data.mirrored_points else getattr(config.train, part).crop_px,
        )

    def nuclei(self, mask: UInt16) -> tuple[Int32, Int64]:
        """Labels 1..N and the number in `mask` of each."""
        counted = np.zeros_like(mask)
        counted[: self.side_px, : self.side_px] = mask[: self.side_px, : self.side_px]
        return self.split(counted)


def make_sample(
    image: LabelledImage,
    augmentation: Augment,
    prompts: PromptConfig | None,
    use: UseSettings,
    seed: int,
    truth: Truth | None = None,
) -> Sample:
    """`prompts`: None where there is no segmentor to learn from them."""
    truth = truth or Truth()
    masks, points = image.instances is not None, image.points_xy is not None
    xy = np.zeros((0, 2)) if masks or image.points_xy is None else image.points_xy
    kinds = np.zeros(0, np.int64) if masks or image.point_types is None else image.point_types
    rgb, mask, xy, kinds = augmentation(image.rgb, _mask_of(image), xy, kinds, seed)
    known_region = masks or image.foreground is not None
    labels, whole = truth.nuclei(mask) if masks else (np.zeros(mask.shape, np.int32), np.zeros(0, np.int64))
    if masks:
        types = np.full(int(mask.max(initial=0)) + 1, -1, np.int64) if image.types is None else image.types
        xy, kinds = centres(labels, truth.middle), types[whole - 1]
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
    labels: Int32, centre_xy: Float64, prompts: PromptConfig | None, use: UseSettings, rng: np.random.Generator
) -> tuple[Float32, Int64, Int64]:
    """Points of Z nuclei, each with its K nearest others, chosen by the same code as in inference."""
    count, width = int(labels.max(initial=0)), 1 + (prompts.negatives if prompts else 0)
    if prompts is None or not count:
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
