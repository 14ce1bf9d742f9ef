"""Written slides open in the usual readers and carry their truth."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import openslide
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
import tiffslide

from wsi_nuc.errors import UsageError
from wsi_nuc.synth import CLASSES, SynthSpec, SynthTruth, synth_slide, write_slide
from wsi_nuc.synth.paint import GLASS, Painter
from wsi_nuc.types import Box

WIDTH, HEIGHT = 2100, 700


@pytest.fixture(scope="module", params=[".svs", ".ome.tif"])
def written(request, tmp_path_factory) -> SynthTruth:
    folder = tmp_path_factory.mktemp("synth")
    return synth_slide(folder, WIDTH, request.param, height=HEIGHT, mpp=0.2525, seed=5, tissue=0.7, quality=95)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_openslide_knows_size_and_resolution(written):
    with openslide.OpenSlide(written.slide) as slide:
        svs = written.slide.suffix == ".svs"
        assert slide.dimensions == (WIDTH, HEIGHT)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.2525, rel=1e-6)
        assert slide.properties["openslide.vendor"] == ("aperio" if svs else "generic-tiff")
        if svs:
            assert slide.level_dimensions == ((WIDTH, HEIGHT), (525, 175), (131, 43))
            assert slide.properties["openslide.objective-power"] == "40"
            assert set(slide.associated_images) == {"thumbnail"}


def test_tifffile_and_tiffslide_see_one_pyramid(written):
    with tifffile.TiffFile(written.slide) as tiff:
        assert tiff.is_svs or tiff.is_ome
        assert [level.shape for level in tiff.series[0].levels] == [
            (HEIGHT, WIDTH, 3),
            (175, 525, 3),
            (43, 131, 3),
        ]
    with tiffslide.TiffSlide(written.slide) as slide:
        assert slide.level_count == 3
        assert slide.properties["tiffslide.mpp-x"] == pytest.approx(0.2525)


def test_pixels_are_the_painted_ones(written):
    with openslide.OpenSlide(written.slide) as slide:
        seen = np.asarray(slide.read_region((100, 200), 0, (300, 400)).convert("RGB")).astype(int)
    painted = Painter(written.spec).region(Box(100, 200, 400, 600)).astype(int)
    assert np.abs(seen - painted).mean() < 3


def test_each_level_is_the_mean_of_the_finest(written):
    with tifffile.TiffFile(written.slide) as tiff:
        # JPEG subsamples the colour channels, so only the brightness has to agree.
        finest, *smaller = [level.asarray() @ np.array([0.299, 0.587, 0.114]) for level in tiff.series[0].levels]
    for level, factor in zip(smaller, (4, 16), strict=True):
        rows, columns = level.shape
        cut = finest[: rows * factor, : columns * factor]
        mean = cut.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
        assert np.abs(mean - level).mean() < 1.5
        assert np.corrcoef(mean.ravel(), level.ravel())[0, 1] > 0.99


def test_truth_is_geoparquet_of_valid_polygons_inside_the_slide(written):
    truth = geopandas.read_parquet(written.truth)
    assert list(truth.columns) == ["id", "class", "geometry"]
    assert len(truth) == written.nuclei > 150
    assert truth["id"].is_unique
    assert truth["class"].value_counts().to_dict() == {k: v for k, v in written.classes.items() if v}
    assert tuple(written.classes) == CLASSES
    assert truth.geometry.is_valid.all()
    assert (truth.geom_type == "Polygon").all()
    assert truth.geometry.within(shapely.box(0, 0, WIDTH, HEIGHT)).all()
    area_um2 = truth.area * written.spec.mpp**2
    assert area_um2.between(3, 200).all()
    geo = json.loads(pq.read_schema(written.truth).metadata[b"geo"])
    assert geo["columns"][geo["primary_column"]] == {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}


def test_same_spec_same_bytes_other_seed_other_slide(tmp_path):
    first, again, other = (tmp_path / f"{name}.svs" for name in ("first", "again", "other"))
    summaries = [
        write_slide(path, SynthSpec(size=700, seed=seed, tissue=1.0))
        for path, seed in ((first, 1), (again, 1), (other, 2))
    ]
    assert sha256(first) == sha256(again) != sha256(other)
    assert sha256(summaries[0].truth) == sha256(summaries[1].truth) != sha256(summaries[2].truth)


def test_blank_slide_is_all_glass_with_an_empty_truth(tmp_path):
    summary = write_slide(tmp_path / "blank.svs", SynthSpec(size=5000, blank=True))
    assert summary.nuclei == 0
    assert geopandas.read_parquet(summary.truth).empty
    # Every tile shares the same bytes.
    assert summary.slide.stat().st_size < 60_000
    with openslide.OpenSlide(summary.slide) as slide:
        view = np.asarray(slide.get_thumbnail((500, 500)).convert("RGB"))
    assert (np.abs(view.astype(int) - GLASS) <= 2).all()


@pytest.mark.parametrize("size", [16, 255, 257, 1024])
def test_odd_sizes_open(tmp_path, size):
    summary = write_slide(tmp_path / "odd.svs", SynthSpec(size=size, tissue=1.0))
    with openslide.OpenSlide(summary.slide) as slide:
        assert slide.dimensions == (size, size)
        slide.read_region((0, 0), slide.level_count - 1, (8, 8))


@pytest.mark.parametrize("name", ["slide.png", "slide.tif", "slide"])
def test_unknown_format_names_the_known_ones(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.svs, \.ome\.tif"):
        write_slide(tmp_path / name)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="folder does not exist"):
        write_slide(tmp_path / "nowhere" / "a.svs")


@pytest.mark.parametrize(
    "bad", [{"size": 3}, {"mpp": 0.0}, {"mpp": float("nan")}, {"tissue": 1.2}, {"tissue": "much"}, {"quality": 0}]
)
def test_a_value_out_of_range_is_named(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        SynthSpec(**bad)


def test_a_failure_leaves_nothing_behind(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_slide(tmp_path / "a.svs", SynthSpec(size=600), progress=stop)
    assert not list(tmp_path.iterdir())


_SPARSE = """
import re, sys
from pathlib import Path
from wsi_nuc.synth import SynthSpec, write_slide
write_slide(sys.argv[1], SynthSpec(size=512, tissue=1.0))
def peak_kib():  # ru_maxrss would begin with the size of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak_kib()
write_slide(sys.argv[2], SynthSpec(size=int(sys.argv[3]), seed=3, tissue=0.03))
print(peak_kib() - before)
"""


@pytest.mark.slow
def test_a_sparse_slide_costs_little_memory_and_disk(tmp_path):
    size = 33_000  # just above the size from which the file is BigTIFF
    slide = tmp_path / "sparse.svs"
    command = [sys.executable, "-c", _SPARSE, str(tmp_path / "warm.svs"), str(slide), str(size)]
    grown_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # Its pixels are 3.3 GB. Memory holds a row of blocks and the tiles on their way into the file.
    assert grown_kib < 256 * 1024
    assert slide.stat().st_size < 40e6
    assert slide.read_bytes()[2] == 43
    with openslide.OpenSlide(slide) as opened:
        assert opened.dimensions == (size, size)
        assert opened.level_count == 4
