"""The configuration: sources in their order, and errors that name key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from wsi_nuc.config import RunConfig
from wsi_nuc.configuring import MAX_CONFIG_BYTES, load_config
from wsi_nuc.errors import UsageError


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("out: a\nworkers: 1\nregion_size: 1024\nstitch: {iou: 0.4}\n")
    config = load_config(file, ["region_size=2048", "workers=2"], {"workers": 3, "mpp": None})
    assert (config.workers, config.region_size, config.stitch.iou) == (3, 2048, 0.4)
    assert config.out.name == "a"
    assert config.out.is_absolute()


def test_an_option_of_a_section_leaves_its_other_keys(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("stitch: {iou: 0.4, containment: 0.6}\n")
    config = load_config(file, [], {"stitch.iou": 0.3, "stitch.containment": None})
    assert (config.stitch.iou, config.stitch.containment) == (0.3, 0.6)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("region_sise=1", "region_size"),
        ("labls=true", "labels"),
        ("stitch.iuo=0.5", "iou"),
        ("dask.dashbord=true", "dashboard"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"unknown key {key.split('=', maxsplit=1)[0]}\. Did you mean {near}\?"):
        load_config(None, [key], {"out": tmp_path})


@pytest.mark.parametrize(
    "assignment",
    [
        "workers=0",
        "mpp=-1",
        "mpp=nan",
        "device=gpu",
        "region_size=x",
        "stitch.iou=2",
        "novalue",
        "a=[",
        "a=1,a.x=1",
    ],
)
def test_assignments_that_are_refused_are_named_with_cause_and_remedy(assignment: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(None, assignment.split(","), {"out": tmp_path})
    assert caught.value.subject.removeprefix("--set ").startswith(assignment.split("=", maxsplit=1)[0])
    assert caught.value.cause
    assert caught.value.remedy


def test_without_an_output_results_go_to_a_folder_of_that_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, [], {}).out == tmp_path / "results"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n- b\n", "holds a list"),
        (b"just text", "holds a str"),
        (b"a: [", "is not YAML"),
        (b"!!python/object/apply:os.system [echo]", "is not YAML"),
        (b"a: \xff", "is not text in UTF-8"),
        (b"#" * (MAX_CONFIG_BYTES + 1), "is not a configuration file"),
        (None, "does not exist"),
    ],
)
def test_files_that_are_not_a_configuration(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        load_config(file, [], {"out": tmp_path})
    assert caught.value.subject == str(file)
    assert caught.value.remedy


def test_a_folder_is_not_read_as_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)"):
        load_config(tmp_path, [], {})


def test_a_configuration_survives_yaml(tmp_path: Path) -> None:
    config = load_config(None, ["stitch.iou=0.25"], {"out": tmp_path, "labels": True})
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True)))
    assert load_config(file, [], {}) == config


def test_every_command_line_option_is_a_key_of_the_schema() -> None:
    import inspect

    from wsi_nuc.cli.run_command import run

    keys = {field.alias or name for name, field in RunConfig.model_fields.items()}
    assert set(inspect.signature(run).parameters) - {"slides", "config", "assign"} <= keys


def test_the_shipped_configuration_states_every_key_with_its_default() -> None:
    file = Path(__file__).parents[1] / "configs" / "run.yaml"
    stated = yaml.safe_load(file.read_text())
    defaults = RunConfig(out=Path("results")).model_dump(mode="json", by_alias=True)
    assert {**stated, "out": None} == {**defaults, "out": None}


def test_a_section_that_a_file_uses_twice_is_changed_in_one_place(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("stitch: &limits {iou: 0.4}\ndask: {slurm: {jobs: 3}}\ninference: *limits\n")
    config = load_config(file, ["inference.iou=0.1", "dask.slurm.cores=2"], {})
    assert (config.stitch.iou, config.inference) == (0.4, {"iou": 0.1})
    assert (config.dask.slurm.jobs, config.dask.slurm.cores) == (3, 2)
