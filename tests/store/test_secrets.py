"""Only its owner can read a key, and a later run removes it at the latest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.private import SecretFile, remove_abandoned

KILLED = """
import os, sys
from pathlib import Path
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.private import SecretFile
kept = SecretFile(made_folder(Path(sys.argv[1])) / "keys", "secret")
os.kill(os.getpid(), 9)
"""


def test_a_key_is_private_and_vanishes_with_its_run(tmp_path: Path) -> None:
    key = SecretFile(made_folder(tmp_path) / "keys", "secret")
    assert key.path.read_text() == "secret"
    assert key.path.stat().st_mode & 0o777 == 0o600
    remove_abandoned(made_folder(tmp_path) / "keys")
    assert key.path.exists()
    key.close()
    assert not list((tmp_path / "keys").iterdir())


def test_the_key_of_a_killed_run_is_swept(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert len(list((tmp_path / "keys").glob("*.pem"))) == 1
    remove_abandoned(made_folder(tmp_path) / "keys")
    assert not list((tmp_path / "keys").iterdir())
