"""No link below an output folder is ever followed, and only what the program made there is removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.store.build import nuclei, origin, publish_store, write_store
from tests.store.faults import before_call
from tests.store.outside import DEAD, HEX, everything, link, tempting
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import StorageError
from wsi_nuc.run.executor import slurm_options
from wsi_nuc.run.slide_copy import StagedSlide, remove_abandoned
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.store import durable
from wsi_nuc.store.commit import Staging, check_target, clean_up
from wsi_nuc.store.folders import made_folder, output_folder
from wsi_nuc.store.locks import try_lock
from wsi_nuc.store.names import claim_name
from wsi_nuc.store.parts import find_parts, hold_parts, parts_dir, parts_key, remove_parts, write_part
from wsi_nuc.store.place import Place
from wsi_nuc.store.private import Private, private, slide_lock
from wsi_nuc.types import SlideRef

SLIDE = HEX * 4
KEY = parts_key(SLIDE, 8)
NAME = "x.svs.zarr"


def staged(out: Place) -> None:
    slide = out.path.parent / "slide.svs"
    slide.write_bytes(b"pixels")
    ref = SlideRef(str(slide))
    StagedSlide(ref, out, content_sha256(ref), lambda: None).close()


def replaced_in_two_steps(out: Place) -> None:
    exchange, durable.exchange = durable.exchange, lambda source, target: False
    try:
        publish_store(out.path)
        publish_store(out.path, made=origin(b=1), overwrite=True)
    finally:
        durable.exchange = exchange


# Everything that works in a private folder, by its folder.
USES: dict[Private, dict[str, Callable[[Place], object]]] = {
    Private.BACKUP: {
        "clean up": clean_up,
        "look": lambda out: check_target(out, NAME, origin().key),
        "replace": replaced_in_two_steps,
    },
    Private.COMMIT: {
        "look": lambda out: check_target(out, NAME, origin().key),
        "publish": lambda out: publish_store(out.path),
    },
    Private.NAMES: {"claim": lambda out: claim_name("x.svs", out, SLIDE)},
    Private.PARTS: {
        "hold": lambda out: hold_parts(out, SLIDE, KEY),
        "find": lambda out: find_parts(parts_dir(out, SLIDE, KEY)),
        "remove": lambda out: remove_parts(out, SLIDE, KEY),
    },
    Private.RUNS: {"clean up": clean_up, "lock": lambda out: try_lock(slide_lock(out, SLIDE))},
    Private.SLIDES: {"clean up": remove_abandoned, "copy": staged},
    Private.SLURM: {"submit": lambda out: slurm_options(RunConfig(out=out.path, scheduler="slurm"))},
    Private.STAGING: {"clean up": clean_up, "write": lambda out: Staging(out, NAME)},
}


def test_every_private_folder_is_known_here() -> None:
    assert set(USES) == set(Private)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return tempting(tmp_path / "outside")


@pytest.fixture
def out(tmp_path: Path) -> Place:
    return made_folder(tmp_path / "out")


def check_refused(use: Callable[[], object], outside: Path, match: str = "symbolic link") -> None:
    before = everything(outside)
    with pytest.raises(StorageError, match=match) as caught:
        use()
    assert everything(outside) == before
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "use"), [(kind, use) for kind in Private for use in USES.get(kind, {None: None})]
)
def test_no_private_folder_may_be_a_link(kind: Private, use: str, out: Place, outside: Path) -> None:
    link(private(out, kind).path, outside)
    check_refused(lambda: USES[kind][use](out), outside)


@pytest.mark.parametrize("kind", Private)
@pytest.mark.parametrize("deep", ["", f"/{HEX}", f"/{HEX}/{HEX}", f"/{HEX}.lock"])
def test_a_command_looks_for_links_before_it_does_anything(
    kind: Private, deep: str, out: Place, outside: Path
) -> None:
    link(Path(f"{private(out, kind)}{deep}"), outside)
    check_refused(lambda: output_folder(out.path), outside)


@pytest.mark.parametrize(
    "place",
    [
        f"parts/{HEX}",
        f"parts/{HEX}/{KEY}",
        f"parts/{HEX}/{KEY}.lock",
        f"parts/{HEX}/{'f' * 16}",
        f"staging/{DEAD}.zarr",
        f"staging/{DEAD}.lock",
        f"slides/{DEAD}",
        f"slides/{DEAD}.lock",
        f"runs/{HEX}.lock",
        f"backup/{NAME}",
        "",
    ],
)
def test_no_link_deeper_down_is_followed(place: str, out: Place, outside: Path) -> None:
    """The link is swapped in after the first look: the next code that gets there refuses it."""
    private_folder = out.path / ".wsi-nuc"
    if place.startswith(("staging", "slides")):
        (private_folder / place).parent.mkdir(parents=True)
        (private_folder / place).with_suffix(".lock").touch()
    link(private_folder / place, outside)

    def all_of_it() -> None:
        clean_up(out)
        remove_abandoned(out)
        remove_parts(out, SLIDE)

    check_refused(all_of_it, outside)


@pytest.mark.parametrize(
    "folder", ["shapes", "shapes/nuclei", "tables", "tables/nuclei_table", "tables/nuclei_table/X"]
)
def test_no_writer_goes_through_a_link(folder: str, out: Place, outside: Path) -> None:
    with Staging(out, NAME) as staging:
        link(staging.root.path / folder, outside)
        check_refused(lambda: write_store(staging.root, [nuclei(5)]), outside)


def test_a_tree_with_a_link_inside_is_removed_without_what_it_leads_to(out: Place, outside: Path) -> None:
    before = everything(outside)
    tree = private(out, Private.STAGING).path / f"{DEAD}.zarr"
    (tree / "c").mkdir(parents=True)
    tree.with_suffix(".lock").touch()
    (tree / "c" / "link").symlink_to(outside)
    assert clean_up(out) == []
    assert not tree.exists()
    assert everything(outside) == before


def swap_at(operation: str, suffix: str, place: Path, target: Path) -> Callable[[str, Path], None]:
    """Replaces a folder by a link right before the first such call."""

    def swap(kind: str, path: Path) -> None:
        if kind == operation and path.name.endswith(suffix) and not place.is_symlink():
            link(place, target)

    return swap


@pytest.mark.parametrize("where", [".wsi-nuc", ".wsi-nuc/staging", ".wsi-nuc/commit", NAME])
@pytest.mark.parametrize(
    "moment", [("create", "shapes.parquet"), ("fsync", "shapes.parquet"), ("rename", "manifest.json")]
)
def test_a_link_swapped_in_while_publishing_is_refused(
    moment: tuple[str, str], where: str, tmp_path: Path, outside: Path
) -> None:
    out = tmp_path / "out"
    with before_call(swap_at(*moment, out / where, outside)):
        check_refused(lambda: publish_store(out), outside)
    assert not (out / NAME).is_dir() or (out / NAME).is_symlink()


@pytest.mark.parametrize("target", ["link", "folder"])
@pytest.mark.parametrize(
    "moment", [("create", "shapes.parquet"), ("fsync", "shapes.parquet"), ("rename", "manifest.json")]
)
def test_another_output_folder_swapped_in_while_publishing_is_refused(
    moment: tuple[str, str], target: str, tmp_path: Path, outside: Path
) -> None:
    out = tmp_path / "out"

    def swap(kind: str, path: Path) -> None:
        if (kind, path.name) == moment and not (tmp_path / "out-aside").exists():
            out.rename(tmp_path / "out-aside")
            out.symlink_to(outside) if target == "link" else outside.rename(out)

    before = everything(outside)
    with before_call(swap), pytest.raises(StorageError, match="was replaced by another folder"):
        publish_store(out)
    assert everything(out) == before
    assert not (tmp_path / "out-aside" / NAME).exists()


def test_a_worker_writes_into_the_folder_that_was_meant_or_nowhere(tmp_path: Path, outside: Path) -> None:
    table, own = nuclei(3), np.ones(3, np.bool_)
    out = made_folder(tmp_path / "out")
    hold_parts(out, SLIDE, KEY)
    meant = parts_dir(out, SLIDE, KEY)
    write_part(meant.ref().opened(), 0, table, own, {})
    assert list(find_parts(meant)) == [0]
    # The same folder by another path is the same folder; another folder at the same path is not.
    out.path.rename(tmp_path / "aside")
    out.path.symlink_to(tmp_path / "aside")
    write_part(meant.ref().opened(), 1, table, own, {})
    assert list(find_parts(meant)) == [0, 1]
    out.path.unlink()
    out.path.symlink_to(outside)
    check_refused(lambda: write_part(meant.ref().opened(), 2, table, own, {}), outside, "was replaced")


def test_a_worker_elsewhere_makes_no_folder_on_its_way(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker cannot compare the numbers of folders, because these are another machine's."""
    out = made_folder(tmp_path / "out")
    hold_parts(out, SLIDE, KEY)
    ref = parts_dir(out, SLIDE, KEY).ref()
    monkeypatch.setattr("wsi_nuc.store.place._machine", lambda: "elsewhere")
    assert ref.opened().is_dir()
    link(out.path, outside)
    check_refused(ref.opened, outside, "No such file")


def test_an_output_folder_may_be_a_link(tmp_path: Path) -> None:
    real, out = tmp_path / "real", tmp_path / "out"
    real.mkdir()
    out.symlink_to(real)
    output_folder(out)
    clean_up(made_folder(out))
    done = publish_store(out)
    assert done.path == out / NAME
    assert (real / NAME / "manifest.json").is_file()
    out.unlink()
    out.symlink_to(tmp_path / "gone")
    with pytest.raises(StorageError, match=r"is a link to .* which is not there"):
        output_folder(out)


STRANGERS = {
    Private.STAGING: [f"{DEAD}.zarr/data", "mine.zarr/data", "notes.txt"],
    Private.RUNS: ["mine.lock"],
    Private.BACKUP: ["mine/data", "x.svs.zarr/data"],
    Private.SLIDES: [f"{DEAD}/data", "mine/data"],
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_the_program_did_not_make_stays_and_is_named(kind: Private, out: Place) -> None:
    folder = private(out, kind).path
    for name in STRANGERS[kind]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    before = everything(folder)
    left = remove_abandoned(out) if kind is Private.SLIDES else clean_up(out)
    assert [place.name for place in left] == sorted(name.partition("/")[0] for name in STRANGERS[kind])
    assert everything(folder) == before


def test_what_lies_among_parts_stays_and_is_named(out: Place) -> None:
    hold_parts(out, SLIDE, KEY).close()
    parts = parts_dir(out, SLIDE, KEY)
    write_part(parts, 0, nuclei(3), np.ones(3, np.bool_), {})
    (parts.path / "notes.txt").write_text("mine")
    (parts.path.parent / "more").mkdir()
    left = remove_parts(out, SLIDE, KEY)
    assert [place.name for place in left] == ["more", "notes.txt"]
    assert parts.names() == ["notes.txt"]
    (parts.path / "notes.txt").unlink()
    (parts.path.parent / "more").rmdir()
    assert remove_parts(out, SLIDE, KEY) == []
    assert private(out, Private.PARTS).names() == []


def test_a_place_lies_below_its_folder(out: Place) -> None:
    for relative in ("..", "a/../b", ".", "", "/etc", "a//b"):
        with pytest.raises(ValueError, match="is not below"):
            out / relative


def open_files() -> list[str]:
    return sorted(path.name for path in Path("/dev/fd").iterdir())


def test_an_open_folder_is_closed_with_its_last_place(tmp_path: Path) -> None:
    before = open_files()
    places = [made_folder(tmp_path / str(i)) / "x" for i in range(5)]
    assert len(open_files()) == len(before) + 5
    del places
    assert open_files() == before
