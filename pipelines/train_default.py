"""Train the default model from openly licensed images, the same on a CPU overnight and on a GPU in half an hour.

python pipelines/train_default.py --data ../shared/data --out runs/default [--set steps=40000] [--everything]

The trained weights end in OUT/model.safetensors, and with the cuts and the calibration that the validation images
chose in OUT/default.safetensors. `--everything --tuned-as FILE` is the final run, after all settings are fixed: it
trains on the validation images too and takes the cuts of an earlier one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from wsi_nuc.cli.train_progress import training_progress
from wsi_nuc.datasets.images import load_images
from wsi_nuc.training.compact.config import load_compact_config
from wsi_nuc.training.compact.finish import finish
from wsi_nuc.training.compact.train import train


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
    sets = placed(yaml.safe_load(config.read_text(encoding="utf-8"))["data"], data)
    if everything:
        sets["train"][0].pop("images")
    settings = load_compact_config(config, assign or [], {"out": out, "device": device, "data": sets})
    if everything and tuned_as is None:
        raise SystemExit("--everything leaves nothing to choose cuts on: name an earlier result with --tuned-as")
    with training_progress(quiet=False) as emit:
        trained = train(settings, emit)
    seen = load_images(settings.data.train, settings.classes, settings.mpp).images
    held_out = load_images(settings.data.validation, settings.classes, settings.mpp).images
    print(finish(trained, out / "default.safetensors", seen, held_out, tuned_as))


def placed(sets: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The sources with their paths below `folder`."""
    for kind in ("train", "validation"):
        for source in sets[kind]:
            source["path"] = str(folder / source["path"])
    return sets


if __name__ == "__main__":
    typer.run(main)
