"""Run the installed command as a user does, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "wsi_nuc"]


def with_quick_model(arguments: Sequence[object]) -> list[str]:
    """What these tests ask of a run holds for any model, so unless they name one the quickest does the work."""
    given = [str(one) for one in arguments]
    if given[:1] == ["run"] and "--model" not in given:
        given += ["--model", "classical"]
    return given


def wsi_nuc(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *with_quick_model(arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *with_quick_model(arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def answers(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def manifest(store: Path | str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((Path(store) / "manifest.json").read_text())
    return read


def digest(store: Path | str) -> str:
    return str(manifest(store)["digest"])
