"""A list with all that can be told of it without a look: what is refused already, and what is to be looked at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from wsi_nuc.cohort.inspect import Look
from wsi_nuc.cohort.looks import key_of
from wsi_nuc.cohort.plan import Plan, PlanRow, result_settings
from wsi_nuc.cohort.rows import make_rows
from wsi_nuc.cohort.sheet import read_sheet
from wsi_nuc.config import RunConfig, with_settings
from wsi_nuc.errors import MODEL, ModelError, WsiNucError
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.request import checked_spec
from wsi_nuc.run.resources import resolve_device
from wsi_nuc.run.result import failure

# Only the first bytes of a slide are asked for, and a file server answers many at once.
OPEN_AT_ONCE = 16

Specs = dict[str, ModelSpec]


@dataclass(frozen=True)
class Draft:
    """`looks`: by its line, what is to be done for each slide that may run; `device` of the workers."""

    rows: tuple[PlanRow, ...]
    notes: tuple[str, ...]
    config: RunConfig
    device: str
    looks: dict[int, Look]

    @property
    def plan(self) -> Plan:
        return Plan(result_settings(self.config), self.rows, self.notes)


def read_draft(source: str, config: RunConfig) -> Draft:
    """Every line of the list at `source`. What is wrong with all of them (the list, the model) is raised."""
    sheet = read_sheet(source)
    specs = {config.model: checked_spec(config.model, config.inference)}
    device = resolve_device(config.device, specs[config.model].uses_torch)
    rows = [_with_model(row, config, specs) for row in make_rows(sheet, config)]
    with ThreadPoolExecutor(OPEN_AT_ONCE) as pool:
        opened = list(pool.map(partial(_opened, config=config, specs=specs), rows))
    looks = {look.line: look for _, look in opened if look is not None}
    return Draft(tuple(row for row, _ in opened), sheet.notes, config, device, looks)


def _with_model(row: PlanRow, config: RunConfig, specs: Specs) -> PlanRow:
    """The row's own model is looked up once; one that cannot be used costs the rows that ask for it."""
    name = row.settings.get("model")
    if row.problem or name is None or name in specs:
        return row
    try:
        specs[name] = checked_spec(name, config.inference)
    except ModelError as error:
        return row.refused(str(error), MODEL)
    return row


def _opened(row: PlanRow, config: RunConfig, specs: Specs) -> tuple[PlanRow, Look | None]:
    """What a look needs, or the row refused."""
    if row.problem:
        return row, None
    try:
        own = with_settings(config, row.settings)
        spec = specs[row.settings.get("model", config.model)]
        device = resolve_device(own.device, spec.uses_torch)
        return row, Look(row.line, row.slide, own, spec, device, key_of(row.slide, own, spec))
    except WsiNucError as error:
        return failed(row, error), None


def failed(row: PlanRow, error: Exception) -> PlanRow:
    told = failure(row.slide, error, 0.0)
    return row.refused(told.error, told.exit_code)
