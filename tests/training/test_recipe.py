"""The recipe from labelled images to a scored model runs from end to end."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from pipelines.train import hold_out, main
from tests.training.tiny import draw
from wsi_nuc.datasets import load_dataset


@pytest.mark.slow
def test_the_recipe_trains_scores_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    data, folder = draw(tmp_path / "data", images=3), tmp_path / "own"
    short = ["train.together.epochs=1", "prompts.nuclei=2"]
    main(data, folder, Path(__file__).parents[2] / "configs" / "tiny.yaml", "cpu", short)
    assert "trained" in capsys.readouterr().out
    assert (folder / "scores" / "tables.md").exists()
    (name,) = hold_out(load_dataset(data))
    assert cv2.imread(str(folder / f"{name}.png")).shape == (512, 512, 3)


def test_no_group_is_on_both_sides(tmp_path: Path) -> None:
    dataset = load_dataset(draw(tmp_path / "data", images=9))
    held_out = hold_out(dataset)
    assert 0 < len(held_out) < len(dataset)
    groups = {entry.group for entry in dataset.entries if entry.id in held_out}
    assert not groups & {entry.group for entry in dataset.entries if entry.id not in held_out}
