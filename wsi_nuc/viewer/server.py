"""The server: which address gives what. It reads, and never writes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import tornado.httpserver
import tornado.netutil
import tornado.web

from wsi_nuc.errors import UsageError, WsiNucError
from wsi_nuc.viewer import outlines
from wsi_nuc.viewer.columns import Wanted, asked
from wsi_nuc.viewer.gallery import Gallery
from wsi_nuc.viewer.guard import HEADERS, Guard, NotThere
from wsi_nuc.viewer.opened import OpenedStore

Query = dict[str, str]
LARGEST_HEAD = 16 * 1024
# Threads that read and decode; more would only take turns on the slide and on the interpreter.
THREADS = 3
MOST_NAMES = 6
NUMBER = r"(\d{1,9})"
STORE = r"/api/([0-9a-fx]{16,24})"
STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/viewer.css": ("viewer.css", "text/css; charset=utf-8"),
}
JSON, BYTES, JPEG = "application/json", "application/octet-stream", "image/jpeg"


class Refused(tornado.web.HTTPError):
    """A request that gets no data."""


class Handler(tornado.web.RequestHandler):
    """What holds for every address: who is refused, and with which headers everything goes out."""

    guard: Guard
    gallery: Gallery
    threads: ThreadPoolExecutor

    def initialize(self, guard: Guard, gallery: Gallery, threads: ThreadPoolExecutor, **_: Any) -> None:
        self.guard, self.gallery, self.threads = guard, gallery, threads

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        request = self.request
        status = self.guard.refuses(request.method or "", request.uri or "", request.headers)
        if not status and len(request.headers.get_list("Host")) != 1:
            status = 403
        if not status and not self.guard.knows(request.headers, self._token()):
            status = 403
        if status:
            raise Refused(status)

    def _token(self) -> str | None:
        """Only the page itself may be opened with the token in its address."""
        return self.get_query_argument("t", None) if self.request.path == "/" else None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        texts = {
            403: "Refused. Open the address that `wsi-nuc view` printed.",
            404: "There is nothing at this address.",
            503: "This cannot be shown.",
        }
        error = (kwargs.get("exc_info") or (None, None))[1]
        text = texts.get(status_code, "Refused.")
        if status_code == 503 and isinstance(error, Refused) and error.log_message:
            text = error.log_message
        self.finish(text + "\n")

    def log_exception(self, *error: Any) -> None:
        if not isinstance(error[1], tornado.web.HTTPError):
            super().log_exception(*error)

    @property
    def query(self) -> Query:
        return {name: self.get_query_argument(name) for name in self.request.query_arguments}

    async def answer(self, kind: str, make: Callable[[], Any]) -> None:
        """Send what `make` gives, which runs in a thread."""
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(self.threads, make)
        except NotThere:
            raise Refused(404) from None
        except UsageError:
            raise Refused(400) from None
        except (WsiNucError, OSError, pa.ArrowException) as error:
            remedy = "" if isinstance(error, WsiNucError) else ". `wsi-nuc verify` says what is wrong"
            raise Refused(503, f"{error}{remedy}".replace("%", "%%")) from None
        self.set_header("Content-Type", kind)
        self.finish(json.dumps(made, allow_nan=False) if kind == JSON else made)

    def head(self, *parts: str) -> Any:
        return self.get(*parts)


class Page(Handler):
    """The page and what it loads."""

    def get(self) -> None:
        name, kind = STATIC[self.request.path]
        if self.request.path == "/" and self._token():
            self.set_header("Set-Cookie", self.guard.cookie)
            self.redirect("/", status=303)
            return
        self.set_header("Content-Type", kind)
        self.finish((files("wsi_nuc.viewer") / "static" / name).read_bytes())


class All(Handler):
    async def get(self) -> None:
        await self.answer(JSON, lambda: self.gallery.rows)


class Picture(Handler):
    async def get(self, number: str) -> None:
        await self.answer(JPEG, lambda: self.gallery.picture(number))


class Of(Handler):
    """What is asked of one store. `make` gets the store, the query, and the parts of the address."""

    make: Callable[[OpenedStore, Query, tuple[int, ...]], Any]
    kind: str

    def initialize(self, make: Any, kind: str, **shared: Any) -> None:  # type: ignore[override]
        super().initialize(**shared)
        self.make, self.kind = make, kind

    async def get(self, number: str, *parts: str) -> None:
        query, places = self.query, tuple(map(int, parts))
        await self.answer(self.kind, lambda: self.make(self.gallery.opened(number), query, places))


def stats(store: OpenedStore, query: Query, _: tuple[int, ...]) -> Any:
    """Counts per class on the whole slide, as filtered, and as filtered in the view; histograms of the view."""
    columns = store.columns
    wanted = asked(query, columns.names)
    names = _names(query, "histograms")
    return {
        "all": columns.counts(Wanted()),
        "passing": columns.counts(Wanted(wanted.classes, wanted.ranges)),
        "view": columns.counts(wanted),
        "histograms": [columns.histogram(name, wanted) for name in names],
    }


def density(store: OpenedStore, query: Query, _: tuple[int, ...]) -> bytes:
    """Width, height (uint32), edge of a bin (float32), then H x W counts (uint16) and H x W values (float32)."""
    columns = store.columns
    made = columns.density(asked(query, columns.names), query.get("value", ""))
    head = np.array(made.counts.shape[::-1], "<u4").tobytes() + np.array([made.bin_l0], "<f4").tobytes()
    counts = np.minimum(made.counts, 65_535).astype("<u2").tobytes()
    return head + made.values.astype("<f4").tobytes() + counts


def cell(store: OpenedStore, query: Query, at: tuple[int, ...]) -> bytes:
    columns = store.columns
    x, y = _in(at, (columns.cells.columns, columns.cells.rows))
    return outlines.outlined(columns, store.outlines, x, y, _names(query, "values"))


def points(store: OpenedStore, query: Query, at: tuple[int, ...]) -> bytes:
    columns = store.columns
    x, y = _in(
        at, (-(-columns.cells.columns // outlines.POINT_CELLS), -(-columns.cells.rows // outlines.POINT_CELLS))
    )
    return outlines.points(columns, x, y, _names(query, "values"))


def _names(query: Query, of: str) -> list[str]:
    """A few names of columns."""
    return [name for name in query.get(of, "").split(",") if name][:MOST_NAMES]


def _in(at: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Column and row of a cell that exists."""
    if not all(place < most for place, most in zip(at, size, strict=True)):
        raise NotThere("there is no such cell")
    return at[0], at[1]


def extent(store: OpenedStore, query: Query, _: tuple[int, ...]) -> Any:
    return store.columns.extent(query.get("value", ""))


def application(gallery: Gallery, guard: Guard) -> tornado.web.Application:
    threads = ThreadPoolExecutor(THREADS, "viewer")
    shared = {"guard": guard, "gallery": gallery, "threads": threads}

    def of(pattern: str, kind: str, make: Any) -> tuple[str, Any, dict[str, Any]]:
        return f"{STORE}{pattern}", Of, {**shared, "kind": kind, "make": make}

    return tornado.web.Application(
        [
            *((path.replace(".", r"\."), Page, shared) for path in STATIC),
            ("/api/all", All, shared),
            (f"{STORE}/thumbnail", Picture, shared),
            of("", JSON, lambda store, _query, _at: store.document()),
            of("/status", JSON, lambda store, _query, _at: store.status()),
            of("/layers", JSON, lambda store, _query, _at: store.layers()),
            of("/stats", JSON, stats),
            of("/extent", JSON, extent),
            of("/density", BYTES, density),
            of(f"/cell/{NUMBER}/{NUMBER}", BYTES, cell),
            of(f"/points/{NUMBER}/{NUMBER}", BYTES, points),
            of(f"/nucleus/{NUMBER}", JSON, lambda store, _query, at: store.nucleus(at[0])),
            of(f"/tile/{NUMBER}/{NUMBER}/{NUMBER}", JPEG, lambda store, _query, at: store.pyramid.tile(*at)),
        ],
        default_handler_class=Nothing,
        default_handler_args=shared,
        log_function=lambda handler: None,
    )


class Nothing(Handler):
    """Every other address."""

    def get(self, *_: str) -> None:
        raise Refused(404)


def listening(port: int) -> socket.socket:
    """A socket on loopback; port 0 takes any that is free. UsageError where the port is taken."""
    try:
        return tornado.netutil.bind_sockets(port, "127.0.0.1", socket.AF_INET)[0]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"--port {port}", f"cannot be used ({reason})", "choose another, or leave it out"
        ) from None


async def serve(gallery: Gallery, taken: socket.socket, ready: Callable[[str], None]) -> None:
    """Answer until the task is cancelled. `ready` gets the address with the token."""
    port = int(taken.getsockname()[1])
    guard = Guard(port)
    server = tornado.httpserver.HTTPServer(
        application(gallery, guard),
        max_header_size=LARGEST_HEAD,
        max_body_size=0,
        idle_connection_timeout=60,
        body_timeout=5,
    )
    server.add_sockets([taken])
    ready(f"http://127.0.0.1:{port}/?t={guard.token}")
    await asyncio.Event().wait()
