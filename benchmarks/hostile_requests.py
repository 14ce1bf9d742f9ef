"""Requests to a viewer from somebody who must not get anything: none may be answered with data."""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable
from urllib.parse import urlsplit

Pairs = list[tuple[str, str]]
Request = tuple[str, str, Pairs, bytes | None]
UPWARDS = ("../", "..%2f", "%2e%2e/", "..\\", "....//", "%252e%252e%252f")
TARGETS = ("etc/passwd", "manifest.json", "proc/self/environ", "viewer.js", "root/.ssh/id_rsa")
METHODS = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get")
NOWHERE = (".git/config", "api", "api/", "index.html", "LICENSES.txt", "viewer.js.map", "favicon.ico")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEF0123456789-_"
ALL = "/api/all"
# A refusal is a line of text.
LONGEST_REFUSAL = 200


def hostile(address: str, count: int) -> int:
    """How many of `count` requests were answered with data. `address`: as the viewer printed it."""
    parts, chance, answered = urlsplit(address), random.Random(9), 0
    ways = _ways(chance, parts.netloc, parts.query.removeprefix("t="))
    for number in range(count):
        method, path, headers, body = ways[number % len(ways)]()
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
        # Here, the path may hold whatever it likes.
        connection._validate_path = lambda url: None  # type: ignore[attr-defined]
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            answered += reply.status < 400 or len(reply.read()) > LONGEST_REFUSAL
        except (http.client.HTTPException, OSError, ValueError):
            continue  # It hung up.
        finally:
            connection.close()
    return answered


def _ways(chance: random.Random, host: str, token: str) -> list[Callable[[], Request]]:
    """Ways to ask for what one must not get, each a little different every time."""
    name, pick = f"wsi_nuc_{host.rpartition(':')[2]}", chance.choice
    cookie, hosted = [("Cookie", f"{name}={token}")], [("Host", host)]
    good = hosted + cookie

    def get(path: str, headers: Pairs, body: bytes | None = None, method: str = "GET") -> Request:
        return method, path, headers, body

    def up() -> str:
        return pick(UPWARDS) * chance.randint(1, 9) + pick(TARGETS)

    def stray() -> str:
        return "".join(pick(LETTERS) for _ in range(43))

    def number() -> str:
        return f"{chance.getrandbits(64):016x}"

    hosts = ("evil.example", f"{host}.evil.example", "0.0.0.0", "", "127.0.0.1", "localhost")
    origins = ("http://evil.example", "null", f"https://{host}", "http://127.0.0.1")
    cookies = ("=", ";;;", "a" * 9000, f"other={token}", f"{name}=", f"{name}={token[:-1]}")
    return [
        lambda: get(f"/{up()}", good),
        lambda: get(f"/api/{up()}", good),
        lambda: get(f"/static/{up()}", good),
        lambda: get(f"/api/{number()}/nucleus/1", good),
        lambda: get(f"/api/{number()}/tile/0/0/0", good),
        lambda: get(f"/{pick(NOWHERE)}", good),
        lambda: get(ALL, [("Host", pick(hosts)), *cookie]),
        lambda: get(ALL, [*good, ("Host", "evil.example")]),
        lambda: get(ALL, cookie),
        lambda: get(f"http://evil.example{ALL}", [("Host", "evil.example"), *cookie]),
        lambda: get(ALL, [*good, ("Origin", pick(origins))]),
        lambda: get(ALL, [*good, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", pick(("cors", "no-cors")))]),
        lambda: get(ALL, hosted),
        lambda: get(f"{ALL}?t={token}", hosted),
        lambda: get(f"/?t={stray()}", hosted),
        lambda: get(f"/?t={token[:-1]}", hosted),
        lambda: get(ALL, [*hosted, ("Cookie", f"{name}={stray()}")]),
        lambda: get(ALL, [*hosted, ("Cookie", pick(cookies))]),
        lambda: get(ALL, good, method=pick(METHODS)),
        lambda: get(ALL, [*good, ("Content-Length", "64")], b"x" * 64, pick(("GET", "POST"))),
        lambda: get(ALL, [*good, ("Content-Length", "1000000000000")], b"x"),
        lambda: get(ALL, [*good, ("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n0\r\n\r\n"),
        lambda: get(f"{ALL}?{'a' * chance.randint(4200, 14_000)}=1", good),
        lambda: get(ALL, [*good, ("X-Large", "a" * chance.randint(17_000, 60_000))]),
    ]
