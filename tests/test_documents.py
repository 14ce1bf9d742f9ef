"""Documents name only what is there, README every exit code; tutorials run as they stand, and the site builds."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import geopandas
import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from typer.main import get_command

from pipelines import pages, reference
from wsi_nuc import errors
from wsi_nuc.cli import app
from wsi_nuc.datasets.record import DataError
from wsi_nuc.store.place import IsLink
from wsi_nuc.synth import SynthSpec, truth_path, write_slide
from wsi_nuc.training.loop import TrainingError

ROOT = Path(__file__).parents[1]
# `store/parts.py` or `parts.py`, in backticks.
NAMED = re.compile(r"`((?:[a-z_]+/)*[a-z_]+\.py)`")
# The recipes of CONTRIBUTING.md make some: "File `wsi_nuc/slides/ppm.py`:".
MADE = re.compile(r"^File `([^`]+)`:", re.MULTILINE)
LONG = (pytest.mark.slow, pytest.mark.timeout(1200))
TUTORIALS = ["slide-to-figure", *(pytest.param(name, marks=LONG) for name in ("cluster", "own-checkpoint"))]


def test_every_module_that_a_text_names_exists() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [Path(name) for name in listed.stdout.split() if (ROOT / name).exists()]
    made = MADE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    modules = [f"/{name}" for name in [*map(Path.as_posix, files), *made]]
    stale = [
        f"{path}: {name}"
        for path in files
        for name in sorted(set(NAMED.findall((ROOT / path).read_text(encoding="utf-8"))))
        if not any(module.endswith(f"/{name}") for module in modules)
    ]
    assert not stale, "\n".join(stale)


def test_every_kind_of_error_ends_with_an_exit_code_of_the_readme() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert {DataError, IsLink, TrainingError} <= set(_below(errors.WsiNucError))
    codes = {kind: kind.exit_code for kind in {*kinds, *_below(errors.WsiNucError)}}
    assert {kind for kind, code in codes.items() if str(code) not in rows} == set()


def _below(kind: type) -> list[type]:
    return [each for child in kind.__subclasses__() for each in (child, *_below(child))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TUTORIALS)
def test_the_blocks_of_a_tutorial_run_and_make_what_it_shows(name: str, tmp_path: Path) -> None:
    page = ROOT / f"docs/tutorials/{name}.md"
    pages.run(page, tmp_path)
    assert {shown: len(list(tmp_path.rglob(shown))) for shown in pages.made(page)} == dict.fromkeys(
        pages.made(page), 1
    )


def test_every_tutorial_is_tried() -> None:
    written = {page.stem for page in (ROOT / "docs/tutorials").glob("*.md")}
    assert written == {name if isinstance(name, str) else name.values[0] for name in TUTORIALS}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_page_about_dots_leads_to_a_result_with_the_classes_of_the_dots(tmp_path: Path) -> None:
    """With the dots of a drawn slide in QuPath's GeoJSON, which the page takes for granted."""
    slide = tmp_path / "slide.svs"
    write_slide(slide, SynthSpec(size=1536, mpp=0.25, seed=5))
    drawn = geopandas.read_parquet(truth_path(slide))
    marks = []
    for name, nuclei in drawn.groupby("class", observed=True):
        points = [[point.x, point.y] for point in nuclei.geometry.representative_point()]
        about = {"objectType": "annotation", "classification": {"name": f"my {name}"}}
        geometry = {"type": "MultiPoint", "coordinates": points}
        marks.append({"type": "Feature", "geometry": geometry, "properties": about})
    (tmp_path / "dots.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": marks}))
    pages.run(ROOT / "docs/from-dots.md", tmp_path)
    result = geopandas.read_parquet(tmp_path / "results/slide.svs.zarr/shapes/nuclei/shapes.parquet")
    assert len(result) > 100
    assert all(name.startswith("my ") for name in result["class"].unique())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```sh\ntrue\nfalse\n```\n", "page.md, line 1: ended with 1"),
        ("```sh\ntrue\n```\n\n1. ```python\n   1 / 0\n   ```\n", "page.md, line 5: ended with 1"),
        ("```sh\necho 12 of 13 s\n```\n\n```text\n11 of ... s\n```\n", "line 1: prints"),
        ("<!-- not run: -->\n```sh\nfalse\n```\n", "does not say why"),
        ("```bash\nfalse\n```\n", "a block in 'bash'"),
        ("```\nfalse\n```\n", "a block in ''"),
    ],
)
def test_a_page_that_cannot_be_followed_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(pages.PageError, match=re.escape(problem)):
        pages.run(tmp_path / "page.md", tmp_path)


def test_blocks_run_in_order_in_one_folder_and_only_those_that_can(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\necho one > a\n```\n<!-- not run: needs a cluster -->\n```sh\necho two >> a\n```\n"
        "```python\nprint(open('a').read(), 3)\n```\n\n```text\no...\n 3\n```\n```csv\na,b\n```\n"
    )
    pages.run(page, tmp_path)
    assert (tmp_path / "a").read_text() == "one\n"


class Loaded(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("audio", "embed", "iframe", "img", "link", "object", "script", "source", "video"):
            self.addresses += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "data")]


@pytest.mark.timeout(600)
def test_the_site_builds_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    """Without running the tutorials again. A link to a page or heading that is not there fails the build."""
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    config.extra["tutorials"] = False
    build(config)
    built = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.html")}
    assert {Path(name).with_suffix(".html").as_posix() for name in reference.PAGES} < built.keys()
    loaded = {}
    for name, path in built.items():
        text = path.read_text(encoding="utf-8")
        # What the theme would look up on other hosts.
        assert 'class="mermaid"' not in text
        assert 'data-md-component="source"' not in text
        parser = Loaded()
        parser.feed(text)
        loaded[name] = parser.addresses
    assert any("stylesheets" in address for address in loaded["index.html"])
    styles = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css")]
    loaded["styles"] = [
        address for style in styles for address in re.findall(r"(?:url\(|@import\s+)['\"]?([^'\")]+)", style)
    ]
    elsewhere = {
        name: [each for each in found if re.match(r"(https?:)?//", each)] for name, found in loaded.items()
    }
    assert not any(elsewhere.values()), elsewhere


def test_the_reference_names_every_option_and_every_kind_of_error() -> None:
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", reference.options(), re.MULTILINE))
    commands = dict(reference.commands(get_command(app), "wsi-nuc"))
    assert len(commands) > 25
    assert sections.keys() == commands.keys()
    for words, command in commands.items():
        lines = [line.split(" | ")[0] for line in sections[words].splitlines() if line.startswith("| `")]
        known = [name for each in command.params for name in (*each.opts, *each.secondary_opts)]
        known = [name for name in known if name.startswith("-") and name != "--help"]
        assert sorted(re.findall(r"`(-[\w-]+)`", "".join(lines))) == sorted(known), words
    kinds = re.findall(r"^\| `(\w+)` \| \d* \| \S", reference.failures(), re.MULTILINE)
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "wsi_nuc").rglob("*.py"))
    assert set(re.findall(rf"^class (\w+)\((?:{'|'.join(kinds)})\):", written, re.MULTILINE)) < set(kinds)
