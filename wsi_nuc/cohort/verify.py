"""Checks every byte of every result against its manifest. A slide whose result does not match is pending again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.state import PENDING, State
from wsi_nuc.run.resources import usable_cpus
from wsi_nuc.store import durable
from wsi_nuc.store.verify import verify

MOST_NAMED = 3


def verified(folder: CohortFolder, slides: Sequence[State]) -> list[State]:
    """The states, with damaged results pending.

    Their records are removed, so that the next job runs them again.
    """
    with ThreadPoolExecutor(usable_cpus()) as pool:
        return list(pool.map(partial(_checked, folder), slides))


def _checked(folder: CohortFolder, state: State) -> State:
    problems = verify(folder.store(state.row.id)) if state.state == DONE else []
    if not problems:
        return state
    record = folder.place(folder.record(state.row.id))
    with durable.reported("remove", record):
        record.unlink()
    more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
    return replace(state, state=PENDING, error=f"its result is damaged: {'; '.join(problems[:MOST_NAMED])}{more}")
