"""The viewer in a real browser without a GPU: first picture, pan and zoom, memory, and hostile requests.

A million nuclei lie on a slide of 50,000 px (see `lattice`). The page is opened in headless Chromium with 1440 x
900 px, on the same processors as the server. A move counts until all nuclei of the view are painted. Moves are by
a part of a screen, by steps of zoom, and jumps to somewhere else. `--full` also opens ten million nuclei.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from benchmarks.browser import Browser, program
from benchmarks.hostile_requests import hostile
from benchmarks.lattice import make
from benchmarks.table import Row, print_rows


@dataclass(frozen=True)
class Server:
    """A `wsi-nuc view` of its own."""

    address: str
    process: psutil.Process

    @property
    def mib(self) -> float:
        return float(self.process.memory_info().rss) / 2**20


@contextmanager
def viewing(*arguments: object) -> Iterator[Server]:
    command = [sys.executable, "-m", "wsi_nuc", "view", "--no-browser", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address.startswith("http"):
            raise RuntimeError("the viewer does not start")
        yield Server(address, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(20)


COMPLETE = "window.wsiNuc && wsiNuc.complete"
# Resolves with the milliseconds until a picture of the place with all of its nuclei is painted, to the last pixel.
MOVE = """new Promise((done) => {{
  const pane = wsiNuc.panes[0], gl = pane.layer.gl, before = pane.pictures, start = performance.now();
  pane.go({place});
  const look = () => {{
    if (pane.pictures === before || !pane.complete) return setTimeout(look, 1);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    done(performance.now() - start);
  }};
  look();
}})"""


def first_picture(server: Server) -> float:
    """Seconds from the request for the page to tiles and nuclei on the screen, in a fresh browser."""
    with Browser() as browser:
        browser.open(server.address)
        browser.wait(COMPLETE, 120)
        browser.wait("wsiNuc.panes[0].times.tiles")
        times: dict[str, float] = browser.run("wsiNuc.panes[0].times")
        return max(times.values()) / 1000


def moves(server: Server, size: int, count: int) -> dict[str, list[float]]:
    """Milliseconds of each pan, zoom and jump until all nuclei of the view are drawn."""
    chance, taken = random.Random(5), dict[str, list[float]](pan=[], zoom=[], jump=[])
    with Browser() as browser:
        browser.open(server.address)
        browser.wait(COMPLETE, 120)
        while sum(map(len, taken.values())) < count:
            x, y, zoom = (
                chance.uniform(0.2, 0.8) * size,
                chance.uniform(0.2, 0.8) * size,
                chance.choice((0.3, 0.5, 1)),
            )
            taken["jump"].append(_move(browser, x, y, zoom))
            for _ in range(6):
                x, y = (at + chance.uniform(-0.35, 0.35) * 900 / zoom for at in (x, y))
                taken["pan"].append(_move(browser, x, y, zoom))
            for factor in (0.6, 0.6, 0.6, 2, 2, 2):
                zoom *= factor
                taken["zoom"].append(_move(browser, x, y, zoom))
        assert not browser.problems, browser.problems
    return taken


def _move(browser: Browser, x: float, y: float, zoom: float) -> float:
    milliseconds = float(browser.run(MOVE.format(place=f"{{x: {x}, y: {y}, zoom: {zoom}}}")))
    # A hand rests between two moves, too.
    time.sleep(0.25)
    return milliseconds


def measure(small: bool = False, full: bool = False) -> list[Row]:
    with TemporaryDirectory(prefix="wsi-nuc-viewer-") as folder:
        rows = _of_size(Path(folder), 4096 if small else 50_000, small)
        if full:
            rows += _ten_million(Path(folder))
        return rows


def _of_size(folder: Path, size: int, small: bool) -> list[Row]:
    slide, store = make(folder, size)
    with viewing(store, "--slide", slide) as server:
        sent = 240 if small else 10_000
        answered = hostile(server.address, sent)
        rows = [
            Row(f"{sent:,} hostile requests, answered with data", answered, "", "= 0", answered == 0, always=True)
        ]
        if program() is None:
            return [*rows, Row("no Chromium on this machine: nothing else is measured", 0)]
        firsts = [first_picture(server) for _ in range(1 if small else 5)]
        taken = moves(server, size, 13 if small else 130)
        rows.append(Row("first picture, the slowest of several", max(firsts), "s", "<= 2", max(firsts) <= 2))
        for kind, milliseconds in taken.items():
            slow = float(np.percentile(milliseconds, 95))
            target, met = ("-", True) if kind == "jump" else ("<= 100", slow <= 100)
            rows.append(Row(f"{kind} to its nuclei, 95th percentile", slow, "ms", target, met))
        return [*rows, Row("memory of the server", server.mib, "MiB", "< 500", server.mib < 500)]


def _ten_million(folder: Path) -> list[Row]:
    slide, store = make(folder, 158_200)
    with viewing(store, "--slide", slide) as server:
        first = first_picture(server)
        slow = float(np.percentile([each for kind in moves(server, 158_200, 39).values() for each in kind], 95))
        return [
            Row("ten million: first picture", first, "s"),
            Row("ten million: moves to their nuclei, 95th percentile", slow, "ms"),
            Row("ten million: memory of the server", server.mib, "MiB"),
        ]


if __name__ == "__main__":
    print_rows(measure(full="--full" in sys.argv))
