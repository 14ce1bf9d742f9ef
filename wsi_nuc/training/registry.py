"""Training recipes by model family, and a training of any family from its settings to the trained file.

A new recipe needs a folder and a line here. On the command line:

    wsi-nuc train configs/tiny.yaml --out runs/tiny
    torchrun --nproc-per-node 8 -m wsi_nuc train configs/pannuke-123.yaml --out runs/pannuke
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from wsi_nuc.configuring import assigned_values, load_section, read_yaml
from wsi_nuc.errors import UsageError, choices
from wsi_nuc.training.config import TrainingConfig
from wsi_nuc.training.events import Emit, ignore
from wsi_nuc.training.loop import BEST, STATE, run_stage
from wsi_nuc.training.ranks import Ranks, join

RECIPES: dict[str, str] = {
    "promptnucseg": "wsi_nuc.training.promptnucseg.recipe",
    "compact": "wsi_nuc.training.compact.recipe",
    "instasam": "wsi_nuc.training.instasam.recipe",
    "classes": "wsi_nuc.training.classes.recipe",
}
# The family of files that do not name one.
USUAL = "promptnucseg"
MODEL = "model.safetensors"


class Recipe(Protocol):
    """What the module of a recipe holds."""

    CONFIG: type[TrainingConfig]
    """The schema of the family's settings."""

    def stages(self, config: Any, ranks: Ranks, emit: Emit) -> Iterator[Any]:
        """The stages (`loop.Stage`) in their order, each made when the one before it is done. After the last one,
        the first process writes the file with everything that was trained."""
        ...


def recipe(family: str) -> Recipe:
    if family not in RECIPES:
        raise UsageError(f"family {family}", "has no training", choices(family, RECIPES))
    return cast(Recipe, import_module(RECIPES[family]))


def load_train_config(
    family_or_file: str | Path | None, assignments: Iterable[str], options: Mapping[str, Any]
) -> TrainingConfig:
    """The checked settings of a training. A family alone means its defaults; a file may state its `family`."""
    assignments = list(assignments)
    if isinstance(family_or_file, str) and family_or_file in RECIPES:
        file, family = None, family_or_file
    else:
        file = None if family_or_file is None else Path(family_or_file)
        family = _family(file, family_or_file)
    family = str(assigned_values(assignments).get("family", family))
    schema = recipe(family).CONFIG
    if "dots" not in schema.model_fields:
        for key in (key for key, value in options.items() if key.startswith("dots.") and value is not None):
            learn = ", ".join(name for name in RECIPES if "dots" in recipe(name).CONFIG.model_fields)
            remedy = f"families that do: {learn or 'none yet'}"
            raise UsageError(key.replace("dots.", "--"), f"{family} does not learn from dots", remedy)
    return load_section(schema, file, assignments, {**options, "family": family})


def _family(file: Path | None, given: str | Path | None) -> str:
    if file is None:
        return USUAL
    if not file.exists() and file.suffix not in (".yaml", ".yml"):
        raise UsageError(str(given), "is neither a file nor the name of a family", choices(given, RECIPES))
    return str(read_yaml(file).get("family", USUAL))


def train(config: TrainingConfig, emit: Emit = ignore, overwrite: bool = False) -> Path:
    """Run all stages, or go on with a stopped one, and return the file of the trained model."""
    if config.threads:
        torch.set_num_threads(config.threads)
    chosen = recipe(config.family)
    with join(config.device) as ranks:
        emit = emit if ranks.first else ignore
        if overwrite and ranks.first:
            # Only what a training wrote is removed, since the folder may hold other files.
            for folder in {file.parent for name in (STATE, BEST) for file in config.out.glob(f"*/{name}")}:
                shutil.rmtree(folder, ignore_errors=True)
        ranks.wait()
        for stage in chosen.stages(config, ranks, emit):
            run_stage(stage, ranks, emit)
            ranks.wait()
        return config.out / MODEL
