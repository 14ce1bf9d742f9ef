"""Rows 20, 25, 27 and 28: slides that change, whose scale is unknown, that hold nothing, or share their name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import spatialdata
import tifffile
from PIL import Image

from tests.faults.one_run import assert_told, published, run_one
from tests.slides.make import APERIO, ome, svs
from tests.slides.multifile import SETS, jpeg
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import OK, SLIDES
from wsi_nuc.events import Event, RegionFinished, Warned
from wsi_nuc.run.session import run_session
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.store.manifest import read
from wsi_nuc.store.verify import verify
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.types import SlideRef

# For each kind of slide, a file that belongs to it beside the one that is named.
COMPANIONS = {"dicom": "half.dcm", "mirax": "slide/Data1.dat", "vms": "right.jpg", "vmu": "base.ngr"}


def replace(file: Path) -> None:
    """Changes the bytes but not the pixels, which only identity notices. A JPEG must end where its file does."""
    changed = file.with_name("changed")
    if file.suffix == ".jpg":
        jpeg(changed, np.asarray(Image.open(file)) // 2)
    else:
        changed.write_bytes(file.read_bytes() + b"\0")
    changed.replace(file)


@pytest.mark.parametrize("kind", ["one file", "deleted", *SETS])
def test_row_20_slide_replaced_during_the_run(kind: str, slide: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "slide", tmp_path / "out"
    folder.mkdir()
    path = SETS[kind](folder) if kind in SETS else Path(shutil.copyfile(slide, folder / slide.name))
    changed = folder / COMPANIONS.get(kind, path.name)
    injected = []

    def change(event: Event) -> None:
        if isinstance(event, RegionFinished) and not injected:
            injected.append(event)
            changed.unlink() if kind == "deleted" else replace(changed)

    assert_told(run_one(path, out, change), SLIDES, path, "changed during the run")
    assert injected
    assert published(out) == []
    if kind != "deleted":
        # It has become another slide, with regions of its own.
        again = run_one(path, out)
        assert again.exit_code == OK
        assert read(Path(again.store))["slide"]["sha256"] == content_sha256(SlideRef(str(path)))


SCALES: dict[str, Callable[[Path], Path]] = {
    "missing": lambda folder: svs(folder / "a.svs", APERIO.split("|")[0]),
    "0": lambda folder: svs(folder / "a.svs", APERIO.replace("MPP = 0.5", "MPP = 0")),
    "NaN": lambda folder: svs(folder / "a.svs", APERIO.replace("MPP = 0.5", "MPP = NaN")),
    "comma": lambda folder: svs(folder / "a.svs", APERIO.replace("MPP = 0.5", "MPP = 0,499")),
    "x is not y": lambda folder: ome(folder / "a.ome.tif", "0.25", "0.5"),
}


@pytest.mark.parametrize("scale", SCALES)
def test_row_25_microns_per_pixel_that_are_missing_or_cannot_be(scale: str, tmp_path: Path) -> None:
    path = SCALES[scale](tmp_path)
    assert_told(run_one(path, tmp_path / "out"), SLIDES, path, "Pass --mpp")
    assert published(tmp_path / "out") == []
    if scale == "missing":
        assert run_one(path, tmp_path / "out", mpp=0.5).exit_code == OK


def blank(path: Path) -> Path:
    write_slide(path, SynthSpec(size=512, mpp=0.5, seed=1, blank=True))
    return path


def pink(path: Path) -> Path:
    """A slide that is all tissue, without a nucleus."""
    pixels = np.full((512, 512, 3), (235, 160, 200), np.uint8)
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, pixels, resolution=(20000, 20000), resolutionunit="CENTIMETER", **options)
    return path


@pytest.mark.parametrize(
    ("make", "tissue", "labels"),
    [(blank, "auto", False), (blank, "none", True), (pink, "none", True)],
    ids=["blank", "blank, looked at", "no nuclei"],
)
def test_row_27_blank_slide_and_slide_without_nuclei(
    make: Callable[[Path], Path], tissue: str, labels: bool, tmp_path: Path
) -> None:
    path = make(tmp_path / "a.svs")
    messages: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            messages.append(event.message)

    result = run_one(path, tmp_path / "out", listen, tissue=tissue, labels=labels)
    assert (result.exit_code, result.status, result.nuclei) == (OK, "empty", 0), result
    assert (result.tiles["processed"] == 0) == (tissue == "auto")
    assert any("no tissue was found" in message for message in messages) == (tissue == "auto")
    store = Path(result.store)
    assert verify(store) == []
    nuclei = geopandas.read_parquet(store / "shapes/nuclei/shapes.parquet")
    assert len(nuclei) == 0
    assert {"class", "score", "area_um2", "geometry"} <= set(nuclei.columns)
    elements = spatialdata.read_zarr(store)
    assert "thumbnail" in elements
    assert ("nuclei_labels" in elements) == labels


def test_row_28_slides_of_one_name_and_names_of_any_kind(slide: Path, tmp_path: Path) -> None:
    names = ["a slide 🔬\n1.svs", "a slide 🔬\n1.tif", "=cmd.svs"]
    paths = []
    for number, name in enumerate([*names, names[0]]):
        (tmp_path / str(number)).mkdir()
        paths.append(tmp_path / str(number) / name)
        write_slide(paths[-1].with_suffix(".svs"), SynthSpec(512 + number, mpp=0.5, blank=True))
        paths[-1].with_suffix(".svs").rename(paths[-1])
    config = RunConfig(out=tmp_path / "out", scheduler="serial", model="classical")
    results = list(run_session(config, [*map(str, paths), str(slide)]))
    assert [result.exit_code for result in results] == [OK] * 5
    stores = [Path(result.store) for result in results]
    assert len(set(stores)) == 5
    for path, store in zip([*paths, slide], stores, strict=True):
        assert read(store)["slide"]["file"] == path.name
        assert read(store)["slide"]["sha256"] == content_sha256(SlideRef(str(path)))
    again = list(run_session(config, [*map(str, reversed(paths))]))
    assert [(result.status, Path(result.store)) for result in again] == [
        ("verified", store) for store in reversed(stores[:4])
    ]
