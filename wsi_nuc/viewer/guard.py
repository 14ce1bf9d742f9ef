"""Who is answered: the browser of the person who started the server, and nobody else.

Any page that is open in a browser can send requests to this machine, and so can other users of it. So a request
needs the token that only the printed address has, the right Host (another name for this machine does not do), and
no foreign Origin. What is refused gets the same few words, whatever was asked for.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

METHODS = ("GET", "HEAD")
# Of an address, which is longest where it states many ranges.
LONGEST_URI = 4096
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Server": "wsi-nuc",
}


class NotThere(Exception):
    """An address names something that does not exist."""


class Guard:
    """Decides by the head of a request alone."""

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        # Cookies do not know ports: two servers on one machine must not overwrite each other's.
        self.cookie_name = f"wsi_nuc_{port}"

    @property
    def cookie(self) -> str:
        return f"{self.cookie_name}={self.token}; Path=/; HttpOnly; SameSite=Strict"

    def refuses(self, method: str, uri: str, headers: Mapping[str, str]) -> int:
        """The status of the refusal, 0 if the request may be answered to somebody with the token."""
        if method not in METHODS:
            return 405
        if len(uri) > LONGEST_URI:
            return 414
        if headers.get("Content-Length", "0") != "0" or headers.get("Transfer-Encoding"):
            return 413
        if headers.get("Host", "") not in self.hosts:
            return 403
        origin = headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.hosts]:
            return 403
        # A link from elsewhere may open the page, but no other site may load parts of it.
        if headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate":
            return 403
        return 0

    def knows(self, headers: Mapping[str, str], given: str | None = None) -> bool:
        """Whether the cookie, or the token `given` in an address, is ours."""
        return self._is_token(given or "") or self._is_token(self._of_cookie(headers.get("Cookie", "")))

    def _of_cookie(self, text: str) -> str:
        try:
            morsel = SimpleCookie(text[:LONGEST_URI]).get(self.cookie_name)
        except CookieError:
            return ""
        return morsel.value if morsel else ""

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self.token.encode())
