"""Which images a stage learns from, and which it is judged by: masks, points or the foreground alone."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.training.promptnucseg.config import Part

Images = tuple[LabelledImage, ...]

# A foreground alone teaches only the prompter's region mask.
LEARNS_FROM: dict[Part, tuple[str, ...]] = {
    "segmentor": ("masks",),
    "prompter": ("masks", "points", "foreground"),
    "together": ("masks", "points", "foreground"),
}
NEEDS: dict[Part, tuple[str, ...]] = {
    "segmentor": ("masks",), "prompter": ("masks", "points"), "together": ("masks",),
}  # fmt: skip
JUDGED_BY: dict[Part, tuple[str, ...]] = {
    "segmentor": ("masks",), "prompter": ("masks", "points"), "together": ("masks", "points"),
}  # fmt: skip


def taking_part(part: Part, images: Sequence[LabelledImage]) -> Images:
    """The images that the stage can learn from; one without any that it needs is an error."""
    if not any(image.supervision in NEEDS[part] for image in images):
        cause = f"none of {len(images)} images has {' or '.join(NEEDS[part])}, which the stage {part} learns from"
        raise UsageError("data.train", cause, "add such images, or leave the stage out of `stages`")
    return tuple(image for image in images if image.supervision in LEARNS_FROM[part])


def judged(part: Part, images: Sequence[LabelledImage]) -> Images:
    return tuple(image for image in images if image.supervision in JUDGED_BY[part])


def left_out(part: Part, train: Sequence[LabelledImage], validation: Sequence[LabelledImage]) -> list[str]:
    """A line for each kind of image that the stage has no use for."""
    idle = {
        "training": (train, len(train) - len(taking_part(part, train)), LEARNS_FROM[part]),
        "validation": (validation, len(validation) - len(judged(part, validation)), JUDGED_BY[part]),
    }
    return [
        f"{part}: {count} of {len(images)} {kind} images take no part, they lack {' or '.join(wanted)}"
        for kind, (images, count, wanted) in idle.items()
        if count
    ]
