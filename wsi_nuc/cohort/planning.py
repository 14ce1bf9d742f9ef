"""From a list to a plan: every slide is looked at by the workers, a bad one costs itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from wsi_nuc.cohort.estimate import estimate, to_try
from wsi_nuc.cohort.inspect import Look, content_of, look_at, try_out
from wsi_nuc.cohort.plan import Plan, PlanRow, result_settings
from wsi_nuc.cohort.rows import make_rows
from wsi_nuc.cohort.sheet import read_sheet
from wsi_nuc.cohort.twins import find_twins, refuse_twin
from wsi_nuc.config import RunConfig, with_settings
from wsi_nuc.errors import MODEL, ModelError
from wsi_nuc.executors.base import Executor
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.executor import make_executor
from wsi_nuc.run.resources import resolve_device
from wsi_nuc.run.result import failure
from wsi_nuc.run.session import checked_spec
from wsi_nuc.types import SlideRef

Told = Callable[[int, int], None]


def make_plan(source: str, config: RunConfig, told: Told = lambda done, of: None) -> Plan:
    """`told` hears how many slides were looked at, and of how many."""
    sheet = read_sheet(source)
    specs = {config.model: checked_spec(config.model, config.inference.options)}
    rows = [_with_model(row, config, specs) for row in make_rows(sheet, config)]
    looks = {row.line: _look(row, config, specs) for row in rows if not row.problem}
    device = resolve_device(config.device, specs[config.model].uses_torch)
    with closing(make_executor(config, device)) as executor:
        rows = list(_looked_at(rows, looks, executor, told))
        rows = _without_twins(rows, executor)
        good = [row for row in rows if not row.problem]
        tried = executor.run(try_out, [looks[row.line] for row in to_try(good)])
        trials = [outcome.result for outcome in tried if outcome.result is not None]
    return Plan(result_settings(config), tuple(rows), sheet.notes, estimate(good, trials))


def _with_model(row: PlanRow, config: RunConfig, specs: dict[str, ModelSpec]) -> PlanRow:
    """The row's own model is looked up once; one that cannot be used costs the rows that ask for it."""
    name = row.settings.get("model")
    if row.problem or name is None or name in specs:
        return row
    try:
        specs[name] = checked_spec(name, config.inference.options)
    except ModelError as error:
        return row.refused(str(error), MODEL)
    return row


def _look(row: PlanRow, config: RunConfig, specs: dict[str, ModelSpec]) -> Look:
    own = with_settings(config, row.settings)
    spec = specs[row.settings.get("model", config.model)]
    return Look(row.line, row.slide, own, spec, resolve_device(own.device, spec.uses_torch))


def _looked_at(
    rows: Sequence[PlanRow], looks: dict[int, Look], executor: Executor, told: Told
) -> Iterator[PlanRow]:
    """All rows in their order, with the facts of those that could be looked at."""
    outcomes: dict[int, Any] = {}
    for outcome in executor.run(look_at, list(looks.values())):
        outcomes[outcome.task.line] = outcome
        told(len(outcomes), len(looks))
    for row in rows:
        if row.line not in outcomes:
            yield row
        elif (facts := outcomes[row.line].result) is not None:
            yield replace(row, facts=facts)
        else:
            failed = failure(row.slide, outcomes[row.line].error, 0.0)
            yield row.refused(failed.error, failed.exit_code)


def _without_twins(rows: Sequence[PlanRow], executor: Executor) -> list[PlanRow]:
    """The second copy of a slide is refused. Only slides with equally many bytes are read for this."""

    def contents(suspects: Sequence[PlanRow]) -> dict[int, str]:
        refs = {SlideRef(row.slide): row.line for row in suspects}
        outcomes = executor.run(content_of, list(refs))
        return {refs[outcome.task]: outcome.result for outcome in outcomes if outcome.result is not None}

    good = [row for row in rows if row.facts and not row.problem]
    twins = find_twins(good, {row.line: row.facts.bytes for row in good if row.facts}, contents)
    return [refuse_twin(row, twins[row.line], "content") if row.line in twins else row for row in rows]
