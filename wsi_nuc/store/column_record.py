"""What a column of a result means. Each record stands in the module that makes the column.

Dictionary, command and the metadata of files are made from these records: nothing is described twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

FACTS = ("unit", "about", "range", "empty")
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Pool:
    """How the figure of a patient follows from those of its slides."""

    rule: str
    """"sum"; "mean"; "same" (the value that all slides share, empty if they differ); "given" (the value of all
    slides that have one, empty if they differ); "derived" (from the patient's other columns); "none" (empty)."""
    by: str = ""
    """The column whose values are the weights of a mean."""
    exact: bool = True
    """A mean is what one slide with all of the patient's tissue would have."""

    def __str__(self) -> str:
        if self.rule == "mean":
            kind = "exact: mean" if self.exact else "approximate: mean"
            return f"{kind} over its slides, weighted by `{self.by}`"
        return {
            "sum": "sum over its slides",
            "same": "the value that all of its slides share; empty if they differ",
            "given": "the value that its slides give, failed ones too; empty if they differ",
            "derived": "exact: computed from the patient's other columns",
        }.get(self.rule, "empty")


SUM, SAME, GIVEN, DERIVED, NONE = (Pool(rule) for rule in ("sum", "same", "given", "derived", "none"))


def mean_by(weight: str) -> Pool:
    return Pool("mean", weight)


def about_mean_by(weight: str) -> Pool:
    """For what cannot be pooled exactly from figures of slides."""
    return Pool("mean", weight, exact=False)


@dataclass(frozen=True, slots=True)
class Column:
    """The meaning of one column, or of all columns of a pattern."""

    name: str
    """`{class}`, `{other}`, `{feature}` and `{number}` stand for the part that differs."""
    unit: str
    about: str
    """What it is, with its formula. May hold the placeholders of the name."""
    range: str
    empty: str = "never"
    """When it has no value."""
    family: str = ""
    """For a feature, or a figure of a slide: which of the families it belongs to."""
    kind: type = float
    """str, int or float; only in tables of cohorts."""
    patient: Pool = NONE
    """Only in tables of cohorts."""

    def filled(self, name: str) -> Column | None:
        """The record of the column `name`; None if the name does not fit the pattern."""
        parts = PLACEHOLDER.split(self.name)
        pattern = "".join("(.+)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
        match = re.fullmatch(pattern, name, re.DOTALL)
        return None if match is None else self.with_(dict(zip(parts[1::2], match.groups(), strict=True)))

    def with_(self, values: dict[str, str]) -> Column:
        """The placeholders replaced."""

        def fill(text: str) -> str:
            return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)

        pool = replace(self.patient, by=fill(self.patient.by))
        return replace(self, name=fill(self.name), about=fill(self.about), patient=pool)

    @property
    def facts(self) -> dict[str, str]:
        """What files say of the column."""
        of_patient = {} if self.patient == NONE else {"patient": str(self.patient)}
        return {**{fact: getattr(self, fact) for fact in FACTS}, **of_patient}


def find(columns: Iterable[Column], name: str) -> Column:
    """The record of the column `name`, with its placeholders replaced. KeyError if there is none.

    A plain name comes before a pattern, and a pattern with more letters of its own before one with fewer.
    """
    for column in sorted(columns, key=lambda column: ("{" in column.name, -len(PLACEHOLDER.sub("", column.name)))):
        filled = column.filled(name)
        if filled is not None:
            return filled
    raise KeyError(name)


def described(schema: Any, columns: Sequence[Column]) -> Any:
    """An Arrow schema whose fields say what they mean. `columns`: one record per field, in any order."""
    import pyarrow as pa

    facts = {column.name: column.facts for column in columns}
    return pa.schema([field.with_metadata(facts[field.name]) for field in schema])
