"""Kumar, CPM-17 and PanNuke as published: what a folder must hold before a week of training is spent on it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wsi_nuc.errors import UsageError, choices

_KUMAR_TRAIN = """
    TCGA-A7-A13E TCGA-A7-A13F TCGA-AR-A1AK TCGA-AR-A1AS TCGA-B0-5711 TCGA-HE-7128 TCGA-HE-7129 TCGA-HE-7130
    TCGA-18-5592 TCGA-38-6178 TCGA-49-4488 TCGA-50-5931 TCGA-G9-6336 TCGA-G9-6348 TCGA-G9-6356 TCGA-G9-6363
"""
_KUMAR_TEST = """
    TCGA-E2-A1B5 TCGA-E2-A14V TCGA-B0-5710 TCGA-B0-5698 TCGA-21-5784 TCGA-21-5786 TCGA-CH-5767 TCGA-G9-6362
    TCGA-DK-A2I6 TCGA-G2-A2EK TCGA-AY-A8YK TCGA-NH-A8F7 TCGA-KB-A93J TCGA-RD-A8N9
"""
_CPM17 = " ".join(f"image_{i:02}" for i in range(32))
# A raster has fewer nuclei than the outlines that it was made of, by the few that others cover.
CLOSE = 0.005
NAMED = 8


@dataclass(frozen=True, slots=True)
class Published:
    """A data set as its authors describe it."""

    nuclei: int
    """Annotated nuclei, over all splits."""
    sizes: tuple[str, ...]
    """Width and height of the images, as the report of the check writes them."""
    splits: Mapping[str, int]
    """Images of each split."""
    lists: Mapping[str, tuple[str, ...]]
    """Names of the images of each split; empty where the set itself numbers them."""
    note: str = ""
    """What sources say differently."""

    @property
    def images(self) -> int:
        return sum(self.splits.values())


PUBLISHED = {
    "kumar": Published(
        21_623,
        ("1000x1000",),
        {"train": 16, "test": 14},
        {"train": tuple(_KUMAR_TRAIN.split()), "test": tuple(_KUMAR_TEST.split())},
    ),
    "cpm17": Published(
        7_570,
        ("500x500", "600x600", "500x600", "600x500"),
        {"train": 32, "test": 32},
        {"train": tuple(_CPM17.split()), "test": tuple(_CPM17.split())},
    ),
    "pannuke": Published(
        189_744,
        ("256x256",),
        {"fold1": 2_656, "fold2": 2_523, "fold3": 2_722},
        {},
        "the paper gives 7,899 images; the three folds, as they are distributed, hold 7,901",
    ),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the comparison needs to know of an image that could be read."""

    id: str
    split: str
    size: str
    """Width and height, such as 256x256."""
    pixels: str
    """A hash of its pixels."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A folder beside the published set."""

    name: str
    """The published set."""
    images: tuple[int, int]
    """Images here, and published."""
    nuclei: tuple[int, int]
    """Nuclei here, and published."""
    splits: dict[str, tuple[int, int]]
    """Images of each split here, and published."""
    missing: list[str]
    """Images of the published lists that are not there, or how many a split lacks."""
    doubled: list[str]
    """Images that are there more than once, under whatever name."""
    misplaced: list[str]
    """Images that are in another split than published, or in no published set."""
    other: list[str]
    """What else is not as published."""
    note: str = ""

    @property
    def agrees(self) -> bool:
        return not (self.missing or self.doubled or self.misplaced or self.other)

    def lines(self) -> list[str]:
        """For the report of the check."""
        splits = ", ".join(f"{name} {here:,} of {there:,}" for name, (here, there) in self.splits.items())
        out = [
            f"published          {self.name}: {self.images[0]:,} of {self.images[1]:,} images ({splits}); "
            f"{self.nuclei[0]:,} of {self.nuclei[1]:,} nuclei"
        ]
        for word, problems in (
            ("MISSING", self.missing),
            ("DOUBLED", self.doubled),
            ("MISPLACED", self.misplaced),
            ("DIFFERENT", self.other),
        ):
            out += [f"{word:<18} {problem}" for problem in problems[:NAMED]]
            if len(problems) > NAMED:
                out.append(f"{word:<18} and {len(problems) - NAMED:,} more")
        out += [f"remark             {self.note}"] if self.note else []
        return [*out, f"published          {'as published' if self.agrees else 'NOT as published'}"]


def published(name: str) -> Published:
    if name not in PUBLISHED:
        raise UsageError(f"--as {name}", "is not a set with published counts", choices(name, PUBLISHED))
    return PUBLISHED[name]


def compare(name: str, seen: Sequence[Seen], unread: Iterable[tuple[str, str]], nuclei: int) -> Comparison:
    """`unread`: id and split of the images that could not be read, which count as there. `nuclei`: their number in
    all images."""
    known = published(name)
    there = [(_short(image.id), _part(image.split, known)) for image in seen]
    there += [(_short(image), _part(split, known)) for image, split in unread]
    splits = Counter(split for _, split in there)
    missing, misplaced = _by_list(known, there) if known.lists else _by_number(known, splits)
    return Comparison(
        name=name,
        images=(len(there), known.images),
        nuclei=(nuclei, known.nuclei),
        splits={split: (splits[split], count) for split, count in known.splits.items()},
        missing=missing,
        doubled=_doubled(seen),
        misplaced=misplaced,
        other=_other(known, seen, nuclei),
        note=known.note,
    )


def _short(image: str) -> str:
    """TCGA-XX-YYYY of a name of TCGA; of other names what follows the split that a reader put before it."""
    name = image.rpartition("/")[2]
    tcga = re.match(r"TCGA-\w\w-\w{4}", name)
    return tcga[0] if tcga else name


def _part(split: str, known: Published) -> str:
    """test_same and test_diff are the two halves of Kumar's test."""
    return next((name for name in known.splits if split.startswith(name)), split)


def _by_list(known: Published, there: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """What is missing and what is misplaced. Without folders of splits only the names are compared."""
    placed, names = any(split in known.splits for _, split in there), {name for name, _ in there}
    misplaced = []
    for name, split in there:
        right = _splits_of(known, name)
        if not right:
            misplaced.append(f"{name} is in none of the published lists")
        elif placed and split not in right:
            misplaced.append(f"{name} is in {split or 'no split'}, published in {' and '.join(right)}")
    missing = [
        f"{name} ({split})"
        for split, listed in known.lists.items()
        for name in listed
        if name not in names or (placed and len(_splits_of(known, name)) > 1 and (name, split) not in there)
    ]
    return missing, misplaced


def _splits_of(known: Published, name: str) -> list[str]:
    return [split for split, listed in known.lists.items() if name in listed]


def _by_number(known: Published, splits: Mapping[str, int]) -> tuple[list[str], list[str]]:
    missing, misplaced = [], []
    for split, count in known.splits.items():
        here = splits.get(split, 0)
        if here < count:
            missing.append(f"{count - here:,} of the {count:,} images of {split}" if here else f"all of {split}")
        elif here > count:
            misplaced.append(f"{split} has {here - count:,} images more than published")
    misplaced += [f"{count:,} images are in {split or 'no fold'}" for split, count in splits.items()
                  if split not in known.splits]  # fmt: skip
    return missing, misplaced


def _doubled(seen: Sequence[Seen]) -> list[str]:
    same: dict[str, list[str]] = {}
    for image in seen:
        same.setdefault(image.pixels, []).append(f"{image.id} ({image.split or 'no split'})")
    return [f"{' and '.join(names)} have the same pixels" for names in same.values() if len(names) > 1]


def _other(known: Published, seen: Sequence[Seen], nuclei: int) -> list[str]:
    strange = [f"{image.id} has {image.size} px, published {' or '.join(known.sizes)}"
               for image in seen if image.size not in known.sizes]  # fmt: skip
    if abs(nuclei - known.nuclei) > CLOSE * known.nuclei:
        share = nuclei / known.nuclei - 1
        strange.append(f"{nuclei:,} nuclei, published {known.nuclei:,} ({share:+.1%})")
    return strange
