"""The viewer in a real browser without a GPU: first picture, pan and zoom, memory, and requests that want too much.

The slide is a pattern of drawn tissue, 50,000 px wide, at 0.25 um per pixel, in one file whose tiles share their
bytes. On it lies a lattice of a million jittered ellipses with 25 vertices and five classes. The page is opened in
headless Chromium with 1440 x 900 px, on the same processors as the server. A move counts until all nuclei of the
view are drawn; moves are by a part of a screen, by steps of zoom, and jumps to somewhere else. `--full` also opens
ten million nuclei.
"""

from __future__ import annotations

import http.client
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import shapely

from benchmarks.browser import Browser, program
from benchmarks.stitching import noise
from benchmarks.table import Row, print_rows
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store import layout
from wsi_nuc.store.commit import Staging, publish
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import Accounting, Origin, build, identity_key
from wsi_nuc.store.nuclei_columns import NucleiWriter
from wsi_nuc.store.tissue import write_thumbnail, write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.synth.pyramid import jpeg
from wsi_nuc.synth.tiff import RATIONAL, SHORT, TiffFile, entry, rational
from wsi_nuc.types import Box, Float64, Int64, SlideRef, TileCounts, UInt8

MPP, PITCH, CORE, BLOCK, PATTERN, TILE = 0.25, 49, 1024, 4096, 1024, 256
CLASSES = ("epithelial", "inflammatory", "connective", "necrotic", "other")
_ANGLES = np.linspace(0, 2 * np.pi, 25, endpoint=False)


def pattern(folder: Path) -> UInt8:
    """A square of drawn tissue that is repeated all over the slide."""
    small = folder / "pattern.svs"
    write_slide(small, SynthSpec(size=PATTERN, mpp=MPP, seed=2))
    source = open_slide(SlideRef(str(small)))
    rgb = source.read(0, Box(0, 0, PATTERN, PATTERN)).rgb
    source.close()
    return rgb


def write_pattern(path: Path, rgb: UInt8, size: int) -> None:
    """A pyramid of `size` x `size` px in which equal tiles are stored once."""
    resolution = [rational(282, 1e4 / MPP), rational(283, 1e4 / MPP), entry(296, SHORT, [3])]
    assert RATIONAL == resolution[0][1]
    with path.open("wb") as stream:
        tiff = TiffFile(stream, big=True)
        pages = []
        for factor in (1, 4, 16, 64):
            if size // factor < TILE and factor > 1:
                break
            edge = PATTERN // factor
            tall = np.tile(rgb.reshape(edge, factor, edge, factor, 3).mean(axis=(1, 3)).astype(np.uint8), (8, 8, 1))
            period = max(1, edge // TILE)
            stored = {
                (y, x): tiff.add(jpeg(np.ascontiguousarray(tall[y * TILE :, x * TILE :][:TILE, :TILE]), 80))
                for y in range(period)
                for x in range(period)
            } if edge >= TILE else {(0, 0): tiff.add(jpeg(np.tile(tall, (2, 2, 1))[:TILE, :TILE], 80))}
            image = tiff.image(size // factor, size // factor, TILE, (0, 0))
            for (y, x), (offset, count) in stored.items():
                image.offset[y::period, x::period], image.count[y::period, x::period] = offset, count
            pages.append([*tiff.tiled_entries(image, (2, 2)), *resolution])
        tiff.finish(pages)


def nuclei(x0: int, y0: int, size: int) -> NucleiTable:
    """The lattice in a block of the slide."""
    columns, rows = (np.arange(-(-low // PITCH), -(-min(low + BLOCK, size - PITCH) // PITCH)) for low in (x0, y0))
    column, row = (side.ravel() for side in np.meshgrid(columns, rows))
    key = (column + row * 2**20).astype(np.uint64) * np.uint64(64)
    xy = np.column_stack([(side + 0.3 + 0.4 * noise(key, i)) * PITCH for i, side in ((1, column), (2, row))])
    long = 10 + 8 * noise(key, 3)
    short, turn = long * (0.5 + 0.5 * noise(key, 4)), np.pi * noise(key, 5)
    along, across = long[:, None] * np.cos(_ANGLES), short[:, None] * np.sin(_ANGLES)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    ring = np.stack([along * cos - across * sin, along * sin + across * cos], axis=2) + xy[:, None]
    score = (0.3 + 0.7 * noise(key, 6)).astype(np.float32)
    # Classes in large patches with some mixture, so that a density map has something to show.
    waves = [np.sin(xy @ np.array([np.cos(k), np.sin(k)]) / (900 + 400 * k) + k) + noise(key, 7 + k) for k in range(5)]
    probs = np.exp(4 * np.column_stack(waves))
    tiles = -(-size // CORE)
    tile = (xy[:, 1] // CORE).astype(np.int64) * tiles + (xy[:, 0] // CORE).astype(np.int64)
    return NucleiTable(
        xy=ring.reshape(-1, 2),
        offsets=np.arange(len(key) + 1) * len(_ANGLES),
        prompt_xy=xy,
        score=score,
        prompt_score=score,
        predicted_iou=score,
        class_probs=(probs / probs.sum(axis=1, keepdims=True)).astype(np.float32),
        tile=tile,
    )


def make(folder: Path, size: int) -> tuple[Path, Path]:
    """A slide of `size` px, and the result for it."""
    slide, rgb = folder / f"pattern-{size}.tif", pattern(folder)
    write_pattern(slide, rgb, size)
    tiles = -(-size // CORE)

    def cores(tile: Int64) -> Float64:
        low = np.column_stack([tile % tiles, tile // tiles]) * float(CORE)
        return np.hstack([low, low + CORE])

    key = identity_key(content_sha256(SlideRef(str(slide))), "0" * 64, {"model": "lattice"}, {"pipeline": 1})
    stated = {"file": slide.name, "width_px": size, "height_px": size, "mpp": MPP, "mpp_source": "resolution tags"}
    origin = Origin(key, {**stated, "reader": "jpegtiff"}, {"wsi-nuc": "benchmark"})
    with Staging(made_folder(folder), f"{slide.name}.zarr") as staging:
        zarr = ZarrFolder(staging.root)
        area = shapely.box(0, 0, size, size)
        with NucleiWriter(zarr, CLASSES, MPP, cores) as writer:
            for y0 in range(0, size, BLOCK):
                for x0 in range(0, size, BLOCK):
                    writer.append(nuclei(x0, y0, size))
            summary = writer.finish((size * MPP / 1000) ** 2)
        write_tissue(zarr, area, MPP)
        write_thumbnail(zarr, np.tile(rgb[::32, ::32], (-(-size // PATTERN),) * 2 + (1,))[: size // 32, : size // 32], 32.0)
        layout.seal(zarr, origin.key, summary.class_figures)
        counts = {"nuclei": summary.nuclei, "classes": summary.counts, "area_mm2": summary.tissue_mm2}
        accounting = Accounting(TileCounts(processed=tiles * tiles))
        made = publish(staging, origin, lambda root: build(root, origin, accounting, counts, {"seconds": {}}), True)
    return slide, Path(made.path)


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
            x, y, zoom = chance.uniform(0.2, 0.8) * size, chance.uniform(0.2, 0.8) * size, chance.choice((0.3, 0.5, 1))
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


def hostile(address: str, count: int) -> tuple[int, int]:
    """Requests that must not be answered with data: how many were, and how many were sent."""
    parts = urlsplit(address)
    token, host = parts.query.removeprefix("t="), parts.netloc
    cookie = {"Cookie": f"wsi_nuc_{parts.port}={token}"}
    chance, answered = random.Random(9), 0
    for number in range(count):
        method, path, headers, body = _attack(chance, number, token, host, cookie)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            data = reply.read()
            answered += reply.status < 400 or len(data) > 200
        except (http.client.HTTPException, OSError, ValueError):
            pass  # It hung up, which is an answer, too.
        finally:
            connection.close()
    return answered, count


def _attack(
    chance: random.Random, number: int, token: str, host: str, cookie: dict[str, str]
) -> tuple[str, str, list[tuple[str, str]], bytes | None]:
    """Method, path, headers and body of one of many ways to get what one must not get."""
    good, known = [("Host", host), *cookie.items()], "/api/all"
    stray = "".join(chance.choice("abcdefghijklmnopqrstuvwxyzABCDEF0123456789-_") for _ in range(43))
    ups = chance.choice(("../", "..%2f", "%2e%2e/", "..\\", "....//", "%252e%252e%252f")) * chance.randint(1, 9)
    target = chance.choice(("etc/passwd", "manifest.json", "proc/self/environ", "viewer.js", "root/.ssh/id_rsa"))
    ways: list[Any] = [
        lambda: ("GET", f"/{ups}{target}", good, None),
        lambda: ("GET", f"/api/{ups}{target}", good, None),
        lambda: ("GET", f"/static/{ups}{target}", good, None),
        lambda: ("GET", f"/api/{chance.getrandbits(64):016x}/nucleus/1", good, None),
        lambda: ("GET", f"/api/{chance.getrandbits(64):016x}/tile/0/0/0", good, None),
        lambda: ("GET", known, [("Host", chance.choice(("evil.example", f"{host}.evil.example", "0.0.0.0", "", host.split(":")[0]))), *cookie.items()], None),
        lambda: ("GET", known, [*good, ("Host", "evil.example")], None),
        lambda: ("GET", known, cookie_only(cookie), None),
        lambda: ("GET", known, [*good, ("Origin", chance.choice(("http://evil.example", "null", f"https://{host}", "http://127.0.0.1")))], None),
        lambda: ("GET", known, [*good, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", chance.choice(("no-cors", "cors")))], None),
        lambda: ("GET", known, [("Host", host)], None),
        lambda: ("GET", f"{known}?t={token}", [("Host", host)], None),
        lambda: ("GET", f"/?t={stray}", [("Host", host)], None),
        lambda: ("GET", f"/?t={token[:-1]}", [("Host", host)], None),
        lambda: ("GET", known, [("Host", host), ("Cookie", next(iter(cookie.values())).partition("=")[0] + "=" + stray)], None),
        lambda: ("GET", known, [("Host", host), ("Cookie", chance.choice(("=", ";;;", "a" * 9000, f"other={token}")))], None),
        lambda: (chance.choice(("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get")), known, good, None),
        lambda: ("POST", known, [*good, ("Content-Length", "64")], b"x" * 64),
        lambda: ("GET", known, [*good, ("Content-Length", "1000000000000")], b"x"),
        lambda: ("GET", known, [*good, ("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n0\r\n\r\n"),
        lambda: ("GET", f"{known}?{'a' * chance.randint(4200, 14_000)}=1", good, None),
        lambda: ("GET", known, [*good, ("X-Large", "a" * chance.randint(17_000, 60_000))], None),
        lambda: ("GET", f"http://evil.example{known}", [("Host", "evil.example"), *cookie.items()], None),
        lambda: ("GET", f"/{chance.choice(('.git/config', 'api', 'api/', 'index.html', 'LICENSES.txt', 'viewer.js.map', 'favicon.ico'))}", good, None),
    ]
    made: tuple[str, str, list[tuple[str, str]], bytes | None] = ways[number % len(ways)]()
    return made


def cookie_only(cookie: dict[str, str]) -> list[tuple[str, str]]:
    """Without a Host."""
    return list(cookie.items())


def measure(small: bool = False, full: bool = False) -> list[Row]:
    with TemporaryDirectory(prefix="wsi-nuc-viewer-") as folder:
        rows = _of_size(Path(folder), 4096 if small else 50_000, small)
        if full:
            rows += _ten_million(Path(folder))
        return rows


def _of_size(folder: Path, size: int, small: bool) -> list[Row]:
    slide, store = make(folder, size)
    with viewing(store, "--slide", slide) as server:
        answered, sent = hostile(server.address, 240 if small else 10_000)
        rows = [Row(f"{sent:,} hostile requests, answered with data", answered, "", "= 0", answered == 0, always=True)]
        if program() is None:
            return [*rows, Row("no Chromium on this machine: nothing else is measured", 0)]
        firsts = [first_picture(server) for _ in range(1 if small else 5)]
        taken = moves(server, size, 13 if small else 130)
        rows.append(Row("first picture, the slowest of several", max(firsts), "s", "<= 2", max(firsts) <= 2))
        for kind, milliseconds in taken.items():
            slow = float(np.percentile(milliseconds, 95))
            rows.append(Row(f"{kind} to its nuclei, 95th percentile", slow, "ms", "<= 100", slow <= 100))
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
