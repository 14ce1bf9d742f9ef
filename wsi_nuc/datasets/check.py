"""The check of a data set: every image is read, broken ones included, and the report says what is there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsi_nuc.datasets.published import Comparison, Seen, compare, published
from wsi_nuc.datasets.record import DataError, Dataset, LabelledImage
from wsi_nuc.datasets.registry import load_dataset
from wsi_nuc.errors import WsiNucError

# Mean diameters of nuclei in histology. If the median lies outside, mpp is wrong.
PLAUSIBLE_UM = (3.0, 20.0)


@dataclass(frozen=True)
class Report:
    """What the check of a data set says; the counts are over all images that could be read."""

    folder: str
    name: str
    reader: str
    licence: str
    trains_released: bool | None
    images: int
    supervision: dict[str, int]
    """Images by their strongest label: masks, points or foreground."""
    splits: dict[str, int]
    """Images by split."""
    groups: int
    sizes: dict[str, int]
    """Images by width and height in pixels."""
    mpp: dict[str, int]
    """Images by microns per pixel."""
    nuclei: int
    """With a mask."""
    nuclei_by_class: dict[str, int]
    points: int
    points_by_class: dict[str, int]
    foreground_share: float | None
    """Of the area of the images that have a foreground; None if there are none."""
    diameter_px: tuple[float, float, float] | None
    """5 %, 50 % and 95 % of the nuclei are smaller; None without masks."""
    diameter_um: float | None
    """Median, over the images whose resolution is known."""
    repairs: dict[str, int]
    """What was mended or noticed while reading, summed over images."""
    broken: dict[str, str]
    """The images that could not be read, and why."""
    warnings: list[str]
    """What a person should look at."""
    published: Comparison | None = None
    """The published set beside it, where that was asked for."""

    @property
    def ok(self) -> bool:
        return not self.broken

    def as_json(self) -> str:
        values = dataclasses.asdict(self)
        if self.published is not None:
            values["published"]["agrees"] = self.published.agrees
        return json.dumps(values, indent=1, allow_nan=False)

    def as_text(self) -> str:
        released = {True: "yes", False: "no", None: "not known, so no"}[self.trains_released]
        lines = [
            f"{self.name} ({self.folder}, reader {self.reader})",
            f"licence            {self.licence}; may train released weights: {released}",
            f"images             {self.images} in {self.groups} groups; {_list(self.supervision)}",
            f"splits             {_list(self.splits)}",
            f"sizes              {_list(self.sizes)}",
            f"mpp                {_list(self.mpp)}",
            f"nuclei             {self.nuclei}; {_list(self.nuclei_by_class) or 'no classes'}",
            f"points             {self.points}; {_list(self.points_by_class) or 'no classes'}",
        ]
        if self.foreground_share is not None:
            lines.append(f"foreground         {self.foreground_share:.1%} of the area")
        if self.diameter_px is not None:
            low, middle, high = self.diameter_px
            um = "" if self.diameter_um is None else f", median {self.diameter_um:.1f} um"
            lines.append(f"diameter           5 % {low:.1f}, median {middle:.1f}, 95 % {high:.1f} px{um}")
        lines += [f"repair             {repair}: {count}" for repair, count in self.repairs.items()]
        lines += [f"warning            {text}" for text in self.warnings]
        lines += [f"BROKEN             {name}: {why}" for name, why in self.broken.items()]
        lines += [] if self.published is None else self.published.lines()
        return "\n".join(lines) + "\n"


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


@dataclass
class _Tally:
    """Running counts, image by image, so that a large data set needs the memory of a single image."""

    images: int = 0
    counters: dict[str, Counter[str]] = field(
        default_factory=lambda: {
            k: Counter() for k in ("supervision", "splits", "sizes", "mpp", "nuclei", "points", "repairs")
        }
    )
    groups: set[str] = field(default_factory=set)
    nuclei: int = 0
    points: int = 0
    foreground: tuple[int, int] = (0, 0)
    """Pixels of the foreground, and pixels of the images that have one."""
    diameters_px: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = field(default_factory=list)
    diameters_um: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    """Images without a nucleus."""
    seen: list[Seen] = field(default_factory=list)
    """Every image that could be read."""

    def add(self, image: LabelledImage) -> None:
        self.images += 1
        self.groups.add(image.group)
        height, width = image.rgb.shape[:2]
        self.counters["supervision"][image.supervision] += 1
        self.counters["splits"][image.split or "(none)"] += 1
        self.counters["sizes"][f"{width}x{height}"] += 1
        pixels = hashlib.sha256(image.rgb.tobytes()).hexdigest()
        self.seen.append(Seen(image.id, image.split, f"{width}x{height}", pixels))
        self.counters["mpp"]["unknown" if image.mpp is None else f"{image.mpp:g}"] += 1
        self.counters["repairs"].update(image.repairs)
        if image.count == 0:
            self.empty.append(image.id)
        self._add_instances(image)
        if image.points_xy is not None:
            self.points += len(image.points_xy)
            _count_classes(self.counters["points"], image.point_types, image.point_classes)
        if image.foreground is not None:
            on, of = self.foreground
            self.foreground = on + int(image.foreground.sum()), of + image.foreground.size

    def _add_instances(self, image: LabelledImage) -> None:
        if image.instances is None:
            return
        area = np.bincount(image.instances.ravel())[1:]
        self.nuclei += len(area)
        diameter = 2 * np.sqrt(area / np.pi)
        self.diameters_px.append(diameter)
        if image.mpp is not None:
            self.diameters_um.append(diameter * image.mpp)
        if image.classes:
            _count_classes(self.counters["nuclei"], image.types, image.classes)


def _count_classes(into: Counter[str], types: Iterable[int] | None, classes: tuple[str, ...]) -> None:
    for name in classes:
        into.setdefault(name, 0)
    into.update(classes[t] if t >= 0 else "(none)" for t in ([] if types is None else types))


def check_dataset(
    root: Path | str, *, name: str = "", reader_name: str = "", sheet: Path | None = None, like: str = ""
) -> Report:
    """Read every image of the folder and report. With `sheet`, also draw an overlay of some images to this PNG.
    `like`: the published set that the folder should be."""
    dataset = (
        _with_splits(Path(root), like, reader_name)
        if like
        else load_dataset(root, name=name, reader_name=reader_name)
    )
    tally = _Tally()
    for i, entry in enumerate(dataset.entries):
        try:
            tally.add(dataset[i])
        except WsiNucError as error:
            tally.broken[entry.id] = str(error)
    if sheet is not None:
        from wsi_nuc.datasets.sheet import draw_sheet

        draw_sheet([dataset[i] for i in _spread(dataset, tally)], sheet)
    unread = [(entry.id, entry.split) for entry in dataset.entries if entry.id in tally.broken]
    comparison = compare(like, tally.seen, unread, tally.nuclei) if like else None
    return dataclasses.replace(_report(dataset, tally), published=comparison)


def _with_splits(root: Path, like: str, reader_name: str) -> Dataset:
    """A published set. Its folder may also hold a folder per split, each with a layout that says nothing of
    splits."""
    splits = published(like).splits
    folders = [f for f in sorted(root.glob("*/")) if any(f.name.startswith(split) for split in splits)]
    try:
        return load_dataset(root, name=like, reader_name=reader_name)
    except DataError:
        if not folders:
            raise
    parts = [(folder.name, load_dataset(folder, name=like, reader_name=reader_name)) for folder in folders]
    entries = [
        dataclasses.replace(entry, id=f"{name}/{entry.id}", split=name)
        for name, part in parts
        for entry in part.entries
    ]
    return dataclasses.replace(parts[0][1], root=root, entries=tuple(entries))


def _spread(dataset: Dataset, tally: _Tally, wanted: int = 12) -> list[int]:
    """Readable images spread evenly over the data set."""
    good = [i for i, entry in enumerate(dataset.entries) if entry.id not in tally.broken]
    return [good[k] for k in np.unique(np.linspace(0, len(good) - 1, min(wanted, len(good))).astype(int))]


def _report(dataset: Dataset, tally: _Tally) -> Report:
    counts = {name: dict(counter) for name, counter in tally.counters.items()}
    px = np.concatenate(tally.diameters_px) if tally.diameters_px else np.zeros(0)
    um = np.concatenate(tally.diameters_um) if tally.diameters_um else np.zeros(0)
    on, of = tally.foreground
    low, middle, high = (float(v) for v in np.percentile(px, [5, 50, 95])) if len(px) else (0.0, 0.0, 0.0)
    median_um = float(np.median(um)) if len(um) else None
    return Report(
        folder=str(dataset.root),
        name=dataset.card.name,
        reader=dataset.reader,
        licence=dataset.card.licence,
        trains_released=dataset.card.trains_released,
        images=tally.images,
        supervision=counts["supervision"],
        splits=counts["splits"],
        groups=len(tally.groups),
        sizes=counts["sizes"],
        mpp=counts["mpp"],
        nuclei=tally.nuclei,
        nuclei_by_class=counts["nuclei"],
        points=tally.points,
        points_by_class=counts["points"],
        foreground_share=on / of if of else None,
        diameter_px=(low, middle, high) if len(px) else None,
        diameter_um=median_um,
        repairs=counts["repairs"],
        broken=tally.broken,
        warnings=_warnings(dataset, tally, px, median_um),
    )


def _warnings(
    dataset: Dataset,
    tally: _Tally,
    diameters_px: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    median_um: float | None,
) -> list[str]:
    warnings = []
    if dataset.card.note:
        warnings.append(dataset.card.note)
    if tally.counters["mpp"]["unknown"]:
        warnings.append("no mpp: set it in dataset.json, or scale and detection radius cannot be right")
    if median_um is not None and not PLAUSIBLE_UM[0] <= median_um <= PLAUSIBLE_UM[1]:
        warnings.append(f"the median nucleus has {median_um:.1f} um: check mpp")
    if specks := int((diameters_px < 4).sum()):
        warnings.append(f"{specks} nuclei are under 4 px across")
    if tally.empty:
        warnings.append(f"{len(tally.empty)} images without a nucleus, such as {tally.empty[0]}")
    across = _split_groups(dataset)
    if across:
        warnings.append(f"{len(across)} groups lie in several splits, such as {across[0]}")
    return warnings


def _split_groups(dataset: Dataset) -> list[str]:
    """Groups with images in more than one split. PanNuke's groups, its tissues, are in every fold by design."""
    if dataset.reader == "pannuke":
        return []
    pairs = {(entry.group, entry.split) for entry in dataset.entries}
    return sorted(group for group, n in Counter(group for group, _ in pairs).items() if n > 1)
