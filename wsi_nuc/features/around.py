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
    """Centroids in microns, N own rows first and then the near ones. `earlier`: of each near row, whether it
    comes before the own ones in the file, so that a pair over the border can be counted once."""

    xy_um: Float64
    class_id: Int64
    area_um2: Float64
    own: int
    earlier: Bool


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
    """`margin_um`: how far around a group's own nuclei others are looked for."""

    def __init__(self, file: NucleiFile, mpp: float, margin_um: float) -> None:
        self._file, self._mpp, self._margin_l0 = file, mpp, margin_um / mpp
        self._held: Held[Points] = Held()

    def scene(self, group: int) -> Scene:
        own = self._points(group)
        x0, y0, x1, y1 = self._file.group_boxes_l0[group].tolist()
        margin = self._margin_l0
        box = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
        others = [other for other in self._file.meeting(box) if other != group]
        near = [self._points(other).within(box) for other in others]
        return Scene(
            xy_um=np.concatenate([part.xy_l0 for part in (own, *near)]) * self._mpp,
            class_id=np.concatenate([part.class_id for part in (own, *near)]),
            area_um2=own.area_um2,
            own=len(own),
            earlier=np.repeat([other < group for other in others], [len(part) for part in near]).astype(np.bool_),
        )

    def _points(self, group: int) -> Points:
        held = self._held.get(group)
        return held if held is not None else self._held.put(group, self._file.points(group))
