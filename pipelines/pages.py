"""The code blocks of a page of docs/, run in order in one folder, as a reader would run them.

Blocks in `sh` and `python` run; a `text` block right below is what one prints (`...` for anything). A block that
cannot run says why in a comment above it: `<!-- not run: REASON -->`.

python -m pipelines.pages docs/tutorials/slide-to-figure.md --folder out
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
RUN = {"sh": ("sh", "-e", "-c"), "python": (sys.executable, "-c")}
SHOWN = ("csv", "json", "sql", "text", "yaml")
LIMIT_S = 900
_BLOCK = re.compile(
    r"(?:^ *<!-- not run:(?P<reason>[^>]*)-->\n)?"
    r"^(?P<indent> *(?:\d+\. )?)```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^ *```$"
    r"(?:\n\s*^ *```text\n(?P<prints>.*?)^ *```$)?",
    re.MULTILINE | re.DOTALL,
)
_SHOWN = re.compile(r"\]\((?!https?:)([^)\s]+\.(?:png|jpg|html))\)")


class PageError(Exception):
    """A page cannot be followed: the message names the page and the line."""


@dataclass(frozen=True, slots=True)
class Block:
    """A code block that a reader is meant to run."""

    place: str
    """The page and the line."""
    language: str
    code: str
    prints: str
    """Lines of its output, in order; "" if the page shows none."""


def blocks(page: Path) -> Iterator[Block]:
    """The blocks that run. PageError for a language that is not known, and for a block that is left out without a
    reason."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        place, language = f"{page.name}, line {line}", match["language"]
        if match["reason"] is not None:
            if not match["reason"].strip():
                raise PageError(f"{place}: is not run, and the page does not say why")
        elif language in RUN:
            yield Block(place, language, textwrap.dedent(match["code"]), textwrap.dedent(match["prints"] or ""))
        elif language not in SHOWN:
            raise PageError(f"{place}: a block in {language!r}; known: {', '.join((*RUN, *SHOWN))}")


def run(page: Path, folder: Path) -> None:
    """Run the blocks of a page; PageError for the first that fails or prints something else than the page says."""
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for block in blocks(page):
        done = subprocess.run(
            [*RUN[block.language], block.code],
            cwd=folder,
            env=os.environ | here | {"MPLBACKEND": "Agg", "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if done.returncode:
            raise PageError(f"{block.place}: ended with {done.returncode}\n{block.code}\n{done.stdout[-3000:]}")
        if lines := block.prints.splitlines():
            likely = "(?s:.*)\n".join(re.escape(line.rstrip()).replace(r"\.\.\.", ".*") for line in lines)
            if not re.search(f"(?m)^{likely}", done.stdout):
                raise PageError(f"{block.place}: prints\n{done.stdout}\nand not\n{block.prints}")


def made(page: Path) -> list[str]:
    """The pictures and pages that a page shows and its blocks make: those that are not among the documents."""
    shown = _SHOWN.findall(page.read_text(encoding="utf-8"))
    return [name for name in dict.fromkeys(shown) if not (page.parent / name).exists()]


def main(page: Path, folder: Annotated[Path, typer.Option(help="Where its blocks run.")] = Path("out")) -> None:
    """Run the blocks of a page."""
    folder.mkdir(parents=True, exist_ok=True)
    run(page, folder)


if __name__ == "__main__":
    typer.run(main)
