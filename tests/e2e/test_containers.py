"""The containers: both recipes install the wheel alone, and what they install works for any user, offline."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.command import manifest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "pipelines" / "containers"
PROGRAMS = ("debootstrap", "bwrap", "chroot", "unshare")
USER, GROUP = 12_345, 54_321


def docker() -> list[str]:
    """The instructions of Docker's recipe, each on one line, without comments."""
    text = re.sub(r"^\s*#.*\n", "", (RECIPES / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line.strip() for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line.strip()]


def section(name: str) -> str:
    """A section of the recipe for Apptainer."""
    parts = re.split(r"^%(\w+)\n", (RECIPES / "apptainer.def").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


def install() -> str:
    """The command by which Docker's recipe installs."""
    (command,) = [line.removeprefix("RUN ") for line in docker() if line.startswith("RUN ")]
    return command


def test_both_recipes_install_by_the_same_command_and_copy_nothing_but_the_folder_of_wheels() -> None:
    assert install() in re.sub(r"\s*\\\n\s*", " ", section("post"))
    assert [line.split()[1:] for line in docker() if line.startswith(("COPY ", "ADD "))] == [
        [".", "/wheels"],
        ["--from=build", "/opt/wsi-nuc", "/opt/wsi-nuc"],
    ]
    assert section("files").split() == ["dist", "/wheels"]
    assert "docker build -f Dockerfile -t wsi-nuc dist" in (RECIPES / "README.md").read_text()


def test_both_recipes_start_from_the_same_image_of_the_python_that_the_pins_are_for() -> None:
    images = {line.split()[1] for line in docker() if line.startswith("FROM ")}
    images |= set(re.findall(r"^From: (\S+)", (RECIPES / "apptainer.def").read_text(), re.MULTILINE))
    (python,) = re.findall(r"for Python (3\.\d+)", (ROOT / "constraints.txt").read_text())
    assert images == {f"python:{python}-slim"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Debian's Python in place of the base image, and in it what the recipes do. It needs no network, since all
    wheels lie in the folder."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking or os.geteuid() or sys.version_info[:2] != (3, 11):
        pytest.skip("needs root, Python 3.11, debootstrap and bwrap (apt-get install debootstrap bubblewrap)")
    tree = tmp_path / "root"
    called(["debootstrap", "--variant=minbase", "--include=python3,python3-venv", "bookworm", tree])
    wheels, pins = tree / "wheels", ROOT / "constraints.txt"
    called([sys.executable, "-m", "build", "--wheel", "--outdir", wheels, ROOT])
    shutil.copy(pins, wheels)
    (wheel,) = wheels.glob("wsi_nuc-*.whl")
    called([sys.executable, "-m", "pip", "wheel", "-q", "-w", wheels, "-c", pins, f"{wheel}[dicom]"])
    script = section("post").replace("{{ TORCH_INDEX }}", "")
    shell = ["env", "-i", "PATH=/usr/bin:/bin", "HOME=/root", "PIP_NO_INDEX=1", "sh", "-ec", script]
    called(["unshare", "--net", "chroot", tree, *shell])
    (tree / "data").mkdir()
    return tree


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_anybody_runs_it_offline_on_a_read_only_root(tree: Path, tmp_path: Path) -> None:
    """With the default model, whose weights are therefore inside."""
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, USER, GROUP)
    within(tree, data, "wsi-nuc synth s.svs --size 1024")
    within(tree, data, "wsi-nuc run s.svs --out results --workers 2")
    within(tree, data, "wsi-nuc verify results/s.svs.zarr")
    store = data / "results" / "s.svs.zarr"
    assert manifest(store)["counts"]["nuclei"] > 100
    assert (store.stat().st_uid, store.stat().st_gid) == (USER, GROUP)
    within(tree, data, "! touch /opt/anything")


def within(tree: Path, data: Path, command: str) -> None:
    """As `docker run --user --network none --read-only --tmpfs /tmp -v` with the environment of the recipe."""
    set_to = dict(pair.split("=", 1) for line in docker() if line.startswith("ENV ") for pair in line.split()[1:])
    set_to["PATH"] = set_to["PATH"].replace("$PATH", "/usr/bin:/bin")
    environment = [part for name, value in set_to.items() for part in ("--setenv", name, value)]
    box = ["bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--clearenv", *environment]
    mounts = ["--ro-bind", tree, "/", "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]
    user = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"]
    called([*box, *mounts, "--bind", data, "/data", "--chdir", "/data", *user, "sh", "-c", command])


def called(command: Sequence[object]) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
