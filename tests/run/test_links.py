"""Every command refuses links below the folder that it works in, and takes a link for that folder itself."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.store.outside import HEX, everything, link, tempting
from wsi_nuc.cli import app
from wsi_nuc.errors import OK, STORAGE, WsiNucError
from wsi_nuc.store.private import FOLDER, Private
from wsi_nuc.store.verify import verify
from wsi_nuc.synth import SynthSpec, write_slide

STORE = "a.svs.zarr"


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Commands take signals as their own."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    kept = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, kept, strict=True):
        signal.signal(number, handler)


def code_of(*arguments: object) -> int:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, WsiNucError):
        return done.exception.exit_code
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide, its published store, and a cohort of it that is done."""
    folder = tmp_path_factory.mktemp("links")
    slide = folder / "a.svs"
    write_slide(slide, SynthSpec(size=512, mpp=0.5, seed=3))
    (folder / "list.csv").write_text(f"slide,id\n{slide},a\n")
    assert code_of("run", slide, "-o", folder / "out", *QUICK) == OK
    assert code_of("cohort", "plan", folder / "list.csv", "-o", folder / "cohort", *QUICK) == OK
    assert code_of("cohort", "run", folder / "cohort", *SERIAL) == OK
    return folder


SERIAL = ("--scheduler", "serial", "-q")
QUICK = (*SERIAL, "--model", "classical")
Command = Callable[[Path, Path], list[object]]
# From the folder of the fixture and the folder to work in: the command, and where its private folder lies.
COMMANDS: dict[str, tuple[Command, str]] = {
    "run": (lambda place, out: ["run", place / "a.svs", "-o", out, *QUICK], ""),
    "run --stage": (
        lambda place, out: ["run", place / "a.svs", "-o", out.with_name("other"), "--stage", out, *QUICK],
        "",
    ),
    "run --scratch": (
        lambda place, out: [
            "run",
            place / "a.svs",
            "-o",
            out.with_name("other"),
            "--set",
            f"scratch={out}",
            *QUICK,
        ],
        "",
    ),
    "import": (
        lambda place, out: ["import", place / "out" / STORE, "--slide", place / "a.svs", "-o", out, "--overwrite"],
        "",
    ),
    "features": (lambda place, out: ["features", out / STORE, "--slide", place / "a.svs", "--workers", 1], ""),
    "cohort plan": (lambda place, out: ["cohort", "plan", place / "list.csv", "-o", out, *QUICK], "results/"),
    "cohort run": (lambda place, out: ["cohort", "run", out, *SERIAL], "results/"),
    "cohort retry": (lambda place, out: ["cohort", "retry", out, *SERIAL], "results/"),
    "cohort status": (lambda place, out: ["cohort", "status", out, "--verify"], "results/"),
    "cohort collect": (lambda place, out: ["cohort", "collect", out, "--csv"], "results/"),
    "cohort report": (lambda place, out: ["cohort", "report", out], "results/"),
    "cohort slurm": (lambda place, out: ["cohort", "slurm", out, "--time", "2h"], "results/"),
}


def worked_in(command: str, place: Path, target: Path) -> None:
    """What the command finds in its folder."""
    if command.startswith("cohort"):
        shutil.copytree(place / "cohort", target)
    elif command == "features":
        shutil.copytree(place / "out", target)
    else:
        target.mkdir()


def codes_with_links(command: str, place: Path, out: Path, links: dict[str, Path]) -> dict[str, int]:
    """Exit codes of the command by the place of the one link that there is; its target must stay as it is."""
    worked_in(command, place, out)
    codes = {}
    for where, target in links.items():
        untouched = everything(target.parent)
        link(out / where, target)
        codes[where] = code_of(*COMMANDS[command][0](place, out))
        assert everything(target.parent) == untouched, where
        (out / where).unlink()
    return codes


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_follows_a_link_in_its_private_folder(command: str, place: Path, tmp_path: Path) -> None:
    outside = tempting(tmp_path / "elsewhere" / "outside")
    links = {f"{COMMANDS[command][1]}{FOLDER}/{kind}": outside for kind in Private}
    codes = codes_with_links(command, place, tmp_path / "out", links)
    assert codes == dict.fromkeys(links, STORAGE)


COHORT = ("results", "records", "summaries", "looks", "jobs", "queue", "queue/logs")
MADE = (
    "plan.csv",
    "cohort.parquet",
    "cohort.h5ad",
    "patients.h5ad",
    "cohort.csv",
    "report.html",
    "records/b.json",
    "summaries/b.json",
)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("cohort")])
def test_no_command_follows_a_link_in_a_cohort(command: str, place: Path, tmp_path: Path) -> None:
    outside = tempting(tmp_path / "elsewhere" / "outside")
    links = dict.fromkeys(COHORT, outside) | dict.fromkeys(MADE, outside / HEX / "data")
    codes = codes_with_links(command, place, tmp_path / "out", links)
    assert codes == dict.fromkeys(links, STORAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works_in_a_folder_that_is_a_link(command: str, place: Path, tmp_path: Path) -> None:
    real, out = tmp_path / "real", tmp_path / "out"
    worked_in(command, place, real)
    out.symlink_to(real)
    assert code_of(*COMMANDS[command][0](place, out)) == OK
    assert out.is_symlink()
    if command in ("run", "import", "features"):
        assert verify(out / STORE) == []
        assert code_of("verify", out / STORE) == OK


def test_parts_of_earlier_versions_are_gone_on_with(place: Path, tmp_path: Path) -> None:
    """They marked nothing: a folder of theirs has the same names."""
    out = tmp_path / "out"
    assert code_of("run", place / "a.svs", "-o", out, *QUICK, "--set", "keep_parts=true") == OK
    shutil.rmtree(out / STORE)
    for lock in out.glob(f"{FOLDER}/parts/*/*.lock"):
        lock.unlink()
    parts = {path: path.stat().st_mtime_ns for path in out.glob(f"{FOLDER}/parts/*/*/*.arrow")}
    assert parts
    assert code_of("run", place / "a.svs", "-o", out, *QUICK, "--set", "keep_parts=true") == OK
    assert {path: path.stat().st_mtime_ns for path in out.glob(f"{FOLDER}/parts/*/*/*.arrow")} == parts
    shutil.rmtree(out / STORE)
    assert code_of("run", place / "a.svs", "-o", out, *QUICK) == OK
    assert list((out / FOLDER / "parts").iterdir()) == []
