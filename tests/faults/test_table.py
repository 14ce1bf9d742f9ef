"""docs/faults.md lists every row with the test that injects its fault, and each row has exactly one."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"
ROWS = range(1, 38)
_TEST = re.compile(r"test_row_(\d\d)_\w+")


def named_by_row() -> list[str]:
    """The names of all functions of this folder that inject the fault of a row."""
    trees = [ast.parse(path.read_text()) for path in sorted(Path(__file__).parent.glob("test_*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [name for name in names if _TEST.fullmatch(name)]


def row_of(test: str) -> int:
    match = _TEST.fullmatch(test)
    assert match
    return int(match[1])


def table_rows() -> dict[int, str]:
    """The lines of the table by their row."""
    lines = [line for line in TABLE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(lines) == len(ROWS)
    return {int(line.split("|")[1]): line for line in lines}


def test_every_row_has_exactly_one_test() -> None:
    count = Counter(map(row_of, named_by_row()))
    assert {row for row in ROWS if not count[row]} == set(), "rows without a test"
    assert {row for row in count if row not in ROWS or count[row] > 1} == set(), (
        "unknown rows, or rows with two tests"
    )


def test_the_table_names_the_test_of_every_row() -> None:
    lines, tests = table_rows(), {row_of(test): test for test in named_by_row()}
    assert sorted(lines) == list(ROWS)
    assert [row for row, test in tests.items() if f"`{test}`" not in lines[row]] == []
    assert [row for row in lines if _TEST.search(lines[row]) and row not in tests] == []
