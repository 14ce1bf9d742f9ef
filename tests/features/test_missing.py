"""Where the file holds no usable data, a nucleus has a shape and neighbours but no stain, not even white."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.e2e.command import wsi_nuc
from tests.features.build import made_from, publish_nuclei
from tests.features.tissue import NAMES, Tissue, measured
from tests.store.build import CLASSES
from wsi_nuc.config import RunConfig
from wsi_nuc.events import Warned
from wsi_nuc.features.registry import features_of
from wsi_nuc.features.running import run_slides
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.store.manifest import read
from wsi_nuc.types import SlideRef, UInt8

CHUNK = 128
OF_PIXELS = [f.name for f in features_of(CLASSES) if f.family in ("stain", "texture", "boundary")]


def zarr_slide(path: Path, rgb: UInt8, mpp: float) -> SlideRef:
    group = zarr.create_group(path)
    group.create_array("0", data=rgb, chunks=(CHUNK, CHUNK, 3))
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [mpp, mpp, 1.0]}]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": [*axes, {"name": "c", "type": "channel"}], "datasets": datasets}],
    }
    return SlideRef(str(path), mpp=mpp)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("mpp", [0.5, 0.25, 1 / 3])
def test_nuclei_on_a_missing_or_damaged_chunk_have_no_stain(tmp_path: Path, mpp: float, damaged: bool) -> None:
    """At the resolution of the features, at one that is twice as fine, and at one that is resampled."""
    tissue = Tissue.of(36)
    slide = zarr_slide(tmp_path / "x.zarr", tissue.rgb(mpp), mpp)
    gone = tmp_path / "x.zarr" / "0" / "c" / "0" / "0" / "0"
    if damaged:
        gone.write_bytes(b"no chunk")
    else:
        gone.unlink()
    made = made_from(content_sha256(slide), mpp, round(tissue.edge_um / mpp))
    columns = measured(slide, publish_nuclei(tmp_path / "out", tissue.table(mpp), made=made))
    ends_um = CHUNK * mpp
    starts = tissue.offsets[:-1]
    high, low = np.maximum.reduceat(tissue.xy_um, starts), np.minimum.reduceat(tissue.xy_um, starts)
    within = (high < ends_um - 1).all(axis=1)
    outside = (low > ends_um + 4).any(axis=1)
    assert within.sum() > 0
    assert outside.sum() > 0
    for name in OF_PIXELS:
        assert np.isnan(columns[name][within]).all(), name
        assert np.isfinite(columns[name][outside]).all(), name
    for name in set(NAMES) - set(OF_PIXELS):
        assert np.isfinite(columns[name]).all(), name


@pytest.mark.parametrize("mpp", [0.53, 0.55, 1.0])
def test_a_coarse_scan_is_not_enlarged(tmp_path: Path, mpp: float) -> None:
    tissue = Tissue.of(100, edge_um=round(256 / mpp) * mpp)
    slide = zarr_slide(tmp_path / "x.zarr", tissue.rgb(mpp), mpp)
    made = made_from(content_sha256(slide), mpp, round(tissue.edge_um / mpp))
    columns = measured(slide, publish_nuclei(tmp_path / "out", tissue.table(mpp), made=made))
    for name in NAMES:
        assert np.isnan(columns[name]).all() == (name in OF_PIXELS and mpp > 0.53), name


def test_the_manifest_and_a_warning_say_what_a_coarse_scan_lacks(tmp_path: Path) -> None:
    mpp, told = 0.6, []
    slide = zarr_slide(tmp_path / "x.zarr", Tissue.of(100, edge_um=240).rgb(mpp), mpp)

    def run(folder: str, **options: Any) -> dict[str, Any]:
        config = RunConfig(out=tmp_path / folder, scheduler="serial", model="classical", mpp=mpp, **options)
        (result,) = run_slides(config, [slide.path], told.append)
        assert not result.error
        return read(Path(result.store))

    assert "not_measured" not in run("later")["counts"]
    assert not [event for event in told if isinstance(event, Warned)]
    at_once, later = run("at once", features=True), run("later", features=True)
    assert at_once["digest"] == later["digest"]
    (note,) = later["counts"]["not_measured"]
    assert note.startswith("stain, texture and boundary: they are measured at 0.5 um per pixel")
    warnings = [event.message for event in told if isinstance(event, Warned)]
    assert warnings == [f"left empty: {note}"] * 2
    stored = wsi_nuc("features", tmp_path / "later/x.zarr.zarr", "--slide", slide.path)
    assert note in stored.stderr
