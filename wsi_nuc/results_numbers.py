"""Results numbers: what the identity of a result holds in place of the program's version.

A number is raised exactly when the same input gives other bytes of what it stands for. What was made before then
counts as made with other settings: a result is not replaced without --overwrite, and neither parts of regions nor
records of cohorts are gone on with. As long as no number is raised, a new version goes on with what an old one
began; the version is recorded in the manifest and compared with nothing.

`tests/results` holds what a few small inputs gave when the numbers were last raised, and says which one to raise.
"""

from __future__ import annotations

NUMBERS = {
    "pipeline": 5,  # pixels, tissue, tiles, outlines, stitching, and all that a store consists of
    "classical": 1,
    "compact": 1,
    "instasam": 1,
    "promptnucseg": 1,
    "features": 4,  # measures of nuclei, and the figures of slides in tables of cohorts
    "import": 1,
}


def of_run(model: int) -> dict[str, int]:
    """What the identity of a run's result says; `model`: the number of its model's family."""
    return {"pipeline": NUMBERS["pipeline"], "model": model}


def of_import() -> dict[str, int]:
    return {name: NUMBERS[name] for name in ("pipeline", "import")}
