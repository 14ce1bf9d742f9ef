"""Addresses of slides (s3://, https://, ...): what may be said of them, and errors of those who fetch them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from wsi_nuc.errors import SlideError

CHECK_ADDRESS = "check the address and your credentials"
LONGEST_REASON = 300
REMOTE_ADDRESS = re.compile(r"\w[\w+.:-]*://[^\s'\"<>()]+")


def is_url(path: str) -> bool:
    return "://" in path


def shown(path: str) -> str:
    """The path for people to read: an address loses its user, password and query, which may be secrets."""
    if not is_url(path):
        return path
    return re.sub(r"://[^/?#@]*(?:@[^/?#@]*)*@", "://", re.sub(r"[?#].*", "", path, flags=re.DOTALL))


def reason(error: BaseException) -> str:
    """What an error says in one line, without the secrets of addresses that it repeats."""
    if isinstance(error, FileNotFoundError):
        # fsspec says no more than the address, or guesses at glob characters where there is a query.
        return "not found or not reachable"
    words = " ".join(REMOTE_ADDRESS.sub(lambda found: shown(found[0]), str(error)).split())
    return words[:LONGEST_REASON] or type(error).__name__


@contextmanager
def reaching(path: str, problem: str = "cannot be read") -> Iterator[None]:
    """Whatever goes wrong while an address is fetched becomes a SlideError; errors of local files pass."""
    try:
        yield
    except (SlideError, MemoryError):
        raise
    # As broad as this because fsspec's backends raise errors of their own, such as botocore's NoCredentialsError.
    except Exception as error:
        if not is_url(path):
            raise
        raise SlideError(shown(path), f"{problem} ({reason(error)})", CHECK_ADDRESS) from error
