"""Requests to a viewer, as its own page makes them."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Page:
    """Has the cookie that the first address gives."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.host, self._port = parts.netloc, parts.port
        first = self._ask("GET", f"/?{parts.query}", {"Host": self.host})
        assert first.status == 303
        self.cookie = first.headers["Set-Cookie"].partition(";")[0]
        self.cookie_rules = first.headers["Set-Cookie"].partition(";")[2]

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, headers=headers)
            reply = connection.getresponse()
            return Answer(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._ask(method, path, {"Host": self.host, "Cookie": self.cookie, **named})

    def all(self) -> Any:
        return self.get("/api/all").json

    def of(self, name: str) -> str:
        """The path of the result whose name holds `name`."""
        (row,) = [row for row in self.all() if name in row["name"] and row["id"]]
        return f"/api/{row['id']}"


@dataclass(frozen=True)
class Cell:
    """What the bytes of a cell say."""

    rows: npt.NDArray[np.uint32]
    xy: npt.NDArray[np.float32]
    values: list[npt.NDArray[np.float32]]
    class_id: npt.NDArray[np.uint32]
    rings: list[npt.NDArray[np.float32]]

    @classmethod
    def of(cls, data: bytes, values: int, outlined: bool = True) -> Self:
        n, m = np.frombuffer(data, "<u4", 2).tolist()
        at = 8

        def take(kind: str, count: int) -> Any:
            nonlocal at
            made = np.frombuffer(data, kind, count, at)
            at += 4 * count
            return made

        rows, x, y = take("<u4", n), take("<f4", n), take("<f4", n)
        columns = [take("<f4", n) for _ in range(2 + values)]
        class_id = take("<u4", n)
        rings: list[npt.NDArray[np.float32]] = []
        if outlined:
            offsets, xy = take("<u4", n + 1).tolist(), take("<f4", 2 * m).reshape(-1, 2)
            rings = [xy[a:b] for a, b in pairwise(offsets)]
        assert at == len(data)
        return cls(rows, np.column_stack([x, y]), columns, class_id, rings)
