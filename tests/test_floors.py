"""What pip may install: the floors of pyproject.toml and the pins that this project is tested with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# The last release with a known vulnerability. pyproject.toml names the advisories.
VULNERABLE = {
    "cryptography": "49.0.0",
    "distributed": "2025.12.0",
    "jinja2": "3.1.5",
    "numcodecs": "0.16.5",
    "opencv-python-headless": "4.11.0.86",
    "openslide-bin": "4.0.0.11",
    "pillow": "12.2.0",
    "pyarrow": "23.0.0",
    "torch": "2.9.1",
    "tornado": "6.5.7",
}


def _required() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"].values()
    texts = [*project["project"]["dependencies"], *(text for extra in optional for text in extra)]
    texts += [text for group in project["dependency-groups"].values() for text in group]
    return [
        requirement for requirement in map(Requirement, texts) if requirement.name != project["project"]["name"]
    ]


def _pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {
        canonicalize_name(name): Version(version) for name, _, version in (line.split("=", 2) for line in lines)
    }


def test_every_pin_meets_its_floor() -> None:
    pins = _pins()
    for requirement in _required():
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize(("name", "version"), VULNERABLE.items())
def test_no_floor_lets_in_what_is_known_to_be_vulnerable(name: str, version: str) -> None:
    (floor,) = [requirement for requirement in _required() if requirement.name == name]
    assert version not in floor.specifier
