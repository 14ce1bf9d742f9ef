"""For a name that it lacks, every registry names the nearest name that it has, and all of its names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from wsi_nuc.datasets import registry as datasets
from wsi_nuc.errors import ModelError, UsageError
from wsi_nuc.exporting import registry as exporting
from wsi_nuc.importing import registry as importing
from wsi_nuc.models import registry as models
from wsi_nuc.slides import registry as slides
from wsi_nuc.training import registry as training

REGISTRIES: dict[str, tuple[Callable[[str], object], Iterable[str], type[Exception]]] = {
    "datasets": (datasets.reader, datasets.READERS, datasets.DataError),
    "exporting": (exporting.format_of, exporting.FORMATS, UsageError),
    "importing": (importing.reader, importing.READERS, UsageError),
    "models": (models.family_module, models.FAMILIES, ModelError),
    "slides": (slides.load, slides.READERS, UsageError),
    "training": (training.recipe, training.RECIPES, UsageError),
}


@pytest.mark.parametrize("room", REGISTRIES)
def test_a_slip_of_the_pen_is_met_with_the_nearest_name_and_all_others(room: str) -> None:
    look_up, names, kind = REGISTRIES[room]
    for name in names:
        with pytest.raises(kind) as caught:
            look_up(f"{name}x")
        assert f"did you mean {name}?" in str(caught.value).lower()
        assert all(known in str(caught.value) for known in names)


@pytest.mark.parametrize("room", REGISTRIES)
def test_a_name_like_no_other_is_met_with_the_choice_alone(room: str) -> None:
    look_up, names, kind = REGISTRIES[room]
    with pytest.raises(kind) as caught:
        look_up("0000")
    assert "did you mean" not in str(caught.value).lower()
    assert all(known in str(caught.value) for known in names)
