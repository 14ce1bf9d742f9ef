"""The stored fingerprints of the results numbers. `python -m tests.results.stored [NAME ...]` stores them anew."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.results.fingerprints import OF, Fingerprint, fingerprint
from wsi_nuc import results_numbers
from wsi_nuc.results_numbers import NUMBERS

FILE = Path(__file__).with_name("stored.json")
STORE = "`python -m tests.results.stored`"
RELATIVE, ABSOLUTE = 1e-4, 1e-6


def load() -> dict[str, Any]:
    """Name of a number -> `number` and `fingerprint`."""
    stored: dict[str, Any] = json.loads(FILE.read_text())
    return stored


def store(names: Sequence[str] = tuple(OF)) -> None:
    current = load() | {name: {"number": NUMBERS[name], "fingerprint": fingerprint(name)} for name in names}
    FILE.write_text(json.dumps(current, indent=1, sort_keys=True) + "\n")


def raise_number(name: str) -> None:
    """Raise a number in `wsi_nuc/results_numbers.py`, and store what it stands for from now on."""
    module, before = Path(results_numbers.__file__), f'"{name}": {NUMBERS[name]}'
    NUMBERS[name] += 1
    text = module.read_text()
    assert text.count(before) == 1, f"{module} has no single {before}"
    module.write_text(text.replace(before, f'"{name}": {NUMBERS[name]}'))
    store([name])


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where two fingerprints differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f"{place}/{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{place}[{i}]")
    elif isinstance(before, float) and isinstance(now, int | float):
        if not math.isclose(before, now, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            yield f"{place}: {before} -> {now}"
    elif before != now:
        yield f"{place}: {before} -> {now}"


def verdict(name: str, stored: dict[str, Any], now: Fingerprint, number: int) -> str:
    """What to do about a fingerprint; "" if nothing."""
    differing = list(differences(stored["fingerprint"], now))
    shown = "\n  ".join(differing[:8])
    if differing and number == stored["number"]:
        first = list(OF)[: list(OF).index(name)]
        unless = f" (only this one if none of {', '.join(first)} fails as well)" if first else ""
        return (
            f"the results that the number {name!r} stands for have changed:\n  {shown}\nIf that is meant, "
            f"raise {name!r} in wsi_nuc/results_numbers.py{unless}, then {STORE}"
        )
    if differing:
        return f"the number {name!r} was raised: store what it stands for now by {STORE}"
    if number != stored["number"]:
        return (
            f"the number {name!r} was raised from {stored['number']} to {number}, but its results are the same "
            f"within the tolerance: put it back, or, if only last bits have changed, {STORE}"
        )
    return ""


if __name__ == "__main__":
    store(sys.argv[1:] or tuple(OF))
