"""Tissue, plan and pixels of real slides and patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiling.scenes import ArraySource
from wsi_nuc.errors import SlideError
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.slides.overview import overview
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.tiling.plan import make_plan
from wsi_nuc.tiling.read import read_region
from wsi_nuc.tissue.find import Tissue, find_tissue
from wsi_nuc.types import SlideRef

pytestmark = pytest.mark.real_data
SPEC = ModelSpec("toy", ("nucleus",), 0.25, 256, 64, 48, 8, 8, "")

SLIDES = [
    ("CMU-1-Small-Region.svs", 0.499, (0.40, 0.60), "bright field"),
    ("TCGA-CR-7395-01A-01-TS1.crop.svs", 0.25, (0.75, 0.92), "bright field"),
    ("test3-DAPI-2-(387).ndpi", 0.228, (0.75, 0.98), "dark field"),
    ("camelyon_lowres_1152x700.dcm", 28.97, (0.25, 0.45), "bright field"),
    ("OS-1-detail.ome.tif", 0.227, (1.0, 1.0), "bright field, patch"),
]


def tissue_of(path: Path, mpp: float) -> Tissue:
    source = open_slide(SlideRef(str(path)))
    try:
        return find_tissue(overview(source, mpp))
    finally:
        source.close()


@pytest.mark.parametrize(("name", "mpp", "share", "method"), SLIDES)
def test_the_tissue_of_a_real_slide_has_the_share_that_one_sees(
    wsi: Path, name: str, mpp: float, share: tuple[float, float], method: str
) -> None:
    tissue = tissue_of(wsi / name, mpp)
    assert share[0] <= tissue.share <= share[1]
    assert tissue.method == method
    assert tissue.polygons.is_valid


def test_a_slide_without_a_tile_that_decodes_is_refused(wsi: Path) -> None:
    path = str(wsi / "edge" / "unreadable.svs")
    with pytest.raises(SlideError, match="nothing of the slide can be decoded") as caught:
        overview(open_slide(SlideRef(path)), 0.5)
    assert "Bogus marker length" in caught.value.cause
    assert "--allow-bad-tiles" not in str(caught.value)


@pytest.mark.parametrize("folder", ["consep", "monuseg"])
def test_every_patch_cut_out_of_tissue_is_tissue(real_data: Path, folder: str) -> None:
    shares = []
    for path in sorted((real_data / folder / "images").iterdir())[:8]:
        rgb = np.asarray(Image.open(path).convert("RGB"))
        shares.append(find_tissue(overview(ArraySource(rgb), 0.25)).share)
    assert shares == [1.0] * 8


def test_the_tiles_of_a_real_slide_put_together_are_the_slide(wsi: Path) -> None:
    source = open_slide(SlideRef(str(wsi / "CMU-1-Small-Region.svs")))
    view = overview(source, 0.499)
    tissue = find_tissue(view)
    plan = make_plan(source.info, 0.499, SPEC, tissue.polygons, 1024)
    tiles = [tile for task in plan.tasks() for tile in read_region(source, task)]
    source.close()
    canvas = np.full((plan.grid.height_grid, plan.grid.width_grid, 3), 255, np.uint8)
    known = np.zeros(canvas.shape[:2], np.bool_)
    for tile in tiles:
        core = tile.tile.core_box
        dx, dy = core.x0 - tile.tile.read_box.x0, core.y0 - tile.tile.read_box.y0
        canvas[core.y0 : core.y1, core.x0 : core.x1] = tile.rgb[dy : dy + core.height, dx : dx + core.width]
        known[core.y0 : core.y1, core.x0 : core.x1] = True
    # Only whole pixels of the view: its last row and column cover less of the slide than the others.
    rows, cols = (int(edge // view.l0_per_px) for edge in (source.info.height, source.info.width))
    box = [edge * view.l0_per_px / plan.grid.l0_per_grid for edge in (0, 0, cols, rows)]
    small = np.asarray(Image.fromarray(canvas).resize((cols, rows), Image.Resampling.BOX, box=box), np.float64)
    inside = np.asarray(Image.fromarray(known).resize((cols, rows), box=box)) > 0
    assert np.abs(small - view.rgb[:rows, :cols])[inside].mean() < 1.2
    assert {tile.status for tile in tiles} == {"ok"}
