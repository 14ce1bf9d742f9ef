"""What a call of the program costs.

`python -m benchmarks.command ARGUMENTS` makes one call and prints its peak memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.child import peak_mib


@dataclass(frozen=True)
class Cost:
    wall_s: float
    cpu_s: float
    """Of all processes that it started. Other work on the machine lengthens it less than the wall time."""
    peak_mib: float
    """Of its first process."""
    said: str
    """On standard error."""


def cost_of(*arguments: object) -> Cost:
    """A call that does not end with 0 is an error, since its cost says nothing."""
    before, started = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.command", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    try:
        *said, last = done.stderr.splitlines()
        peak, code = json.loads(last)
    except ValueError:
        code = done.returncode or 1
    if code:
        raise RuntimeError(done.stderr[-2000:])
    return Cost(wall, cpu, peak, "\n".join(said))


def main() -> None:
    from wsi_nuc.cli import main as program

    code: object = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    print(json.dumps([peak_mib(), code]), file=sys.stderr)


if __name__ == "__main__":
    main()
