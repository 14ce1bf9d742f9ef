"""The plan of a cohort: for every line of the list what will run and where its result goes, or why it cannot run.

It is saved as JSON for the jobs, and as a CSV with one line per slide for people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import wsi_nuc
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.config import EXECUTION, RunConfig
from wsi_nuc.configuring import check_keys, with_settings
from wsi_nuc.errors import OK, SLIDES, UsageError
from wsi_nuc.results_numbers import NUMBERS
from wsi_nuc.slides.address import shown
from wsi_nuc.store.flat import to_csv
from wsi_nuc.store.manifest import canonical

FORMAT = 1
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


@dataclass(frozen=True, slots=True)
class Facts:
    """What the inspection of a slide has shown."""

    reader: str
    width_px: int
    height_px: int
    mpp: float
    """Microns per level-0 pixel."""
    mpp_source: str
    """Where `mpp` comes from: "--mpp", or a tag of the header."""
    bytes: int
    """Of all files of the slide."""
    tissue_share: float
    """Tissue as a share of the slide's area, 0 to 1."""
    area_mm2: float
    """Area of the tissue."""
    tiles: int
    """Tiles that will be computed: the slide's weight in a shard."""
    regions: int
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, read: Mapping[str, Any]) -> Facts:
        """From JSON."""
        return cls(**{**read, "warnings": tuple(read["warnings"])})


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line of the list, and whether it will run."""

    line: int
    id: str
    """Names the result; "" if the line has no usable id."""
    slide: str
    patient: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its own mpp, roi, tissue and model."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """The cells of all other columns."""
    facts: Facts | None = None
    problem: str = ""
    """Why it cannot run; "" if it will run."""
    exit_code: int = OK
    """Of a problem: that of a slide (it may be mended and retried) or of usage (the list has to be mended)."""

    def refused(self, problem: str, exit_code: int) -> PlanRow:
        return replace(self, problem=problem, exit_code=exit_code)

    @property
    def tiles(self) -> int:
        return self.facts.tiles if self.facts else 0

    @property
    def retriable(self) -> bool:
        return self.exit_code in (OK, SLIDES)

    @property
    def label(self) -> str:
        """For messages: the id, or the line if there is no usable id."""
        return self.id or f"line {self.line}"

    def named(self, error: str) -> str:
        return f"{self.label}: {error}" if error else ""

    def cells(self) -> dict[str, str]:
        """Its cells by column of the list, as `--only` and the tables see them."""
        own = {"id": self.id, "slide": shown(self.slide), "patient": self.patient}
        given = {key: str(value) for key, value in self.settings.items() if value is not None}
        return {**self.kept, **given, **own}


@dataclass(frozen=True, slots=True)
class Plan:
    """All lines of the list, and what the jobs of the cohort have in common."""

    settings: dict[str, Any]
    """Settings of the run that show in results, and whether results are packed."""
    rows: tuple[PlanRow, ...]
    notes: tuple[str, ...] = ()
    """What the list left out."""
    estimate: dict[str, float] = field(default_factory=dict)
    """Time, memory and disk of the whole: see `estimate.estimate`."""

    @property
    def runnable(self) -> list[PlanRow]:
        return [row for row in self.rows if not row.problem]

    @property
    def refused(self) -> list[PlanRow]:
        return [row for row in self.rows if row.problem]

    def config(self, folder: CohortFolder, execution: Mapping[str, Any]) -> RunConfig:
        """The configuration of a job: the plan's settings, and this job's own options of how to run."""
        return RunConfig(**{**self.settings, **execution, "out": folder.results})

    def key(self, row: PlanRow) -> str:
        """A hash of what a record of this row depends on. If it changes the row is pending again.

        That happens with another slide or setting, and when any results number is raised. If the number is that of
        another model, the run finds the published result still valid.
        """
        settings = {key: value for key, value in self.settings.items() if key not in EXECUTION}
        made_from = [row.slide, dict(row.settings), settings, NUMBERS]
        return hashlib.sha256(canonical(made_from)).hexdigest()[:16]

    def document(self) -> dict[str, Any]:
        return {"format": FORMAT, "wsi_nuc": wsi_nuc.__version__, **asdict(self)}


def result_settings(config: RunConfig) -> dict[str, Any]:
    dumped = config.model_dump(mode="json", exclude={"out"})
    shown = {key: value for key, value in dumped.items() if key not in EXECUTION}
    return {**shown, "pack": True} if config.pack else shown


def refuse_other(folder: CohortFolder, plan: Plan, overwrite: bool) -> None:
    """Raise if there is another plan already, unless `overwrite` allows to replace it."""
    if folder.plan.exists() and not overwrite and _asked(load(folder)) != _asked(plan):
        raise UsageError(
            folder.plan,
            "there is another plan already",
            "pass --overwrite to replace it (results are kept), or choose another --out",
        )


def save(folder: CohortFolder, plan: Plan, overwrite: bool) -> None:
    refuse_other(folder, plan, overwrite)
    data = json.dumps(plan.document(), indent=1, sort_keys=True, allow_nan=False).encode()
    folder.write(folder.plan, data + b"\n")


def _asked(plan: Plan) -> Any:
    """The part of a plan that stays the same even if a slide is mended or the machine is faster."""
    rows = [replace(row, facts=None, problem="", exit_code=OK) for row in plan.rows]
    return json.loads(json.dumps(replace(plan, rows=tuple(rows), notes=(), estimate={}).document()))


def load(folder: CohortFolder) -> Plan:
    try:
        read = json.loads(folder.plan.read_bytes())
    except FileNotFoundError:
        remedy = "make it: wsi-nuc cohort plan LIST.csv --out " + str(folder.root)
        raise UsageError(folder.root, "has no plan", remedy) from None
    except (OSError, ValueError) as error:
        raise UsageError(folder.plan, f"cannot be read ({error})", "plan the cohort again") from None
    _ = folder.top  # Checks the folder before anything works in it.
    try:
        if read["format"] != FORMAT:
            raise UsageError(folder.plan, f"has format {read['format']!r}, not {FORMAT}", "plan the cohort again")
        rows = tuple(_row(row) for row in read["rows"])
        return Plan(read["settings"], rows, tuple(read["notes"]), read["estimate"])
    except (KeyError, TypeError) as error:
        raise UsageError(folder.plan, f"is not a plan ({error})", "plan the cohort again") from None


def _row(read: dict[str, Any]) -> PlanRow:
    return PlanRow(**{**read, "facts": Facts.of(read["facts"]) if read["facts"] else None})


def check_execution(given: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Options of one job. Those that show in results are refused, since the plan has settled them."""
    wanted = {key: value for key, value in given.items() if value is not None}
    check_keys(wanted, RunConfig, "--set")
    settled = sorted(key for key in wanted if key not in EXECUTION or key == "out")
    if settled:
        where = f"wsi-nuc cohort plan ... --out {root}"
        raise UsageError(
            f"--set {settled[0]}", "is part of the plan: all jobs of a cohort share it", f"use {where}"
        )
    with_settings(RunConfig(out=root), wanted)
    return wanted


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
