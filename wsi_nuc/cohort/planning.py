"""From a list to a plan: every slide is looked at by the workers, a bad one costs itself.

What was seen is kept as it comes, so a plan that was stopped goes on where it was, and several jobs may look at a
share each before the plan is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from wsi_nuc.cohort.draft import Draft, failed, read_draft
from wsi_nuc.cohort.estimate import estimate, to_try
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.inspect import Trial, content_of, look_at, try_out
from wsi_nuc.cohort.looks import Looks
from wsi_nuc.cohort.plan import Facts, Plan, PlanRow, refuse_other
from wsi_nuc.cohort.shards import Shard
from wsi_nuc.cohort.twins import find_twins, refuse_twin
from wsi_nuc.config import RunConfig
from wsi_nuc.executors.base import Executor, Outcome
from wsi_nuc.run.executor import make_executor

Execute = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Outcome[Any, Any]]]


class Listener:
    """Hears how the planning goes; this one does not care."""

    def looked(self, done: int, of: int, before: int) -> None:
        """So many slides are known, so many of those from an earlier call."""

    def refused(self, row: PlanRow) -> None:
        """This slide cannot run; told as soon as it is clear."""


def make_plan(
    folder: CohortFolder, source: str, config: RunConfig, listener: Listener | None = None, overwrite: bool = False
) -> Plan:
    """The plan of the list at `source`. It is not saved; another one that has to stay is told at once."""
    draft = read_draft(source, config)
    refuse_other(folder, draft.plan, overwrite)
    with _planning(folder, draft, listener or Listener()) as planning:
        rows = planning.without_twins(planning.looked_at(draft.rows))
        good = [row for row in rows if not row.problem]
        trials = planning.trials(to_try(good))
        planning.looks.keep_only([look.key for look in draft.looks.values()])
    return replace(draft.plan, rows=tuple(rows), estimate=estimate(good, trials))


def look_at_share(
    folder: CohortFolder, source: str, config: RunConfig, shard: Shard, listener: Listener | None = None
) -> list[PlanRow]:
    """Look at every n-th line of the list, for the plan that is made afterwards."""
    draft = read_draft(source, config)
    with _planning(folder, draft, listener or Listener()) as planning:
        return planning.looked_at(draft.rows[shard.index - 1 :: shard.count])


@dataclass(frozen=True)
class _Planning:
    """`looks` is what was seen; `execute` has the workers do what was not."""

    draft: Draft
    looks: Looks
    execute: Execute
    listener: Listener

    def looked_at(self, rows: Sequence[PlanRow]) -> list[PlanRow]:
        """The rows with their facts, or with the reason why there are none."""
        for row in rows:
            if row.problem:
                self.listener.refused(row)
        wanted = [row.line for row in rows if row.line in self.draft.looks]
        by_line = {row.line: row for row in rows}
        before = sum(self.looks.get(self.draft.looks[line].key, "facts") is not None for line in wanted)
        for done, (line, facts, error) in enumerate(self._known_or_done(wanted, "facts", look_at), 1):
            if error is not None:
                by_line[line] = failed(by_line[line], error)
                self.listener.refused(by_line[line])
            else:
                by_line[line] = replace(by_line[line], facts=Facts.of(facts))
            self.listener.looked(done, len(wanted), before)
        return list(by_line.values())

    def without_twins(self, rows: Sequence[PlanRow]) -> list[PlanRow]:
        """The second copy of a slide is refused. Only slides with equally many bytes are read for this."""

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
        """Line, value as JSON has it, and error: first of what is known, then of the others as they are done."""
        looks = [self.draft.looks[line] for line in lines]
        known = {look.line: self.looks.get(look.key, name) for look in looks}
        yield from ((line, value, None) for line, value in known.items() if value is not None)
        for outcome in self.execute(do, [look for look in looks if known[look.line] is None]):
            value = outcome.result
            if value is not None:
                value = value if isinstance(value, str) else asdict(value)
                self.looks.put(outcome.task.key, name, value)
            yield outcome.task.line, value, outcome.error


@contextmanager
def _planning(folder: CohortFolder, draft: Draft, listener: Listener) -> Iterator[_Planning]:
    """Workers are started when there is something to do for them."""
    started: list[Executor] = []

    def execute(do: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Outcome[Any, Any]]:
        if tasks and not started:
            started.append(make_executor(draft.config, draft.device))
        return started[0].run(do, tasks) if tasks else iter(())

    try:
        with Looks(folder) as looks:
            yield _Planning(draft, looks, execute, listener)
    finally:
        for executor in started:
            executor.close()
