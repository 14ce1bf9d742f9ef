"""The plan for people: a CSV with a line a slide."""

from __future__ import annotations

from typing import Any

from wsi_nuc.cohort.cells import to_csv
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, PlanRow
from wsi_nuc.slides.address import shown

FACTS = (
    "reader",
    "width_px",
    "height_px",
    "mpp",
    "mpp_source",
    "bytes",
    "tissue_share",
    "area_mm2",
    "tiles",
    "regions",
)
SETTINGS = ("mpp", "roi", "tissue", "model")


def write_table(folder: CohortFolder, plan: Plan) -> None:
    kept = sorted({name for row in plan.rows for name in row.kept})
    header = ["line", "id", "patient", "slide", "will_run", "problem", "store", *FACTS, "warnings"]
    header += [f"given_{name}" for name in SETTINGS] + kept
    lines = [_cells(folder, row, kept, bool(plan.settings.get("pack"))) for row in plan.rows]
    folder.write(folder.plan_table, to_csv(header, lines))


def _cells(folder: CohortFolder, row: PlanRow, kept: list[str], packed: bool) -> list[Any]:
    store = str(folder.store(row.id, packed).relative_to(folder.root)) if row.id and row.retriable else ""
    first = [row.line, row.id, row.patient, shown(row.slide), not row.problem, row.problem, store]
    facts = [getattr(row.facts, name, "") for name in FACTS]
    warnings = "; ".join(row.facts.warnings) if row.facts else ""
    given = [row.settings.get(name, "") for name in SETTINGS]
    return [*first, *facts, warnings, *given, *(row.kept.get(name, "") for name in kept)]
