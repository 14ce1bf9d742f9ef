"""One table of features: their columns and their documentation are made from it."""

from __future__ import annotations

import re

from wsi_nuc.features.registry import FAMILIES, features_of


def test_names_are_unique_documented_and_say_their_unit() -> None:
    features = features_of(("a", "b"), 2, dab=True)
    names = [feature.name for feature in features]
    assert len(set(names)) == len(names)
    assert len({name.lower() for name in names}) == len(names)
    assert {feature.family for feature in features} == set(FAMILIES)
    for feature in features:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", feature.name)
        assert all((feature.about, feature.range, feature.empty))
        if feature.unit in ("um", "um2", "rad"):
            assert feature.name.endswith(f"_{feature.unit}")
