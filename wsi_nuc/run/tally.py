"""What a region gives besides its nuclei: what became of its tiles, where there are no pixels, and how long each
stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from typing import Any, Self

from wsi_nuc.store.manifest import LOST
from wsi_nuc.tiling.gaps import BoxL0
from wsi_nuc.tiling.read import TilePixels
from wsi_nuc.types import TileCounts

MOST_NAMED = 5


@dataclass(frozen=True, slots=True, order=True)
class BadPlace:
    """A place in the core of a tile."""

    tile: int
    box_l0: BoxL0
    """x0, y0, x1, y1 in level-0 pixels."""
    cause: str

    def __str__(self) -> str:
        return f"tile {self.tile} at level-0 {self.box_l0}: {self.cause}"


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the tiles of a region. Of a failed tile only its core is listed, in `failed`; places in it
    that are missing or damaged are not listed as well."""

    tiles: int = 0
    """How many there are."""
    missing: tuple[BadPlace, ...] = ()
    """Where the file holds no data."""
    damaged: tuple[BadPlace, ...] = ()
    """Where its data cannot be decoded, in tiles whose other pixels the model has seen."""
    failed: tuple[BadPlace, ...] = ()
    """The cores of tiles without any result."""
    repairs: int = 0
    """Outlines that were mended."""
    cut: int = 0
    """Nuclei that were left out because a gap cuts them."""
    looks: tuple[tuple[float, ...], ...] = ()
    """How each tile looks, for models that know how their training images did."""

    @property
    def counts(self) -> TileCounts:
        missing, failed = len({place.tile for place in self.missing}), len(self.failed)
        return TileCounts(processed=self.tiles - missing - failed, missing=missing, failed=failed)

    @classmethod
    def of(cls, pixels: Sequence[TilePixels], failed: Sequence[BadPlace], **counted: Any) -> Self:
        """`failed`: all tiles without a result."""
        gone = {place.tile for place in failed}
        places = [(p.tile.index, place) for p in pixels if p.tile.index not in gone for place in p.places]
        missing, damaged = (
            tuple(
                sorted(BadPlace(tile, place.box_l0, place.cause) for tile, place in places if place.kind == kind)
            )
            for kind in ("missing", "damaged")
        )
        return cls(len(pixels), missing, damaged, tuple(sorted(failed)), **counted)

    def __add__(self, other: Tally) -> Tally:
        """Of two parts of a region, in the order of their tiles."""
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        places = {name: [astuple(place) for place in getattr(self, name)] for name in LOST}
        return {"tiles": self.tiles, "repairs": self.repairs, "cut": self.cut, "looks": self.looks, **places}

    @classmethod
    def from_document(cls, stored: dict[str, Any]) -> Self:
        places = {
            name: tuple(BadPlace(tile, tuple(box), cause) for tile, box, cause in stored[name]) for name in LOST
        }
        looks = tuple(tuple(numbers) for numbers in stored["looks"])
        return cls(stored["tiles"], repairs=stored["repairs"], cut=stored["cut"], looks=looks, **places)


@dataclass(frozen=True, slots=True)
class RegionReport:
    """What a worker says of a region that it has computed."""

    index: int
    part: str
    """Name of its part file, which holds all of this but the seconds and the memory."""
    nuclei: int
    tally: Tally
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""
    rss_bytes: int = 0
    """Memory of the worker when it was done."""


def lacking(reports: Sequence[RegionReport]) -> tuple[str, str]:
    """What a slide lacks, in words: where the file holds no data, and what could not be decoded or computed."""
    missing, damaged, failed = (
        sorted(place for report in reports for place in getattr(report.tally, name)) for name in LOST
    )
    bad = [_named(failed, "tile", "failed"), _named(damaged, "place", "cannot be decoded")]
    return _named(missing, "place", "without data"), "; ".join(filter(None, bad))


def _named(places: Sequence[BadPlace], noun: str, what: str) -> str:
    if not places:
        return ""
    named = [*map(str, places[:MOST_NAMED])]
    named += [f"and {len(places) - MOST_NAMED} more"] if len(places) > MOST_NAMED else []
    return f"{len(places)} {noun}{'s' * (len(places) > 1)} {what} ({'; '.join(named)})"


class Clock:
    """Seconds by stage, summed over repeated stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
