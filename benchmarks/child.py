"""One run in a process of its own: prints one JSON line with its times and the peak memory of the main process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def measured_run(slides: list[Path], **options: Any) -> dict[str, Any]:
    """Run the slides with the given configuration; an empty output folder each time."""
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as out:
        call = json.dumps({"slides": [str(slide) for slide in slides], "out": out, "born": time.time(), **options})
        command = [sys.executable, "-m", "benchmarks.child", call]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


def peak_mib() -> float:
    """Peak since this program started; ru_maxrss would begin with the size of the process that started it."""
    peak_kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(peak_kib[1]) / 1024 if peak_kib else float("nan")


def main() -> None:
    from wsi_nuc.config import RunConfig
    from wsi_nuc.events import Event, RegionFinished
    from wsi_nuc.features.running import run_slides

    call = json.loads(sys.argv[1])
    born = call.pop("born")  # the system's own record of when a process began may be a second off
    region_starts: list[float] = []
    tiles = 0
    work: dict[str, float] = {}

    def emit(event: Event) -> None:
        nonlocal tiles
        if isinstance(event, RegionFinished):
            tiles += event.tiles
            region_starts.append(time.time() - sum(event.seconds.values()) - born)
            for stage, seconds in event.seconds.items():
                work[stage] = work.get(stage, 0.0) + seconds

    slides = call.pop("slides")
    started = time.perf_counter()
    results = list(run_slides(RunConfig(**{"model": "classical", **call}), slides, emit))
    wall = time.perf_counter() - started
    failed = [result.error for result in results if result.error]
    if failed:
        raise SystemExit(failed[0])
    answer = {
        "wall_s": wall,
        "first_region_s": min(region_starts, default=float("nan")),
        "tiles": tiles,
        "regions": len(region_starts),
        "nuclei": sum(result.nuclei for result in results),
        "worker_s": work,
        "peak_mib": peak_mib(),
        "files": [json.loads((Path(r.store) / "manifest.json").read_text())["files"] for r in results],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
