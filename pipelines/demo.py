"""The first thing to run: a synthetic slide in, a verified store out, and a picture of the nuclei.

python pipelines/demo.py [--folder demo] [--size 4096]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from wsi_nuc import SlideResult, run_slides
from wsi_nuc.cli.progress import progress
from wsi_nuc.config import RunConfig
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.synth import SynthSpec, truth_path, write_slide
from wsi_nuc.types import Box, SlideRef

COLOURS = [(214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 187, 0)]
PICTURE_PX = 1024
SAME_NUCLEUS_IOU = 0.5


def main(
    folder: Annotated[Path, typer.Option(help="Where slide, result and picture go.")] = Path("demo"),
    size: Annotated[int, typer.Option(min=1024, help="Edge of the slide in pixels.")] = 4096,
) -> None:
    """Write a synthetic slide, run it, compare with the truth and draw the outlines."""
    folder.mkdir(parents=True, exist_ok=True)
    slide = folder / "demo.svs"
    if not (slide.exists() and truth_path(slide).exists()):
        print(f"writing {slide}, {size} x {size} px of synthetic H&E ...")
        write_slide(slide, SynthSpec(size=size, mpp=0.25, seed=7), overwrite=True)
    with progress(quiet=False) as emit:
        result = next(iter(run_slides(RunConfig(out=folder / "results"), [str(slide)], emit)))
    if result.error:
        raise SystemExit(result.error)
    picture = draw(slide, Path(result.store), folder / "nuclei.png")
    report(result, slide, picture)


def draw(slide: Path, store: Path, picture: Path) -> Path:
    """Draws the outlines in the densest square of the slide over its pixels, one colour per class."""
    nuclei = read_nuclei(store)
    source = open_slide(SlideRef(str(slide)))
    box = densest_box(nuclei, source.info.width, source.info.height)
    pixels = np.ascontiguousarray(source.read(0, box).rgb[:, :, ::-1])
    source.close()
    for geometry, class_id in zip(nuclei.geometry, nuclei.class_id, strict=True):
        ring = np.asarray(geometry.exterior.coords) - (box.x0, box.y0)
        # OpenCV counts from pixel centres, in 1/16 px here.
        points = np.round((ring - 0.5) * 16).astype(np.int32)
        cv2.polylines(pixels, [points], True, COLOURS[class_id % len(COLOURS)][::-1], 2, cv2.LINE_AA, 4)
    cv2.imwrite(str(picture), pixels)
    return picture


def read_nuclei(store: Path) -> Any:
    import geopandas

    return geopandas.read_parquet(store / "shapes" / "nuclei" / "shapes.parquet")


def densest_box(nuclei: Any, width: int, height: int) -> Box:
    """A square of PICTURE_PX within the slide, around the place with the most nuclei."""
    half = PICTURE_PX // 2
    bins = [np.arange(0, length + half, half) for length in (height, width)]
    counts = np.histogram2d(nuclei["y"].to_numpy(), nuclei["x"].to_numpy(), bins=bins)[0]
    row, column = np.unravel_index(np.argmax(counts), counts.shape)
    x0, y0 = (
        max(0, min(int(place) * half - half // 2, length - PICTURE_PX))
        for place, length in ((column, width), (row, height))
    )
    return Box(x0, y0, x0 + PICTURE_PX, y0 + PICTURE_PX)


def report(result: SlideResult, slide: Path, picture: Path) -> None:
    matched, drawn = agreement(Path(result.store), truth_path(slide))
    print(f"\n{result.nuclei:,} nuclei on {result.area_mm2:.2f} mm2 of tissue in {result.seconds:.1f} s")
    for name, count in result.classes.items():
        print(f"  {name:<14} {count:>7,}")
    print(f"of {drawn:,} nuclei that were drawn, {matched:,} are found with IoU >= {SAME_NUCLEUS_IOU}")
    print(f"store    {result.store}   (geopandas, DuckDB, spatialdata, napari, QuPath)")
    print(f"picture  {picture}")


def agreement(store: Path, truth: Path) -> tuple[int, int]:
    """How many of the drawn nuclei overlap enough with one of the store, and how many were drawn."""
    import geopandas
    import shapely

    drawn, stored = geopandas.read_parquet(truth).geometry.to_numpy(), read_nuclei(store).geometry.to_numpy()
    if not len(stored):
        return 0, len(drawn)
    of_drawn, of_stored = shapely.STRtree(stored).query(drawn, predicate="intersects")
    overlap = shapely.area(shapely.intersection(drawn[of_drawn], stored[of_stored]))
    union = shapely.area(drawn[of_drawn]) + shapely.area(stored[of_stored]) - overlap
    return len(np.unique(of_drawn[overlap / union >= SAME_NUCLEUS_IOU])), len(drawn)


if __name__ == "__main__":
    typer.run(main)
