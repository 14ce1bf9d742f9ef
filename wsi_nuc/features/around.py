"""The nuclei of one row group together with those around them, so that nothing ends at the border of a group."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from wsi_nuc.store.reading import NucleiFile, Points
from wsi_nuc.types import Bool, Float64, Int64

Item = TypeVar("Item")
_GROUPS_HELD = 24


@dataclass(frozen=True, slots=True)
class Scene:
    """The nuclei of one row group, its own rows, followed by the rows of other groups that lie near them."""

    xy_um: Float64
    """R x 2: centroids of own and near rows."""
    class_id: Int64
    """R: class of each own and near row."""
    area_um2: Float64
    """N: areas of the own rows alone."""
    own: int
    """N, the number of own rows, which come first."""
    earlier: Bool
    """R - N: whether a near row comes before the own rows in the file, so that a pair across the border of two
    groups is counted once."""


class Held(Generic[Item]):
    """The last few items that were made: rows are in spatial order, so neighbours are asked for soon again."""

    def __init__(self, most: int = _GROUPS_HELD) -> None:
        self._items: OrderedDict[int, Item] = OrderedDict()
        self._most = most

    def get(self, key: int) -> Item | None:
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: int, item: Item) -> Item:
        self._items[key] = item
        while len(self._items) > self._most:
            self._items.popitem(last=False)
        return item


class Surroundings:
    """Makes the scenes of a file's row groups."""

    def __init__(self, file: NucleiFile, mpp: float, margin_um: float) -> None:
        """`margin_um`: how far around a group's own nuclei to look for others."""
        self._file, self._mpp, self._margin_l0 = file, mpp, margin_um / mpp
        self._held: Held[Points] = Held()

    def scene(self, group: int) -> Scene:
        own = self._points(group)
        x0, y0, x1, y1 = self._file.group_boxes_l0[group].tolist()
        margin = self._margin_l0
        box = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
        neighbours = [neighbour for neighbour in self._file.meeting(box) if neighbour != group]
        near = [self._points(neighbour).within(box) for neighbour in neighbours]
        earlier = [neighbour < group for neighbour in neighbours]
        return Scene(
            xy_um=np.concatenate([part.xy_l0 for part in (own, *near)]) * self._mpp,
            class_id=np.concatenate([part.class_id for part in (own, *near)]),
            area_um2=own.area_um2,
            own=len(own),
            earlier=np.repeat(earlier, [len(part) for part in near]).astype(np.bool_),
        )

    def _points(self, group: int) -> Points:
        held = self._held.get(group)
        return held if held is not None else self._held.put(group, self._file.points(group))
