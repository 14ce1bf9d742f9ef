"""One table of features: the documentation, the listing and the columns are made from it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.command import wsi_nuc
from wsi_nuc.features.registry import FAMILIES, TABLE, document, features_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "features.md"


def test_the_documentation_is_the_table() -> None:
    assert DOCUMENT.read_text() == document(), "write wsi_nuc.features.registry.document() to docs/features.md"


def test_names_are_unique_documented_and_say_their_unit() -> None:
    features = features_of(("a", "b"), 2)
    names = [feature.name for feature in features]
    assert len(set(names)) == len(names)
    assert len({name.lower() for name in names}) == len(names)
    assert {feature.family for feature in features} == set(FAMILIES)
    for feature in features:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", feature.name)
        assert feature.about
        if feature.unit in ("um", "um2", "rad"):
            assert feature.name.endswith(f"_{feature.unit}")


def test_the_command_lists_every_feature() -> None:
    done = wsi_nuc("features", "--list")
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert listed == [feature.name for feature in TABLE]
