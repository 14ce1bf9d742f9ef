"""Addresses of slides (s3://, https://, ...): how to show them without secrets, and errors of fetching them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from wsi_nuc.errors import SlideError

CHECK_ADDRESS = "check the address and your credentials"
LONGEST_REASON = 300
REMOTE_ADDRESS = re.compile(r"\w[\w+.:-]*://[^\s'\"<>()]+")
# Errors that storage libraries raise beside those of Python itself: the base classes, by module.
OF_LIBRARIES = {
    "aiohttp": ("ClientError",),
    "azure.core.exceptions": ("AzureError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "paramiko": ("SSHException",),
}


def is_url(path: str) -> bool:
    return "://" in path


def shown(path: str) -> str:
    """The path for people to read: an address loses its user, password and query, which may be secrets."""
    if not is_url(path):
        return path
    return re.sub(r"://[^/?#@]*(?:@[^/?#@]*)*@", "://", re.sub(r"[?#].*", "", path, flags=re.DOTALL))


def reason(error: BaseException) -> str:
    """What an error says, in one line and without the secrets of the addresses in it."""
    if isinstance(error, FileNotFoundError):
        # fsspec repeats only the address, or takes the characters of a query for a glob pattern.
        return "not found or not reachable"
    words = " ".join(without_secrets(str(error)).split())
    return words[:LONGEST_REASON] or type(error).__name__


def without_secrets(text: str) -> str:
    """The text with every address in it as `shown` shows it."""
    return REMOTE_ADDRESS.sub(lambda match: shown(match[0]), text)


def fetch_errors() -> tuple[type[Exception], ...]:
    """What goes wrong while an address is fetched. A library that nobody has imported has raised nothing."""
    named = ((sys.modules.get(module), names) for module, names in OF_LIBRARIES.items())
    own = [getattr(module, name) for module, names in named if module for name in names if hasattr(module, name)]
    return (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, ImportError, *own)


@contextmanager
def reaching(path: str, problem: str = "cannot be read") -> Iterator[None]:
    """Turn whatever goes wrong while an address is fetched into a SlideError; errors of local files pass."""
    try:
        yield
    except SlideError:
        raise
    except fetch_errors() as error:
        if not is_url(path):
            raise
        raise SlideError(shown(path), f"{problem} ({reason(error)})", CHECK_ADDRESS) from error
