"""Dots on nuclei, and what is mended before anything is learned from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from wsi_nuc.datasets.images import class_table
from wsi_nuc.types import Bool, Float64, Int64


@dataclass(frozen=True, slots=True)
class Dots:
    """N dots, each on a nucleus."""

    xy: Float64
    """N x 2: level-0 pixels of the slide, or pixels of the image; the corner of the first pixel is 0, 0."""
    kinds: Int64
    """N: index into `classes`, -1 without a class."""
    classes: tuple[str, ...]
    region: Any = None
    """Shapely: the union of the drawn regions, in the same pixels. None where none was drawn."""
    repairs: Mapping[str, int] = field(default_factory=dict)
    """What was mended or noticed, and how often."""

    def __len__(self) -> int:
        return len(self.kinds)

    @classmethod
    def of(
        cls, xy: Float64, names: Sequence[str], region: Any = None, repairs: Mapping[str, int] | None = None
    ) -> Self:
        """Dots from the name of the class of each, "" for none."""
        classes = sorted(set(names) - {""})
        number = {name: i for i, name in enumerate(classes)} | {"": -1}
        kinds = np.array([number[name] for name in names], np.int64)
        return cls(np.asarray(xy, np.float64).reshape(-1, 2), kinds, tuple(classes), region, dict(repairs or {}))

    def noting(self, what: str, times: int = 1) -> Self:
        return replace(self, repairs=+Counter({**self.repairs, what: self.repairs.get(what, 0) + times}))

    def keeping(self, kept: Bool, what: str) -> Self:
        """Without the others, which are counted under `what`."""
        chosen = replace(self, xy=self.xy[kept], kinds=self.kinds[kept])
        return chosen.noting(what, int(np.count_nonzero(~kept)))

    def finite(self) -> Self:
        return self.keeping(
            np.asarray(np.isfinite(self.xy).all(axis=1)), "dots whose coordinates are not numbers (dropped)"
        )

    def one_per_nucleus(self, nearest_px: float) -> Self:
        """Of dots that are nearer to each other than this, the first one in the file stays."""
        from scipy.spatial import cKDTree

        kept = np.ones(len(self), np.bool_)
        other_class = 0
        pairs = cKDTree(self.xy).query_pairs(nearest_px, output_type="ndarray") if len(self) > 1 else []
        for first, later in sorted(map(tuple, np.asarray(pairs, np.int64).reshape(-1, 2).tolist())):
            if kept[first] and kept[later]:
                kept[later] = False
                other_class += bool(self.kinds[first] != self.kinds[later])
        cleaned = self.keeping(kept, "second dots on one nucleus (dropped)")
        return cleaned.noting("second dots of another class (the first one counts)", other_class)

    def in_classes(self, mapping: Mapping[str, str], classes: tuple[str, ...] | None, path: Path | str) -> Self:
        """With the classes of the model; None: with those that the dots have, mapped, in the order of the file.

        `mapping`: from the names of the file, "" for no class; a name that it lacks stands for itself. As in every
        data set, all nuclei are of the only class of a model that has one.
        """
        noted = self
        used = [self.classes[kind] for kind in np.unique(self.kinds[self.kinds >= 0]).tolist()]
        for name in sorted(set(mapping) - set(used)):
            noted = noted.noting(f"class {name!r} of the map that no dot has")
        if classes is not None and len(classes) == 1:
            return replace(noted, kinds=np.zeros(len(self), np.int64), classes=classes)
        if classes is None:
            for name in sorted(set(used) - set(mapping)) if mapping else ():
                noted = noted.noting(f"class {name!r} that the map lacks (kept as it is)")
            classes = tuple(dict.fromkeys(to for name in used if (to := mapping.get(name, name))))
        own = [name if name in used else "" for name in self.classes]
        table = class_table(own, classes, {**mapping, "": ""}, str(path))
        return replace(noted, kinds=table[self.kinds], classes=classes)
