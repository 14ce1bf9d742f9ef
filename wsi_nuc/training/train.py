"""A training from its settings to the file of the trained model, whatever the family.

wsi-nuc train configs/tiny.yaml --out runs/tiny
torchrun --nproc-per-node 8 -m wsi_nuc train configs/pannuke-123.yaml --out runs/pannuke
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from wsi_nuc.training.config import TrainingConfig
from wsi_nuc.training.events import Emit, ignore
from wsi_nuc.training.loop import BEST, STATE, run_stage
from wsi_nuc.training.ranks import join
from wsi_nuc.training.registry import recipe

MODEL = "model.safetensors"


def train(config: TrainingConfig, emit: Emit = ignore, overwrite: bool = False) -> Path:
    """Run all stages, or go on with those that were stopped, and return the file of the trained model."""
    if config.threads:
        torch.set_num_threads(config.threads)
    chosen = recipe(config.family)
    with join(config.device) as ranks:
        emit = emit if ranks.first else ignore
        if overwrite and ranks.first:
            # Only what a training wrote: the folder may hold other things.
            for folder in {file.parent for name in (STATE, BEST) for file in config.out.glob(f"*/{name}")}:
                shutil.rmtree(folder, ignore_errors=True)
        ranks.wait()
        for stage in chosen.stages(config, ranks, emit):
            run_stage(stage, ranks, emit)
            ranks.wait()
        return config.out / MODEL
