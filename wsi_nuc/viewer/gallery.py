"""What there is to look at: one result or several, a folder of them, or a cohort; with figures, outliers first."""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import load
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.report.figures import figures_of, outliers
from wsi_nuc.cohort.state import states
from wsi_nuc.cohort.tables import read as read_figures
from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.report.pictures import thumbnail
from wsi_nuc.safezip import flaw_of
from wsi_nuc.store.manifest import Json
from wsi_nuc.store.verify import is_result
from wsi_nuc.store.verify import verify as problems_of
from wsi_nuc.viewer.guard import NotThere
from wsi_nuc.viewer.opened import OpenedStore, Place, checked_manifest
from wsi_nuc.viewer.pictures import jpeg

# Results that are open at a time: two beside each other, and the one before.
MOST_OPEN = 3
EDGE_PX = 360
ENDINGS = (".zarr", ".zarr.zip")


@dataclass(frozen=True, slots=True)
class Known:
    """What a card says of a result."""

    digest: str
    nuclei: int
    area_mm2: float
    classes: Mapping[str, int]
    model: str = ""
    slide_key: str = ""
    """The same for results of one slide; "" where that does not matter."""
    more: Mapping[str, float] = field(default_factory=dict)
    """Other figures in which a slide may stand out."""

    @classmethod
    def of(cls, manifest: Json) -> Known:
        counts, made = manifest["counts"], manifest["made_from"]
        model = Path(str(made.get("config", {}).get("model", "imported"))).name
        area = float(counts.get("usable_mm2") or counts["area_mm2"])
        key = str(made["slide_sha256"])[:16]
        return cls(str(manifest["digest"]), counts["nuclei"], area, counts["classes"], model, key)

    def figures(self) -> Json:
        """By the names that the tables of cohorts give them."""
        figures: Json = {"nuclei": self.nuclei, "classes": dict(self.classes), "tissue_mm2": self.area_mm2}
        figures["nuclei_per_mm2"] = self.nuclei / self.area_mm2 if self.area_mm2 else None
        for name, count in self.classes.items():
            figures[f"share_{name}"] = count / self.nuclei if self.nuclei else None
        return figures | dict(self.more)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something at a path that may be shown."""

    name: str
    store: Path
    problem: str = ""
    """Why it cannot be shown."""
    known: Known | None = None
    """What its manifest says, if something else says it, too: a cohort has ten thousand manifests."""
    slide: str | None = None
    roi: str | None = None


class Gallery:
    """The results that a server shows, by their ids. They are opened when they are asked for."""

    def __init__(
        self,
        paths: Sequence[Path],
        slide: str | None = None,
        folders: tuple[Path, ...] = (),
        roi: str | None = None,
    ) -> None:
        """`slide`, `roi`: where the user says that they are now; `folders`: where slides may be."""
        self._folders = folders
        self._open: OrderedDict[str, OpenedStore] = OrderedDict()
        self._lock = threading.Lock()
        self.places: dict[str, Place] = {}
        self.rows: list[Json] = []
        """What a page of thumbnails shows of each, and of those that cannot be shown."""
        entries = [entry for path in paths for entry in _entries_of(Path(path))]
        often = Counter(entry.name for entry in entries)
        for entry in entries:
            given = replace(entry, slide=slide or entry.slide, roi=roi or entry.roi)
            self._add(given, often[entry.name] > 1)
        if not self.places and not any(row.get("state") for row in self.rows):
            raise UsageError(paths[0], "holds no result that can be shown", "run a slide first, with --out")
        if slide and len({place.store for place in self.places.values()}) > 2:
            raise UsageError("--slide", "belongs to one slide, and this shows many", "use --slides FOLDER")
        self.rows = outliers_first(self.rows)

    def _add(self, entry: Entry, several: bool) -> None:
        """`several`: others have the same name, so that this one also gets that of its folder and its model."""
        name, problem, known = entry.name, entry.problem, entry.known
        if known is None and not problem:
            try:
                known = Known.of(checked_manifest(entry.store))
            except StorageError as error:
                problem = error.cause
        if known is None:
            self.rows.append({"id": "", "name": name, "state": problem})
            return
        number = known.digest[:16]
        while number in self.places:
            number += "x"
        if several:
            name = f"{entry.store.absolute().parent.name}/{name}, {known.model}"
        self.places[number] = Place(number, name, entry.store, entry.slide, entry.roi)
        row = {"id": number, "name": name, "at": len(self.rows), "state": "", "slideKey": known.slide_key}
        self.rows.append(row | known.figures())

    def opened(self, number: str) -> OpenedStore:
        """The result of an id; NotThere if there is none."""
        place = self._place(number)
        with self._lock:
            if number not in self._open:
                self._open[number] = OpenedStore(place, self._folders)
                while len(self._open) > MOST_OPEN:
                    # Whoever still reads from it keeps it alive.
                    self._open.popitem(last=False)
                threading.Thread(target=self._open[number].warm_up, daemon=True).start()
            self._open.move_to_end(number)
            return self._open[number]

    def _place(self, number: str) -> Place:
        if number not in self.places:
            raise NotThere(number)
        return self.places[number]

    def picture(self, number: str) -> bytes:
        """The thumbnail of a result as JPEG; NotThere if there is none."""
        rgb = thumbnail(self._place(number).store, EDGE_PX)
        if rgb is None:
            raise NotThere(number)
        return jpeg(rgb, 80)


def _entries_of(path: Path) -> Iterator[Entry]:
    if (path / "plan.json").is_file():
        yield from _of_cohort(CohortFolder(path.absolute()))
    elif is_result(path) or flaw_of(path):
        checked_manifest(path)
        yield Entry(path.name, path)
    elif path.is_dir():
        stores = sorted(entry for entry in path.iterdir() if entry.name.endswith(ENDINGS))
        for store in stores:
            yield Entry(store.name, store, "" if is_result(store) else "is not finished")
        if not stores:
            remedy = "give a result such as results/SLIDE.zarr, a folder with results, or a cohort"
            raise UsageError(path, "holds no result of wsi-nuc, or none that is finished", remedy)
    else:
        raise UsageError(path, problems_of(path)[0], "give a result such as results/SLIDE.zarr")


def _of_cohort(folder: CohortFolder) -> Iterator[Entry]:
    plan = load(folder)
    for state in states(folder, plan, plan.rows):
        row = state.row
        roi = row.settings.get("roi") or plan.settings.get("roi")
        if state.state == DONE and (done := state.record):
            figures = read_figures(folder, row.id, done.digest) or {}
            more = {
                figure.name: float(value)
                for figure in figures_of(list(figures))
                if isinstance(value := figures[figure.name], int | float) and math.isfinite(value)
            }
            known = Known(done.digest, done.nuclei, done.area_mm2, done.classes, more=more)
            yield Entry(row.label, folder.store(row.id), "", known, row.slide or None, roi)
        else:
            problem = f"{state.state}{': ' * bool(state.error)}{state.error}"
            yield Entry(row.label, folder.store(row.id) if row.id else folder.root, problem)


def outliers_first(rows: Sequence[Json]) -> list[Json]:
    """The rows with a `why` of those that stand out, the farthest first; those that cannot be shown come last."""
    shown = [row for row in rows if not row["state"]]
    names = list(dict.fromkeys(name for row in shown for name in row))
    why: dict[str, list[str]] = {}
    for far in outliers(figures_of(names), shown):
        why.setdefault(far.id, []).append(f"{far.figure.title}: {_short(far.value)}, median {_short(far.median)}")
    for row in shown:
        if not row["nuclei"]:
            why.setdefault(row["id"], []).append("no nuclei")
    order = {number: i for i, number in enumerate(why)}
    ranked = sorted(shown, key=lambda row: order.get(row["id"], len(order)))
    return [
        *({**row, "why": why.get(row["id"], [])} for row in ranked),
        *(row for row in rows if row["state"]),
    ]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
