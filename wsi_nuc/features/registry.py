"""Every feature in one table: its name, unit and meaning. The documentation and `--list` are made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

RADII_UM = (25, 50)
CLASS, NUMBER = "{class}", "{number}"


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of the table."""

    name: str
    """Ends in the unit, where there is one. `{class}` stands for each class of the store, `{number}` for the
    places of an embedding."""
    family: str
    """A key of FAMILIES."""
    unit: str
    about: str
    """The meaning. Results hold it, so a change of the words changes their bytes."""

    def of_class(self, label: str) -> Feature:
        return Feature(self.name.replace(CLASS, label), self.family, self.unit, self.about.replace(CLASS, label))


FAMILIES = {
    "shape": "Computed exactly, from the polygon and not from pixels. scikit-image's regionprops on a raster of "
    "0.05 um agrees to 1 %, with the hull of its pixels to 2 % and its estimate of the perimeter to 5 %.",
    "stain": "Optical densities (OD) of haematoxylin and eosin by colour deconvolution with fixed vectors "
    "(Ruifrok & Johnston 2001). They are measured at 0.5 um per pixel, whatever the resolution of the scan, in "
    "the pixels whose middle is in the polygon. Nuclei over 256 um across are not measured. No two nuclei of a "
    "run share any area, so a pixel counts once. Imported cells may overlap; what they share counts for each of "
    "them, except in textures, where it belongs to the last one of the table. The ring holds the pixels within "
    "about 2 um of the nucleus that lie in no nucleus and are not nearer to another one.",
    "texture": "Of the haematoxylin inside the nucleus, at 0.5 um per pixel. Co-occurrence: 16 levels from 0 to "
    "1.6 OD, pairs of adjacent pixels in four directions, both in the nucleus; one symmetric matrix for all "
    "directions.",
    "boundary": "Haematoxylin at 32 points evenly along the outline, 1 um inside it and 1 um outside.",
    "neighbourhood": "From centroids. Nothing farther away than 100 um counts; NaN where nothing is nearer.",
    "embedding": "Only with `--embedding`, and for a model that has one: 256 numbers per nucleus from "
    "PromptNucSeg, 128 from the default model.",
}


def _family(family: str, *rows: tuple[str, str, str]) -> list[Feature]:
    return [Feature(name, family, unit, about) for name, unit, about in rows]


SHAPE = _family(
    "shape",
    ("area_um2", "um2", "area of the polygon"),
    ("perimeter_um", "um", "length of the outline"),
    ("equivalent_diameter_um", "um", "diameter of the circle of that area"),
    ("major_axis_um", "um", "long axis of the ellipse with the same second moments"),
    ("minor_axis_um", "um", "short axis of that ellipse"),
    ("eccentricity", "", "of that ellipse: 0 for a circle, towards 1 for a line"),
    ("orientation_rad", "rad", "angle of the long axis from x towards y (down), -pi/2 to pi/2"),
    ("extent", "", "area over that of the upright box around it"),
    ("solidity", "", "area over that of the convex hull"),
    ("convexity", "", "perimeter of the convex hull over that of the outline"),
    ("circularity", "", "4 pi area / perimeter2: 1 for a circle"),
    ("feret_max_um", "um", "largest distance of two points of the outline"),
    ("feret_min_um", "um", "smallest distance of two parallel lines that hold the nucleus between them"),
    ("radius_mean_um", "um", "mean distance of the outline from the centroid"),
    ("radius_sd_um", "um", "standard deviation of that distance along the outline"),
)


def _stain(key: str, name: str, *others: tuple[str, str, str]) -> list[Feature]:
    return _family(
        "stain",
        (f"{key}_mean", "OD", f"mean {name} inside"),
        (f"{key}_sd", "OD", f"standard deviation of {name} inside"),
        *others,
        (f"{key}_ring_mean", "OD", f"mean {name} in the ring"),
        (f"{key}_ring_sd", "OD", f"standard deviation of {name} in the ring"),
        (f"{key}_contrast", "OD", f"mean {name} inside less that in the ring"),
    )


STAIN = [
    *_stain(
        "h",
        "haematoxylin",
        ("h_q10", "OD", "haematoxylin that 10 % of the pixels inside stay below"),
        ("h_median", "OD", "median haematoxylin inside"),
        ("h_q90", "OD", "haematoxylin that 10 % of the pixels inside exceed"),
        ("h_total_um2", "OD um2", "haematoxylin summed over the nucleus, a measure of its DNA"),
    ),
    *_stain("e", "eosin"),
]
TEXTURE = _family(
    "texture",
    ("gradient_mean", "OD/um", "mean length of the gradient"),
    ("gradient_sd", "OD/um", "standard deviation of the length of the gradient"),
    ("skewness", "", "skewness of the densities"),
    ("kurtosis", "", "excess kurtosis of the densities"),
    ("glcm_contrast", "", "co-occurrence: mean squared difference of levels"),
    ("glcm_dissimilarity", "", "co-occurrence: mean absolute difference of levels"),
    ("glcm_homogeneity", "", "co-occurrence: mean of 1 / (1 + squared difference)"),
    ("glcm_asm", "", "co-occurrence: angular second moment, the sum of squared probabilities"),
    ("glcm_entropy_bits", "bit", "co-occurrence: entropy"),
    ("glcm_correlation", "", "co-occurrence: correlation of neighbours; 1 where all levels are equal"),
)
BOUNDARY = _family(
    "boundary",
    ("edge_sharpness", "OD/um", "mean fall of haematoxylin over 2 um across the outline"),
    ("edge_sharpness_sd", "OD/um", "standard deviation of that fall along the outline"),
    ("edge_fall_share", "", "share of the outline across which haematoxylin falls"),
)


def _neighbourhood() -> list[Feature]:
    features = _family(
        "neighbourhood",
        ("neighbour_1_um", "um", "distance of the centroid to the nearest other one"),
        ("neighbour_3_um", "um", "distance of the centroid to the third nearest"),
        ("neighbour_5_um", "um", "distance of the centroid to the fifth nearest"),
        ("delaunay_degree", "", "edges in the Delaunay triangulation (triangles with circumradius up to 50 um)"),
        ("delaunay_edge_mean_um", "um", "mean length of those edges"),
        ("delaunay_edge_sd_um", "um", "standard deviation of their length"),
    )
    for radius in RADII_UM:
        features += _family(
            "neighbourhood",
            (f"count_{radius}um", "", f"other nuclei within {radius} um"),
            (f"entropy_{radius}um_bits", "bit", f"entropy of the classes within {radius} um"),
            (f"share_{radius}um_{CLASS}", "", f"share of {CLASS} among the other nuclei within {radius} um"),
        )
    return features


NEIGHBOURHOOD = _neighbourhood()
EMBEDDING = _family("embedding", (f"embedding_{NUMBER}", "", "what the model's network sees at the centroid"))
TABLE: tuple[Feature, ...] = (*SHAPE, *STAIN, *TEXTURE, *BOUNDARY, *NEIGHBOURHOOD, *EMBEDDING)


def features_of(classes: Sequence[str], embedding: int = 0) -> list[Feature]:
    """The table in the order of the columns, with one row per class where it says `{class}`.

    `embedding`: how many numbers the embedding has.
    """
    out: list[Feature] = []
    for feature in TABLE:
        if feature.family == "embedding":
            out += [replace(feature, name=feature.name.replace(NUMBER, f"{i:03d}")) for i in range(embedding)]
        else:
            out += [feature.of_class(label) for label in classes] if CLASS in feature.name else [feature]
    return out


def document() -> str:
    """The table as Markdown."""
    lines = [
        "# Features of every nucleus",
        "",
        "`wsi-nuc features STORE` and `wsi-nuc run --features` write these as columns of `tables/nuclei_table`,",
        "after the class probabilities, as 32-bit floats. All lengths are in micrometres of the slide. NaN means",
        "that a feature is not defined for that nucleus: no neighbour, no pixel, no data in the file. This page",
        "and `wsi-nuc features --list` are made from `wsi_nuc/features/registry.py`.",
    ]
    for family, about in FAMILIES.items():
        lines += ["", f"## {family.capitalize()}", "", about, "", "| name | unit | meaning |", "|---|---|---|"]
        lines += [f"| `{f.name}` | {f.unit} | {f.about} |" for f in TABLE if f.family == family]
    return "\n".join(lines) + "\n"
