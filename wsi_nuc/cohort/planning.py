"""Planning a cohort: from a list of slides to a plan, in three steps.

First the list is read, and lines that cannot run are refused without being inspected (`read_draft`). Then the
workers inspect every other slide; one that fails is refused, and the rest go on. What they see is kept as it
comes, so a plan that was stopped goes on where it was, and several jobs may inspect a share each before the plan
is made. Last, a few tiles of a few slides are computed, and the time and size of the whole are estimated from them
(`estimate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

from wsi_nuc.cohort.estimate import estimate, to_try
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.inspections import Inspection, Inspections, Trial, content_of, inspect_slide, key_of, try_out
from wsi_nuc.cohort.plan import Facts, Plan, PlanRow, refuse_other, result_settings
from wsi_nuc.cohort.rows import make_rows
from wsi_nuc.cohort.shards import Shard
from wsi_nuc.cohort.sheet import read_sheet
from wsi_nuc.cohort.twins import find_twins, refuse_twin
from wsi_nuc.config import RunConfig
from wsi_nuc.configuring import with_settings
from wsi_nuc.errors import MODEL, ModelError, WsiNucError
from wsi_nuc.executors.base import Execute, Executor, Outcome
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.executor import make_executor
from wsi_nuc.run.request import checked_spec
from wsi_nuc.run.resources import resolve_device
from wsi_nuc.run.success_or_failure import failure

# Only the first bytes of each slide are read, and a file server answers many requests at once.
OPEN_AT_ONCE = 16
Specs = dict[str, ModelSpec]


class Listener(Protocol):
    """Hears how the planning goes."""

    def inspected(self, done: int, of: int, before: int) -> None:
        """`done` slides of `of` are known, `before` of them from an earlier call."""

    def refused(self, row: PlanRow) -> None:
        """This slide cannot run. Called as soon as that is clear."""


class _NoListener:
    """In place of the listener of a call that has none: ignores everything."""

    def inspected(self, done: int, of: int, before: int) -> None:
        pass

    def refused(self, row: PlanRow) -> None:
        pass


def make_plan(
    folder: CohortFolder, source: str, config: RunConfig, listener: Listener | None = None, overwrite: bool = False
) -> Plan:
    """Make the plan of the list at `source`, without saving it.

    Raises at once if another plan must not be replaced.
    """
    draft = read_draft(source, config)
    refuse_other(folder, draft.plan, overwrite)
    with _planning(folder, draft, listener or _NoListener()) as planning:
        rows = planning.without_twins(planning.inspected(draft.rows))
        good = [row for row in rows if not row.problem]
        trials = planning.trials(to_try(good))
        planning.inspections.keep_only([inspection.key for inspection in draft.to_inspect.values()])
    return replace(draft.plan, rows=tuple(rows), estimate=estimate(good, trials))


def inspect_share(
    folder: CohortFolder, source: str, config: RunConfig, shard: Shard, listener: Listener | None = None
) -> list[PlanRow]:
    """Inspect every n-th line of the list, for the plan that is made afterwards."""
    draft = read_draft(source, config)
    with _planning(folder, draft, listener or _NoListener()) as planning:
        return planning.inspected(draft.rows[shard.index - 1 :: shard.count])


@dataclass(frozen=True)
class _Planning:
    """The steps of a planning that need workers."""

    draft: Draft
    inspections: Inspections
    """What was seen already."""
    execute: Execute
    """Has the workers do what is missing."""
    listener: Listener

    def inspected(self, rows: Sequence[PlanRow]) -> list[PlanRow]:
        """The rows with their facts, or with the reason why they have none."""
        for row in rows:
            if row.problem:
                self.listener.refused(row)
        wanted = [row.line for row in rows if row.line in self.draft.to_inspect]
        by_line = {row.line: row for row in rows}
        before = sum(self.inspections.get(self.draft.to_inspect[line].key, "facts") is not None for line in wanted)
        for done, (line, facts, error) in enumerate(self._known_or_done(wanted, "facts", inspect_slide), 1):
            if error is not None:
                by_line[line] = failed(by_line[line], error)
                self.listener.refused(by_line[line])
            else:
                by_line[line] = replace(by_line[line], facts=Facts.of(facts))
            self.listener.inspected(done, len(wanted), before)
        return list(by_line.values())

    def without_twins(self, rows: Sequence[PlanRow]) -> list[PlanRow]:
        """Refuse the second copy of a slide. Only slides with the same number of bytes are read for this."""

        def contents(suspects: Sequence[PlanRow]) -> dict[int, str]:
            hashed = self._known_or_done([row.line for row in suspects], "sha256", content_of)
            return {line: sha256 for line, sha256, error in hashed if error is None}

        good = [row for row in rows if row.facts and not row.problem]
        twins = find_twins(good, {row.line: row.facts.bytes for row in good if row.facts}, contents)
        refused = {row.line: refuse_twin(row, twins[row.line], "content") for row in good if row.line in twins}
        for row in refused.values():
            self.listener.refused(row)
        return [refused.get(row.line, row) for row in rows]

    def trials(self, rows: Sequence[PlanRow]) -> list[Trial]:
        tried = self._known_or_done([row.line for row in rows], "trial", try_out)
        return [Trial(**trial) for _, trial, error in tried if error is None]

    def _known_or_done(
        self, lines: Sequence[int], name: str, do: Callable[[Any], Any]
    ) -> Iterator[tuple[int, Any, Exception | None]]:
        """Line, value in JSON types, and error: first those that are known, then the others as they are done."""
        wanted = [self.draft.to_inspect[line] for line in lines]
        known = {inspection.line: self.inspections.get(inspection.key, name) for inspection in wanted}
        yield from ((line, value, None) for line, value in known.items() if value is not None)
        for outcome in self.execute(do, [inspection for inspection in wanted if known[inspection.line] is None]):
            value = outcome.result
            if value is not None:
                value = value if isinstance(value, str) else asdict(value)
                self.inspections.put(outcome.task.key, name, value)
            yield outcome.task.line, value, outcome.error


@contextmanager
def _planning(folder: CohortFolder, draft: Draft, listener: Listener) -> Iterator[_Planning]:
    """Workers are only started once there is something for them to do."""
    started: list[Executor] = []

    def execute(do: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        wanted = list(tasks)
        if wanted and not started:
            started.append(make_executor(draft.config, draft.spec, draft.device))
        return started[0].run(do, wanted) if wanted else iter(())

    try:
        with Inspections(folder) as inspections:
            yield _Planning(draft, inspections, execute, listener)
    finally:
        for executor in started:
            executor.close()


@dataclass(frozen=True)
class Draft:
    """A list as far as it is known without inspecting slides."""

    rows: tuple[PlanRow, ...]
    notes: tuple[str, ...]
    """What the list left out."""
    config: RunConfig
    spec: ModelSpec
    """Of the model that slides have unless their row says otherwise."""
    device: str
    """Of the workers."""
    to_inspect: dict[int, Inspection]
    """The inspection of each slide that may run, by its line."""

    @property
    def plan(self) -> Plan:
        return Plan(result_settings(self.config), self.rows, self.notes)


def read_draft(source: str, config: RunConfig) -> Draft:
    """Read every line of the list at `source`. What is wrong with all of them (the list, the model) is raised."""
    sheet = read_sheet(source)
    spec = checked_spec(config.model, config.inference)
    device, specs = resolve_device(config.device, spec.uses_torch), {config.model: spec}
    rows = [_with_model(row, config, specs) for row in make_rows(sheet, config)]
    with ThreadPoolExecutor(OPEN_AT_ONCE) as pool:
        opened = list(pool.map(partial(_opened, config=config, specs=specs), rows))
    to_inspect = {inspection.line: inspection for _, inspection in opened if inspection is not None}
    return Draft(tuple(row for row, _ in opened), sheet.notes, config, spec, device, to_inspect)


def _with_model(row: PlanRow, config: RunConfig, specs: Specs) -> PlanRow:
    """Look up the row's own model, once for all rows that name it. If it cannot be used those rows are refused."""
    name = row.settings.get("model")
    if row.problem or name is None or name in specs:
        return row
    try:
        specs[name] = checked_spec(name, config.inference)
    except ModelError as error:
        return row.refused(str(error), MODEL)
    return row


def _opened(row: PlanRow, config: RunConfig, specs: Specs) -> tuple[PlanRow, Inspection | None]:
    """The row with its inspection, or the row refused."""
    if row.problem:
        return row, None
    try:
        own = with_settings(config, row.settings)
        spec = specs[row.settings.get("model", config.model)]
        device = resolve_device(own.device, spec.uses_torch)
        return row, Inspection(row.line, row.slide, own, spec, device, key_of(row.slide, own, spec))
    except WsiNucError as error:
        return failed(row, error), None


def failed(row: PlanRow, error: Exception) -> PlanRow:
    result = failure(row.slide, error, 0.0)
    return row.refused(result.error, result.exit_code)
