"""Train the default model from openly licensed images: overnight on a CPU, or in half an hour on a GPU.

python pipelines/train_default.py --data ../shared/data --out runs/default [--set steps=40000] [--everything]

The model ends up in OUT/model.safetensors, with the cuts and the calibration that the validation images chose.
`--everything --tuned-as FILE` is the final run, after all settings are fixed. It also trains on the validation
images, and takes the cuts of an earlier run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_nuc.cli.train_commands import training_progress
from wsi_nuc.training.registry import load_train_config, train


def main(
    data: Annotated[Path, typer.Option(help="Folder that holds the data sets.")],
    out: Annotated[Path, typer.Option(help="Where the training goes; the same folder resumes.")],
    config: Annotated[Path, typer.Option(help="What to train.")] = Path("configs/default_model.yaml"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    everything: Annotated[bool, typer.Option("--everything", help="Train on the validation images too.")] = False,
    tuned_as: Annotated[Path | None, typer.Option(help="Take the cuts of this finished file.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="key=value of the configuration.")] = None,
) -> None:
    """Train, or go on with a training that was stopped."""
    if everything and tuned_as is None:
        raise SystemExit("--everything leaves nothing to choose cuts on: name an earlier result with --tuned-as")
    given = {"out": out, "device": device, "tuned_as": tuned_as}
    settings = load_train_config(config, [*(assign or []), f"data.folder={data}"], given)
    if everything:
        sets = settings.data  # type: ignore[attr-defined]
        first = sets.train[0].model_copy(update={"images": ()})
        settings = settings.model_copy(
            update={"data": sets.model_copy(update={"train": (first, *sets.train[1:])})}
        )
    with training_progress(quiet=False) as emit:
        print(train(settings, emit))


if __name__ == "__main__":
    typer.run(main)
