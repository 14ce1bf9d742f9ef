"""How long a cohort takes and how large it gets, from a few tiles of a few slides that are computed for real."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_nuc.cohort.inspections import Trial
from wsi_nuc.cohort.plan import PlanRow

TRIALS = 3
# Size of a result: per nucleus its polygon, columns and probabilities; per slide the store itself with its
# thumbnail.
BYTES_PER_NUCLEUS, BYTES_PER_SLIDE = 150, 1_000_000
# Time of a slide beside its tiles: opening, searching for tissue, stitching and publishing; and hashing.
SECONDS_PER_SLIDE, HASHED_BYTES_PER_SECOND = 0.5, 300e6


def to_try(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Some slides of small, middle and large area."""
    ranked = sorted((row for row in rows if row.tiles), key=lambda row: (row.tiles, row.line))
    places = sorted({(len(ranked) - 1) * i // max(1, TRIALS - 1) for i in range(TRIALS)}) if ranked else []
    return [ranked[place] for place in places]


def estimate(rows: Sequence[PlanRow], trials: Sequence[Trial]) -> dict[str, float]:
    """`worker_seconds` on this machine, `worker_bytes` of memory and `bytes` of all results, among others.

    Empty if nothing could be tried.
    """
    tried = sum(trial.tiles for trial in trials)
    if not tried:
        return {}
    tiles = sum(row.tiles for row in rows)
    seconds_a_tile = sum(trial.seconds for trial in trials) / tried
    nuclei = round(sum(trial.nuclei for trial in trials) / tried * tiles)
    read = sum(row.facts.bytes for row in rows if row.facts)
    around = SECONDS_PER_SLIDE * len(rows) + read / HASHED_BYTES_PER_SECOND
    return {
        "tiles": tiles,
        "seconds_a_tile": round(seconds_a_tile, 4),
        "worker_seconds": round(seconds_a_tile * tiles + around, 1),
        "worker_bytes": max(trial.rss_bytes for trial in trials),
        "nuclei": nuclei,
        "bytes": nuclei * BYTES_PER_NUCLEUS + len(rows) * BYTES_PER_SLIDE,
    }
