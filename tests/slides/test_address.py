"""Addresses: errors of any backend become errors of the slide, and their secrets are never shown."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import BotoCoreError
from fsspec.implementations.memory import MemoryFile
from hypothesis import given
from hypothesis import strategies as st

from wsi_nuc.errors import SLIDES, SlideError
from wsi_nuc.run.success_or_failure import failure
from wsi_nuc.slides.address import CHECK_ADDRESS, reaching, reason, shown
from wsi_nuc.slides.identity import content_sha256, stat_signature
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import Box, SlideRef

SECRET = "hUnTeR2"
LOCKED = f"locked://me:{SECRET}@bucket/slide.svs?signature={SECRET}"
TEXT = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


class NoCredentials(BotoCoreError):
    """As botocore's own: it inherits from none of Python's errors but Exception."""

    fmt = "{text}"


class Locked(fsspec.AbstractFileSystem):
    protocol = "locked"

    def info(self, path: str, **options: object) -> dict[str, object]:
        raise NoCredentials(text=f"unable to locate credentials for {LOCKED}")

    def _open(self, path: str, *arguments: object, **options: object) -> None:
        self.info(path)


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    fsspec.register_implementation("locked", Locked, clobber=True)


@pytest.mark.parametrize(
    "call", [open_slide, content_sha256, stat_signature, lambda ref: open_slide(SlideRef(ref.path, "openslide"))]
)
def test_an_error_of_a_backend_s_own_is_the_slide_s_and_tells_no_secret(call: Callable[..., object]) -> None:
    with pytest.raises(SlideError) as caught:
        call(SlideRef(LOCKED))
    assert caught.value.subject == "locked://bucket/slide.svs"
    assert caught.value.remedy in (CHECK_ADDRESS, "use --reader tiffslide for URLs")
    assert SECRET not in str(caught.value)


def test_an_error_that_no_library_is_known_for_tells_no_secret_either() -> None:
    result = failure(LOCKED, Exception(f"unable to locate credentials for {LOCKED}"), 0.0)
    assert result.exit_code == SLIDES
    assert "locked://bucket/slide.svs" in result.error
    assert SECRET not in result.error


def test_an_address_that_leads_nowhere_is_called_so() -> None:
    with pytest.raises(SlideError, match=r"cannot be opened \(not found or not reachable\)") as caught:
        open_slide(SlideRef(f"memory://nothing/here.svs?key={SECRET}"))
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_a_slide_is_named_without_its_secret() -> None:
    place = f"memory://{uuid.uuid4().hex}.svs?key={SECRET}"
    with fsspec.open(place, "wb") as file:
        file.write(b"not a slide" * 40)
    with pytest.raises(SlideError, match="is not a TIFF file") as caught:
        open_slide(SlideRef(place))
    assert SECRET not in str(caught.value)


def test_credentials_that_expire_after_opening_are_the_slide_s_error(
    slide: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{uuid.uuid4().hex}/slide.svs?key={SECRET}"
    with fsspec.open(url, "wb") as file:
        file.write(slide("aperio.svs").read_bytes())
    source = open_slide(SlideRef(url))

    def expired(*_: object) -> bytes:
        raise NoCredentials(text=f"token of {url} expired")

    monkeypatch.setattr(MemoryFile, "read", expired, raising=False)
    monkeypatch.setattr(MemoryFile, "readinto", expired, raising=False)
    with pytest.raises(SlideError, match="expired") as caught:
        source.read(0, Box(0, 0, 300, 300))
    assert caught.value.remedy == CHECK_ADDRESS
    assert SECRET not in str(caught.value)
    with pytest.raises(SlideError, match="expired"):
        content_sha256(SlideRef(url))


@given(TEXT, TEXT, TEXT, TEXT)
def test_user_password_and_query_are_never_shown(user: str, password: str, host: str, query: str) -> None:
    place = f"https://{host}/slides/a.svs"
    full = place.replace("://", f"://{user}:{password}@") + f"?sig={query}#{query}"
    assert shown(full) == place
    assert reason(OSError(f"403 Forbidden: '{full}'")) == f"403 Forbidden: '{place}'"
    assert reason(TimeoutError()) == "TimeoutError"
    assert "\n" not in reason(OSError("line\nafter line"))
    assert shown(f"filecache::{full}") == f"filecache::{place}"


@pytest.mark.parametrize("path", ["s3://bucket/a.svs", "/data/what?/a@b:c.svs", "a#1.svs", "C:\\slides\\a.svs"])
def test_what_holds_no_secret_is_shown_as_it_is(path: str) -> None:
    assert shown(path) == path


def test_errors_of_local_files_and_of_memory_pass() -> None:
    with pytest.raises(KeyError), reaching("/data/a.svs"):
        raise KeyError("tile")
    with pytest.raises(MemoryError), reaching("s3://bucket/a.svs"):
        raise MemoryError
