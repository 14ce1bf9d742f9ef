"""Finds slides that are in two lines of a list, first by size and then by content: they would count twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import PlanRow
from wsi_nuc.cohort.records import DONE, FAILED
from wsi_nuc.cohort.state import RUNNING, State
from wsi_nuc.errors import USAGE, SlideError
from wsi_nuc.slides.address import shown
from wsi_nuc.slides.identity import content_sha256, stat_signature
from wsi_nuc.store.manifest import owner_of
from wsi_nuc.types import SlideRef

Contents = Callable[[Sequence[PlanRow]], Mapping[int, str]]


def refuse_twin(row: PlanRow, twin: PlanRow, what: str) -> PlanRow:
    """The row refused as a copy. `what`: what the two have in common."""
    patients = f" (there of patient {twin.patient!r})" if row.patient != twin.patient else ""
    cause = f"is the same {what} as line {twin.line}{patients}; leave one of the two lines out"
    return row.refused(f"{shown(row.slide)}: {cause}", USAGE)


def find_twins(rows: Sequence[PlanRow], sizes: Mapping[int, int], contents: Contents) -> dict[int, PlanRow]:
    """The original of each copy, by the copy's line. The first of equal slides in `rows` is the original.

    `sizes` are bytes by line. `contents` gives hashes by line; it is only called for slides of the same size.
    """
    by_size: dict[int, list[PlanRow]] = defaultdict(list)
    for row in rows:
        if row.line in sizes:
            by_size[sizes[row.line]].append(row)
    suspects = [row for group in by_size.values() if len(group) > 1 for row in group]
    known = contents(suspects) if suspects else {}
    first: dict[str, PlanRow] = {}
    twins: dict[int, PlanRow] = {}
    for row in suspects:
        if row.line in known and first.setdefault(known[row.line], row) is not row:
            twins[row.line] = first[known[row.line]]
    return twins


def size_of(slide: str) -> int:
    """Bytes of all files of a slide."""
    return sum(size for _, size, *_ in stat_signature(SlideRef(slide)))


def late_twins(folder: CohortFolder, slides: Sequence[State]) -> dict[int, PlanRow]:
    """As `find_twins`, for slides that the plan could not inspect, or that failed, among all slides of the cohort.

    Slides that are done, running or as planned count as originals first, then the order of the list decides. So
    all jobs agree at all times, and one slide never counts as two.
    """
    ranked = sorted(slides, key=lambda state: (unsure(state), state.row.line))
    sizes = {state.row.line: size for state in ranked if (size := _size(state)) is not None}
    asked = {sizes[state.row.line] for state in ranked if unsure(state) and state.row.line in sizes}
    stores = {state.row.line: folder.store(state.row.id) for state in ranked if state.state == DONE}

    def contents(rows: Sequence[PlanRow]) -> dict[int, str]:
        hashes = {}
        for row in rows:
            with suppress(SlideError):
                stored = owner_of(stores[row.line]) if row.line in stores else ""
                hashes[row.line] = stored or content_sha256(SlideRef(row.slide))
        return hashes

    near = {line: size for line, size in sizes.items() if size in asked}
    return find_twins([state.row for state in ranked], near, contents)


def unsure(state: State) -> bool:
    """True if it failed, or if the plan could not inspect it: its file may have been replaced since."""
    return state.state not in (DONE, RUNNING) and (state.state == FAILED or bool(state.row.problem))


def _size(state: State) -> int | None:
    """Bytes of the slide; None if it is missing or never runs."""
    if state.row.facts and not unsure(state):
        return state.row.facts.bytes
    with suppress(SlideError):
        return size_of(state.row.slide) if state.row.retriable else None
    return None
