"""The headers of `configs/`: what they name is all that a new user needs, and their commands work as written.

The header of a study lists the files that it starts from as `# - NAME: what`, and its commands are lines that
begin with `#   `. Here a shell expands the commands, in a folder that holds nothing else.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from typer.main import get_command

from tests.models.nets import official_sam
from tests.training.tiny import draw
from wsi_nuc.cli import app
from wsi_nuc.datasets import load_dataset
from wsi_nuc.evaluation.variants import EvaluateConfig, load_evaluate_config
from wsi_nuc.training.config import TrainingConfig

PROGRAM = get_command(app)
CONFIGS = Path(__file__).parents[2] / "configs"
STUDIES = {
    "tables-pannuke": ("Table 1", "Table 2", "Table 3"),
    "tables-kumar-cpm17": ("Table 4",),
    "tables-5": ("Table 5",),
    "ablations-cpm17": ("Table 6", "Table 7", "Overlap"),
    "tables-8": ("Table 8",),
    "tables-s2": ("Table S2",),
    "tables-s3": ("Table S3",),
}
TRAININGS = ("kumar", "cpm17", "pannuke-123", "pannuke-213", "pannuke-321", "class-token", "shared-encoder")
# Networks and trainings so small that all of them together take a minute.
SMALL = (
    "segmentor.size=vit_mini", "prompter.backbone=convnext_atto", "prompter.channels=16", "train.prompter.batch=2",
    "train.prompter.epochs=1", "train.segmentor.batch=2", "train.segmentor.epochs=1", "data.workers=0",
    "prompts.nuclei=4", "device=cpu", "precision=fp32", "use.precision=fp32",
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the comment at the top of a file says."""

    files: tuple[str, ...]
    script: str


def header(name: str) -> Header:
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    top = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    files = tuple(named[1] for line in top if (named := re.match(r"# - ([^:]+):", line)))
    return Header(files, "\n".join(line[4:] for line in top if line.startswith("#   ")))


def commands(name: str, folder: Path) -> list[list[str]]:
    """The arguments of each call of `wsi-nuc` that a shell makes of the header's commands."""
    shutil.copytree(CONFIGS, folder / "configs")
    note = f"""wsi-nuc() {{ printf '%s\\0' "$@" >> calls; printf '\\n' >> calls; }}\n{header(name).script}"""
    done = subprocess.run(["bash", "-euc", note], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [call.split("\0")[:-1] for call in (folder / "calls").read_text().splitlines()]


def called(*arguments: str) -> str:
    done = CliRunner().invoke(PROGRAM, arguments, catch_exceptions=False)
    assert done.exit_code == 0, (arguments, done.stderr)
    return done.stdout


@pytest.mark.parametrize("name", [*STUDIES, *TRAININGS])
def test_the_commands_of_a_header_need_only_what_it_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command is parsed and its configuration checked; nothing is trained, since the networks are large."""
    monkeypatch.chdir(tmp_path)
    settings: list[TrainingConfig | EvaluateConfig] = []
    monkeypatch.setattr(
        "wsi_nuc.training.registry.train", lambda config, *_: settings.append(config) or config.out
    )
    monkeypatch.setattr("wsi_nuc.evaluation.variants.evaluate_variants", lambda config, _: settings.append(config))
    monkeypatch.setattr("wsi_nuc.evaluation.report.write_report", lambda *_: "")
    calls = commands(name, tmp_path)
    for call in calls:
        called(*call)
    assert len(settings) == len(calls) > 0
    named = [tmp_path / file for file in header(name).files]
    made: set[Path] = set()
    for config in settings:
        if isinstance(config, EvaluateConfig):
            assert {tmp_path / variant.model for variant in config.variants.values()} == made
            sources = [source for column in config.data.values() for source in (column, *column.more)]
        else:
            made.add(config.out / "model.safetensors")
            sources = [*config.data.train, *config.data.validation]
            assert config.init
            assert name in TRAININGS or {tmp_path / file for file in config.init} <= set(named)
        for source in sources:
            path = tmp_path / source.path
            assert name in TRAININGS or path in named or path.parent in named


@pytest.mark.parametrize("name", STUDIES)
def test_every_file_that_a_header_names_is_used_and_every_table_is_asked_for(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    body = text[text.index("\ndata:") :] + header(name).script
    used = body + "".join(
        (CONFIGS / f"{training}.yaml").read_text() for training in TRAININGS if training in body or "$" in body
    )
    assert [file for file in header(name).files if file not in used] == []
    tables = load_evaluate_config(CONFIGS / f"{name}.yaml", [], {}, {}).tables
    assert tuple(f"Table {t}" if t != "overlap" else "Overlap" for t in tables) == STUDIES[name]
    assert header(name).script.splitlines()[-1].startswith(f"wsi-nuc evaluate --config configs/{name}.yaml")


def small_pannuke(root: Path) -> None:
    """Three folds of three images of 256 px, with nuclei of all five classes in two tissues."""
    for fold in (1, 2, 3):
        drawn = draw(root / f"drawn{fold}", images=3, nuclei=15, seed=fold)
        folder = root / f"fold{fold}"
        folder.mkdir(parents=True)
        images = list(load_dataset(drawn))
        masks = np.zeros((3, 256, 256, 6))
        for i, image in enumerate(images):
            assert image.instances is not None
            for c in range(5):
                masks[i, ..., c] = np.where(image.instances % 5 == c, image.instances, 0)
        np.save(folder / "images.npy", np.stack([image.rgb for image in images]).astype(float))
        np.save(folder / "masks.npy", masks)
        np.save(folder / "types.npy", np.array(["Adrenal_gland", "Breast", "Breast"]))
        shutil.rmtree(drawn)


def generate(file: str, folder: Path) -> None:
    """A small stand-in for a file or folder that a header names."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.startswith("sam_"):
        torch.save(official_sam("vit_mini").state_dict(), path)
    elif file.startswith("convnext"):
        import timm

        torch.save(timm.create_model("convnext_atto", num_classes=0).state_dict(), path)
    elif file == "data/pannuke":
        small_pannuke(path)
    elif file in ("data/kumar", "data/cpm17"):
        # The images of train and test have the same names, as those of CPM-17 have.
        for split, seed in (("train", 1), ("test", 1)):
            draw(path / split, images=2, nuclei=10, seed=seed)
    elif file == "data/tnbc":
        drawn = draw(path / "drawn", images=2, nuclei=10, seed=3)
        (drawn / "images").rename(path / "Slide_01")
        (drawn / "labels").rename(path / "GT_01")
    else:
        draw(path, images=2, nuclei=10, seed=1)


def run_of(name: str, folder: Path) -> str:
    """What the last command of a header prints, after all before it have run on small networks."""
    for file in header(name).files:
        generate(file, folder)
    for call in commands(name, folder):
        small = (
            [f"--set={change}" for change in SMALL] if call[0] == "train" else ["--device=cpu", "--set=draws=50"]
        )
        printed = called(*call, *small, "-q")
    return printed


@pytest.mark.parametrize(
    "name", [name if name == "tables-s3" else pytest.param(name, marks=pytest.mark.slow) for name in STUDIES]
)
@pytest.mark.timeout(1800)
def test_a_new_user_gets_the_tables_by_the_commands_of_the_header(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    printed = run_of(name, tmp_path)
    (written,) = (tmp_path / "tables").glob("*/scores.json")
    scores = json.loads(written.read_text(encoding="utf-8"))
    tables = {table["number"]: table for table in scores["tables"]}
    for number in STUDIES[name]:
        assert number in printed
        quoted = ["(quoted)" in f"{group} {kind}" for group, kind in tables[number]["columns"]]
        assert any(quoted) == (number != "Overlap")
        for row, cells in tables[number]["rows"].items():
            measured = [cell for cell, is_quoted in zip(cells, quoted, strict=True) if not is_quoted]
            # Of the paper's 19 tissues, only two are drawn here. Every other row of the paper is measured.
            assert number == "Table 1" or None not in measured, (number, row)
    assert "Intervals" in tables
    assert all(set(result["intervals"]) >= {"AJI", "PQ", "F1"} for result in scores["results"])
