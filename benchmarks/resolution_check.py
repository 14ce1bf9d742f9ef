"""How often the check of the resolution is right: images of known resolution, as they are and with a wrong header.

`python -m benchmarks.resolution_check [MODEL]`. The images lie in the folder that WSI_NUC_REAL_DATA names (else
../shared/data). They are patches of about 250 um and small slides; three synthetic slides are added. A patch holds
a few hundred nuclei at most, and a slide is sampled in several places. The default model was trained on most of
these images, but it has not seen MoNuSeg and the slides.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.table import Row, print_rows
from wsi_nuc.errors import SlideError
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.registry import load_model
from wsi_nuc.quality.resolution import FEWEST_NUCLEI, MppVerdict, check_mpp
from wsi_nuc.slides.overview import overview
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.tissue.find import tissue_for
from wsi_nuc.types import SlideRef

FACTORS, SMALL_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0), (1.0, 2.0)
FALSE_ALARMS = 0.1
PATCHES = {"consep": 0.25, "nucls15": 0.25, "monuseg": 0.25, "brca_m2c": 0.5}
SLIDES = {"CMU-1-Small-Region.svs": 0.499, "OS-1-detail.ome.tif": 0.2271}
EVERY = {"consep": 2, "brca_m2c": 5}


def images(drawn: Path, small: bool) -> Iterator[tuple[Path, float]]:
    """Path and true microns per pixel. A small run has only the synthetic slides."""
    data = Path(os.environ.get("WSI_NUC_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    for name, mpp in {} if small else PATCHES.items():
        for path in sorted((data / name / "images").glob("*.png"))[:: EVERY.get(name, 1)]:
            yield path, mpp
    for name, mpp in {} if small else SLIDES.items():
        if (data / "wsi" / name).is_file():
            yield data / "wsi" / name, mpp
    for seed in range(1 if small else 3):
        path = drawn / f"{seed}.svs"
        write_slide(path, SynthSpec(size=1500, mpp=0.25, seed=seed))
        yield path, 0.25


def judged(path: Path, mpp: float, model: NucleiModel) -> MppVerdict | None:
    """None where the slide is refused, because its pixels would be too coarse for the model."""
    source = open_slide(SlideRef(str(path)))
    try:
        return check_mpp(source, mpp, tissue_for(overview(source, mpp)), model)
    except SlideError:
        return None
    finally:
        source.close()


def measure(small: bool = False, name: str = "classical") -> list[Row]:
    model, rows = load_model(name), []
    with tempfile.TemporaryDirectory() as folder:
        listed = list(images(Path(folder), small))
        for factor in SMALL_FACTORS if small else FACTORS:
            verdicts = [judged(path, mpp * factor, model) for path, mpp in listed]
            refused = verdicts.count(None)
            known = [verdict for verdict in verdicts if verdict is not None and verdict.size_um is not None]
            doubted = [verdict for verdict in known if not verdict.fine]
            share = (len(doubted) + refused) / max(1, len(known) + refused)
            sizes = np.array([verdict.size_um for verdict in known])
            if factor == 1:
                low, high = np.percentile(sizes, [5, 95])
                rows.append(
                    Row(f"{name}: sizes where the header is right, low", low, "um", "(5th percentile)", True)
                )
                rows.append(Row(f"{name}: the same, high", high, "um", "(95th percentile)", True))
            images_of = f"{len(known)} images of >= {FEWEST_NUCLEI} nuclei, {refused} refused"
            what = f"{name}: doubted or refused at {factor:g} x the true mpp ({images_of})"
            target = f"<= {FALSE_ALARMS:g}" if factor == 1 else "the more the better"
            rows.append(Row(what, share, "share", target, factor != 1 or share <= FALSE_ALARMS))
            named = sum(
                verdict.implied_mpp is not None and abs(verdict.implied_mpp * factor / verdict.mpp - 1) < 0.1
                for verdict in doubted
            )
            if factor != 1 and doubted:
                rows.append(Row("  of these, the true value is named", named / len(doubted), "share"))
    return rows


if __name__ == "__main__":
    print_rows(measure(False, *sys.argv[1:2]))
