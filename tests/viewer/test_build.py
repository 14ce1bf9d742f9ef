"""What is shipped as the page is what its sources and its lock file give."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB, STATIC = ROOT / "viewer-web", ROOT / "wsi_nuc" / "viewer" / "static"
# What npm says where no registry can be reached.
UNREACHABLE = re.compile(
    r"E(NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|TIMEDOUT|HOSTUNREACH|NETUNREACH)|code E40[0-9]"
)


def test_the_page_is_built_again_to_the_same_bytes(tmp_path: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("no npm on this machine")
    web = shutil.copytree(WEB, tmp_path / "web", ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"], cwd=web, capture_output=True, text=True, check=False, timeout=240
    )
    if installed.returncode and UNREACHABLE.search(installed.stderr):
        pytest.skip(f"npm reaches no registry: {installed.stderr.strip().splitlines()[0]}")
    assert installed.returncode == 0, installed.stderr
    subprocess.run(["node", "build.mjs", str(tmp_path / "built")], cwd=web, check=True, timeout=120)
    built = {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()}
    shipped = {path.name: path.read_bytes() for path in STATIC.iterdir()}
    assert sorted(built) == sorted(shipped)
    assert [name for name in built if built[name] != shipped[name]] == []


def test_the_lock_file_names_no_host_and_pins_every_package() -> None:
    packages = json.loads((WEB / "package-lock.json").read_text())["packages"]
    named = {name: facts for name, facts in packages.items() if name}
    assert {"node_modules/esbuild", "node_modules/openseadragon"} <= set(named)
    assert [name for name, facts in named.items() if "resolved" in facts or not facts.get("integrity")] == []


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for name in ("index.html", "viewer.css"):
        text = (STATIC / name).read_text()
        assert "//" not in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
