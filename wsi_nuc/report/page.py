"""One slide's page: what stands on it. `templates/page.html` says how it looks and escapes every value."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

import wsi_nuc
from wsi_nuc.report.figures import BEST, BIN_UM, DOUBTFUL, TYPICAL, Figures, figures_of
from wsi_nuc.report.pictures import density_picture, nucleus_picture, slide_picture, smoothed
from wsi_nuc.report.text import environment
from wsi_nuc.slides.identity import refuse_other
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.durable import atomic_write
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import Json
from wsi_nuc.store.reading import read_tissue
from wsi_nuc.types import SlideRef

SUFFIX = ".report.html"
# Classes with pictures: the most frequent ones.
MOST_CLASSES = 12
GOOD, LOOK, UNKNOWN = "done", "pending", "refused"
"""Names of colours: nothing to say, worth a look, not known."""
KINDS = {
    BEST: "Surest: highest score times probability of the class.",
    TYPICAL: "Drawn at random.",
    DOUBTFUL: "Most doubtful: lowest score times probability of the class.",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A line of the quality checks."""

    name: str
    state: str
    """GOOD, LOOK or UNKNOWN."""
    text: str


def report_path(store: Path) -> Path:
    """The page beside a store: slide.svs.zarr -> slide.svs.report.html."""
    return store.with_name(store.name.removesuffix(".zip").removesuffix(".zarr") + SUFFIX)


def write_report(store: Path, slide: SlideRef | None, out: Path | None = None, compared: bool = False) -> Path:
    """Write the page and return its path. Without the slide it has no pictures of single nuclei.

    `compared`: the slide is known to be that of the result, as after a run. Otherwise its content is hashed.
    """
    manifest = manifests.read(store)
    if slide is not None and not compared:
        refuse_other(slide, str(manifest["made_from"]["slide_sha256"]), "give the slide with --slide")
    figures = figures_of(store, manifest)
    page = (
        environment("wsi_nuc.report")
        .get_template("page.html")
        .render(
            **_facts(store, manifest, figures),
            checks=checks(manifest, figures),
            classes=_classes(manifest, figures),
            maps=_maps(figures),
            examples=_examples(manifest, figures, slide),
            kinds=KINDS,
            no_slide=slide is None,
        )
    )
    target = out or report_path(store)
    atomic_write(made_folder(target.parent) / target.name, page.encode("utf-8", "backslashreplace"))
    return target


def _facts(store: Path, manifest: Json, figures: Figures) -> dict[str, Any]:
    slide, counts, made, tiles = (manifest[name] for name in ("slide", "counts", "made_from", "tiles"))
    usable, nuclei = counts.get("usable_mm2") or 0.0, counts["nuclei"]
    polygons, _ = read_tissue(store)
    rings = [np.array(ring.coords) for ring in shapely.get_exterior_ring(shapely.get_parts(polygons))]
    bad = [box for name in ("failed", "missing", "damaged") for box in tiles.get(f"{name}_boxes_l0", [])]
    return {
        "name": slide["file"],
        "made": f"model {made['config'].get('model', 'of another program')}, wsi-nuc {wsi_nuc.__version__}",
        "tiles": [
            (f"{nuclei:,}", "nuclei"),
            (f"{usable:,.3g}", "mm\u00b2 of usable tissue"),
            (f"{nuclei / usable:,.0f}" if usable else "", "nuclei per mm\u00b2"),
            (f"{slide['mpp']:.4g}", f"\u00b5m per pixel ({slide.get('mpp_source', 'stated')})"),
        ],
        "picture": slide_picture(store, int(slide["width_px"]), rings, bad),
        "seconds": sorted(manifest["run"].get("seconds", {}).items(), key=lambda item: -item[1]),
    }


def _classes(manifest: Json, figures: Figures) -> list[dict[str, Any]]:
    usable = manifest["counts"].get("usable_mm2") or math.nan
    nuclei = max(1, manifest["counts"]["nuclei"])
    return [
        {
            "name": of.name,
            "count": of.count,
            "share": of.count / nuclei,
            "per_mm2": of.count / usable,
            "area": of.mean(of.area_um2),
            "score": of.mean(of.score),
            "probability": of.mean(of.probability),
        }
        for of in figures.classes
    ]


def _shown(figures: Figures) -> list[int]:
    """The most frequent classes, in the model's order."""
    order = sorted(range(len(figures.classes)), key=lambda i: -figures.classes[i].count)
    return sorted(i for i in order[:MOST_CLASSES] if figures.classes[i].count)


def _maps(figures: Figures) -> list[tuple[str, float, str]]:
    """Title, what the brightest colour means in nuclei per mm2, and the picture."""
    densities = [("all nuclei", figures.density.sum(0))]
    densities += [(figures.classes[i].name, figures.density[i]) for i in _shown(figures)]
    made = []
    for name, density in densities:
        smooth = smoothed(density)
        occupied = smooth[density > 0]
        most = float(np.percentile(occupied, 98)) if len(occupied) else 0.0
        made.append((name, most, density_picture(smooth, most)))
    return made


def _examples(manifest: Json, figures: Figures, slide: SlideRef | None) -> list[tuple[str, str, list[Any]]]:
    """Class, kind, and its nuclei with their pictures."""
    if slide is None:
        return []
    with closing(open_slide(slide)) as source:
        return [
            (of.name, kind, [(e, nucleus_picture(source, float(manifest["slide"]["mpp"]), e)) for e in shown])
            for of in (figures.classes[i] for i in _shown(figures))
            for kind, shown in of.examples.items()
        ]


def checks(manifest: Json, figures: Figures) -> list[Check]:
    counts, tiles = manifest["counts"], manifest["tiles"]
    cut, left_out = counts.get("cut_by_neighbours", 0), counts.get("cut_by_gaps", 0)
    bad = {name: tiles.get(name, 0) for name in ("failed", "missing")}
    lost = sum(tiles.get(f"{name}_mm2", 0.0) for name in ("failed", "missing", "damaged"))
    stain = manifest["run"].get("stain", "")
    unlike = [*([stain] if stain else []), *counts.get("unlike_training_images", [])]
    doubts = manifest["run"].get("doubts", [])
    share = f"{tiles.get('processed', 0):,} of {tiles.get('total', 0):,} tiles hold tissue and were looked at"
    return [
        Check(
            "Tissue", LOOK if any(bad.values()) or lost else GOOD,
            f"{_tissue(counts)}{share}; "
            f"{bad['failed']} failed, {bad['missing']} without data; {lost:.3g} mm\u00b2 were not looked at",
        ),
        _seams(figures),
        Check("Resolution", LOOK if doubts else GOOD, "; ".join(doubts) or _resolution(manifest, figures)),
        Check(
            "Domain", LOOK if unlike else GOOD,
            "; ".join(unlike) or "the slide looks like the images that the model was trained on",
        ),
        Check(
            "Outlines", GOOD,
            f"{manifest.get('repairs', 0):,} were mended, {cut:,} gave up a part to a neighbour, "
            f"{left_out:,} were left out since they reach into a gap",
        ),
    ]  # fmt: skip


def _tissue(counts: Json) -> str:
    known = "tissue_share" in counts and "tissue_method" in counts
    return f"{counts['tissue_share']:.0%} of the slide ({counts['tissue_method']}); " if known else ""


def _resolution(manifest: Json, figures: Figures) -> str:
    return "; ".join(text for text in (manifest["run"].get("enlarged", ""), _sizes(figures)) if text)


def _seams(figures: Figures) -> Check:
    audit = figures.seams
    if audit is None:
        return Check(
            "Seams",
            UNKNOWN,
            "the grid of tiles is not known: there are too few nuclei, or they come from elsewhere",
        )
    seams = audit.seams
    compared = (
        f"{seams.nuclei:,} nuclei cross a line between tiles (one every {audit.tile_um:.0f} \u00b5m), "
        f"{audit.usual('nuclei'):,.0f} cross one elsewhere; mean area {seams.mean_area_um2:.1f} and "
        f"{audit.usual('mean_area_um2'):.1f} \u00b5m\u00b2; straight along the line {seams.straight:,} and "
        f"{audit.usual('straight'):,.1f}; twins {seams.twins:,} and {audit.usual('twins'):,.1f}"
    )
    if audit.findings:
        return Check("Seams", LOOK, f"{'; '.join(audit.findings)}. {compared}")
    return Check("Seams", GOOD, f"no difference beyond chance: {compared}")


def _sizes(figures: Figures) -> str:
    if not figures.diameters.sum():
        return "without nuclei, nothing can be said"
    middle = (np.arange(len(figures.diameters)) + 0.5) * BIN_UM
    area = np.cumsum(figures.diameters * middle**2)
    size = float(np.interp(area[-1] / 2, area, middle))
    return f"nothing speaks against it: half of the nuclear area lies in nuclei over {size:.1f} \u00b5m wide"
