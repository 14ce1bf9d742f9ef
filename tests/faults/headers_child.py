"""Run by the tests in a process of its own: slides one after another, and what each of them cost.

`python -m tests.faults.headers_child OUT SLIDE...` prints a JSON object for each slide: exit code, error, seconds
of CPU, and the most memory that the process has used so far.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from tests.faults.one_run import run_one


def peak_mib() -> int:
    """Peak memory. Not from `ru_maxrss`, which begins with the size of the process that started this one."""
    peak_kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak_kib
    return int(peak_kib[1]) // 1024


def main(out: Path, slides: list[str]) -> None:
    for slide in slides:
        started = time.process_time()
        result = run_one(Path(slide), out)
        cost = {"seconds": time.process_time() - started, "peak_mib": peak_mib()}
        print(json.dumps({"exit_code": result.exit_code, "error": result.error, **cost}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
