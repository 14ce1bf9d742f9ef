"""Run the installed command as a user does, in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "wsi_nuc"]


def with_quick_model(arguments: Sequence[object]) -> list[str]:
    """These tests hold for any model, so unless they name one the quickest is used."""
    given = [str(argument) for argument in arguments]
    if (given[:1] == ["run"] or given[:2] == ["cohort", "plan"]) and "--model" not in given:
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


def wait_until_it_listens(process: subprocess.Popen[str], timeout: float = 60) -> None:
    """Wait until the command handles signals itself, also on a busy machine: before that Python dies of them."""
    bit, end = 1 << (signal.SIGUSR1 - 1), time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) & bit:
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args} does not listen to signals")


def answers(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def manifest(store: Path | str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((Path(store) / "manifest.json").read_text())
    return read


def digest(store: Path | str) -> str:
    return str(manifest(store)["digest"])
