"""How fast a slide goes through the default model, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows
from wsi_nuc.inference.outlines import trace
from wsi_nuc.models.registry import load_model
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import Box, SlideRef, Tile, TileBatch

EDGE, SMALL_EDGE = 8192, 2560
Answer = TypeVar("Answer")


def measure(small: bool = False) -> list[Row]:
    edge = SMALL_EDGE if small else EDGE
    slide = synthetic("default.svs", edge, seed=11, tissue=1.0)
    run = measured_run([slide], model="default")
    speed = edge**2 / 1e6 / run["wall_s"]
    rows = [
        Row("run, whole slide", speed, "Mpx/s", ">= 2", speed >= 2),
        Row("first region after the start", run["first_region_s"], "s", "<= 5", run["first_region_s"] <= 5),
        Row("memory of the main process", run["peak_mib"], "MiB", "<= 2048", run["peak_mib"] <= 2048),
    ]
    seconds = run["worker_s"] | {"predict: " + part: share for part, share in _parts_of_predict(slide).items()}
    whole = sum(value for name, value in run["worker_s"].items())
    predict = sum(value for name, value in seconds.items() if name.startswith("predict: "))
    for name, value in seconds.items():
        share = value / whole if not name.startswith("predict: ") else value / predict * seconds["predict"] / whole
        rows.append(Row(f"share of the workers' time: {name}", share))
    return rows


def _parts_of_predict(slide: Path) -> dict[str, float]:
    """Seconds for one tile on one thread."""
    torch.set_num_threads(1)
    model = load_model("default")
    source = open_slide(SlideRef(str(slide)))
    edge = model.spec.core_px + 2 * model.spec.halo_px
    box = Box(0, 0, edge, edge)
    batch = TileBatch(source.read(0, box.shift(2048, 2048)).rgb[None].copy(), (Tile(0, box, box),))
    model.look(batch).prompts.get()
    seconds: dict[str, float] = {}
    look = _timed(seconds, "encoder", lambda: model.look(batch))
    prompts = _timed(seconds, "points", look.prompts.get)
    crops = _timed(seconds, "masks", lambda: look.masks(range(len(prompts))).get())
    _timed(seconds, "polygons", lambda: [trace(masks) for masks in crops])
    return seconds


def _timed(seconds: dict[str, float], name: str, call: Callable[[], Answer]) -> Answer:
    start = time.perf_counter()
    answer = call()
    seconds[name] = time.perf_counter() - start
    return answer


if __name__ == "__main__":
    print_rows(measure())
