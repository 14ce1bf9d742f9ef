"""What the build of the documentation does beyond mkdocs (`make docs`): hooks that mkdocs calls.

Pages of the reference are made from the code, and pictures by running the tutorials. `tutorials: false` in `extra`
of mkdocs.yml leaves the tutorials alone and shows a grey picture in place of each of theirs.

python -m pipelines.site SLIDE makes the picture of the front page again.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from pipelines import pages, reference

DOCS = pages.ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
REPOSITORY = "https://github.com/wsi-nuc/wsi-nuc/blob/main"
FRONT = "pictures/nuclei.jpg"
# The slide of the front page, where real data is at hand: OpenSlide's CMU-1-Small-Region.svs (CC0).
REAL_SLIDE = (
    Path(os.environ.get("WSI_NUC_REAL_DATA", pages.ROOT.parent / "shared/data")) / "wsi/CMU-1-Small-Region.svs"
)
FIELD = ("--at", "1120,900", "--field", "150")
_LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = _present(config.nav)
    return config


def _present(nav: Any) -> Any:
    """The navigation without pages that are not written yet. The other way round, a page that the navigation lacks
    is an error of the build (`--strict`)."""
    if isinstance(nav, list):
        return [entry for child in nav if (entry := _present(child))]
    if isinstance(nav, dict):
        return {title: kept for title, child in nav.items() if (kept := _present(child))}
    return nav if nav in reference.PAGES or (DOCS / nav).exists() else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, make in reference.PAGES.items():
        files.append(File.generated(config, name, content=make()))
    really = config.extra.get("tutorials", True)
    if really and REAL_SLIDE.exists():
        files.remove(files.src_uris[FRONT])
        files.append(File.generated(config, FRONT, content=front(REAL_SLIDE)))
    for page in TUTORIALS:
        for name, content in (_made if really else _grey)(page):
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def _made(page: Path) -> Iterator[tuple[str, bytes]]:
    """What a tutorial makes and shows, by running it."""
    with tempfile.TemporaryDirectory() as name:
        pages.run(page, Path(name))
        for wanted in pages.made(page):
            (path,) = Path(name).rglob(wanted)
            yield wanted, path.read_bytes()


def _grey(page: Path) -> Iterator[tuple[str, bytes]]:
    grey = cv2.imencode(".png", np.full((90, 160), 128, np.uint8))[1].tobytes()
    for wanted in pages.made(page):
        yield wanted, grey if wanted.endswith(".png") else b"<!doctype html><title>left out</title>"


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links to files outside of docs/ lead to the repository."""
    folder = posixpath.dirname(page.file.src_uri)

    def target(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match[1]))
        return match[1] if path.startswith("docs/") else f"{REPOSITORY}/{path}"

    return _LINK.sub(target, markdown)


def front(slide: Path) -> bytes:
    """The picture of the front page: a field of the slide with outlines and counts."""
    with tempfile.TemporaryDirectory() as name:
        picture = Path(name) / "field.png"
        command = [sys.executable, "-m", "wsi_nuc", "try", str(slide), *FIELD, "--out", str(picture)]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(pages.ROOT)}, check=True)
        pixels = cv2.imread(str(picture))
    if pixels is None:
        raise RuntimeError(f"{picture} cannot be read")
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 72])[1].tobytes()


def main(slide: Path) -> None:
    """Make the picture of the front page again, which is committed."""
    (DOCS / FRONT).write_bytes(front(slide))


if __name__ == "__main__":
    typer.run(main)
