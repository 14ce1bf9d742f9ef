"""Every feature in one table: its name, unit, meaning and range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wsi_nuc.models.classical.settings import STAINS, unmixing
from wsi_nuc.store.column_record import Column

RADII_UM = (25, 50)
# Nothing farther away counts as a neighbour or a border.
REACH_UM = 100.0
# Of level 0. Pixels of a coarser scan are not enlarged: that blurs them, and entropies come out too low by half a
# standard deviation at 0.55 um, and by more than one at 1 um.
COARSEST_UM = 0.53
# With less of a disc than this, its count says nothing about the whole of it.
LEAST_SHARE = 0.1
WITHIN_REACH = "neighbours_within_100um"
CLASS, NUMBER = "{class}", "{number}"

_VECTORS = ", ".join(f"{name} ({', '.join(f'{x:.3f}' for x in rgb)})" for name, rgb in STAINS.items())
_DAB_VECTORS = " and ".join(str(STAINS[name]) for name in ("haematoxylin", "rest"))
FAMILIES = {
    "shape": "Computed exactly, from the polygon and not from pixels. scikit-image's regionprops on a raster of "
    "0.05 um agrees to 1 %, with the hull of its pixels to 2 % and its estimate of the perimeter to 5 %.",
    "stain": "Optical densities (OD) of haematoxylin and eosin by colour deconvolution with fixed vectors "
    "(Ruifrok & Johnston 2001). The density of a channel is -log10((value + 1) / 256): the logarithm is decimal, "
    "white is 255 on every slide, and neither background nor stain of a slide is estimated. The vectors are "
    f"{_VECTORS}, in red, green and blue, each scaled to length 1; the densities of the stains are those of the "
    "channels times the inverse of the matrix of the vectors. Another third vector gives other values (the cross "
    "product of the first two raises h_mean by 20 to 25 %), and so do the natural logarithm and another white. So "
    "compare values within one staining and scanner. A density is negative where the other stains explain more "
    "than there is. They are measured at 0.5 um per pixel, whatever the resolution of the scan (0.47 to 0.53 "
    "where that saves resampling), in the pixels whose middle is in the polygon. No two nuclei of a run share any "
    "area, so a pixel counts once. Imported cells may overlap; what they share counts for each of them, except in "
    "textures, where it belongs to the last one of the table. The ring holds the pixels within "
    "about 2 um of the nucleus that lie in no nucleus and are not nearer to another one. A scan that is coarser "
    f"than {COARSEST_UM} um per pixel is not enlarged, since that would give other values: stain, texture and "
    "boundary stay empty, and the manifest says so (`counts.not_measured`). Leave empty columns out before a PCA.",
    "texture": "Of the haematoxylin inside the nucleus, at 0.5 um per pixel. Co-occurrence: 16 levels from 0 to "
    "1.6 OD, with what lies beyond in the first or last one; pairs of adjacent pixels in four directions, both in "
    "the nucleus; one symmetric matrix for all directions.",
    "boundary": "Haematoxylin at 32 points evenly along the outline, 1 um inside it and 1 um outside.",
    "neighbourhood": "From centroids. Nothing farther away than 100 um counts. A nucleus without the neighbours "
    "that a column needs has the value that its range states, so that the table can go into a PCA as it is; a "
    "column of counts says which these are. Means over a slide leave them out, so those of distances are too "
    "small where nuclei are sparse. These columns are raw: nuclei near the border of the analysed area have fewer "
    "neighbours, and means over a slide include them. See Border for what is corrected.",
    "border": "Where neighbours of a nucleus may be missing. The analysed area is the searched tissue (cut to the "
    "region of interest, if there is one) on the slide, less the places without data and those that could not be "
    "decoded or computed. Corrected counts can be compared between border and middle, and between large and small "
    "pieces of tissue; so can their means over a slide. Other columns of the neighbourhood are not corrected: "
    "shares and entropies become noisier near the border, and the distance to a neighbour is certain where it is "
    "at most `border_um`. For means without the border, take the nuclei whose `near_border_50um` is 0.",
    "dab": "Only with `--dab`, for immunohistochemistry with haematoxylin and DAB: optical densities of DAB, by "
    "colour deconvolution as for the stains above, but with vectors of haematoxylin and DAB, and their cross "
    f"product as the third one. The vectors are {_DAB_VECTORS} by default. `--dab-vectors` takes others, such as "
    "those that QuPath estimates, or `calibrated`: then they come from each slide's own colours (Macenko et al. "
    "2009). The manifest says which they are (`counts.dab_vectors`).",
    "embedding": "Only with `--embedding`, and for a model that has one: 256 numbers per nucleus from "
    "PromptNucSeg, 128 from the default model, 512 from large.",
}


def _family(family: str, empty: str, *rows: tuple[str, ...]) -> list[Column]:
    """`rows`: name, unit, meaning and range, and when there is no value, unless that is `empty`.

    Results hold these words, so a change of them changes their bytes.
    """
    return [Column(row[0], row[1], row[2], row[3], row[4] if row[4:] else empty, family) for row in rows]


SHAPE = _family(
    "shape",
    "never",
    ("area_um2", "um2", "area of the polygon; that of the shapes in 32 bits", "above 0"),
    ("perimeter_um", "um", "length of the outline", "above 0"),
    ("equivalent_diameter_um", "um", "diameter of the circle of that area: sqrt(4 area / pi)", "above 0"),
    ("major_axis_um", "um", "long axis of the ellipse with the same second moments", "above 0"),
    ("minor_axis_um", "um", "short axis of that ellipse", "above 0"),
    (
        "eccentricity",
        "",
        "of that ellipse: sqrt(1 - (short / long)2), 0 for a circle, towards 1 for a line",
        "0 to 1",
    ),
    ("orientation_rad", "rad", "angle of the long axis from x towards y (down)", "-pi/2 to pi/2"),
    ("extent", "", "area over that of the upright box around it", "above 0, to 1"),
    ("solidity", "", "area over that of the convex hull", "above 0, to 1"),
    ("convexity", "", "perimeter of the convex hull over that of the outline", "above 0, to 1"),
    ("circularity", "", "4 pi area / perimeter2: 1 for a circle", "above 0, to 1"),
    ("feret_max_um", "um", "largest distance of two points of the outline", "above 0"),
    (
        "feret_min_um",
        "um",
        "smallest distance of two parallel lines that hold the nucleus between them",
        "above 0",
    ),
    ("radius_mean_um", "um", "mean distance of the outline from the centroid", "above 0"),
    ("radius_sd_um", "um", "standard deviation of that distance along the outline", "from 0"),
)

_ANY = "any number"
_NO_PIXELS = (
    f"the slide has no data there or is coarser than {COARSEST_UM} um per pixel, or the nucleus is over 256 um "
    "across"
)
_NOT_INSIDE = f"{_NO_PIXELS}, or so small that no pixel's middle lies in it"
_NO_RING = f"{_NO_PIXELS}, or no free pixel is around it"
_NO_CONTRAST = f"{_NOT_INSIDE}, or no free pixel is around it"


def _extremes(stain: str) -> str:
    """The least and the largest density that pixels of 8 bits can give."""
    reach = unmixing()[:, list(STAINS).index(stain)] * np.log10(256)
    return f"about {reach[reach < 0].sum():.1f} to {reach[reach > 0].sum():.1f}"


def _stain(key: str, name: str, *others: tuple[str, ...]) -> list[Column]:
    return _family(
        "stain",
        _NOT_INSIDE,
        (f"{key}_mean", "OD", f"mean {name} inside", _extremes(name)),
        (f"{key}_sd", "OD", f"standard deviation of {name} inside", "from 0"),
        *others,
        (f"{key}_ring_mean", "OD", f"mean {name} in the ring", _extremes(name), _NO_RING),
        (f"{key}_ring_sd", "OD", f"standard deviation of {name} in the ring", "from 0", _NO_RING),
        (f"{key}_contrast", "OD", f"mean {name} inside less that in the ring", _ANY, _NO_CONTRAST),
    )


STAIN = [
    *_stain(
        "h",
        "haematoxylin",
        ("h_q10", "OD", "haematoxylin that 10 % of the pixels inside stay below", _extremes("haematoxylin")),
        ("h_median", "OD", "median haematoxylin inside", _extremes("haematoxylin")),
        ("h_q90", "OD", "haematoxylin that 10 % of the pixels inside exceed", _extremes("haematoxylin")),
        (
            "h_total_um2",
            "OD um2",
            "h_mean times area_um2, the area of the polygon: the integrated density. It follows the DNA only "
            "within one staining and thickness of the section",
            _ANY,
        ),
    ),
    *_stain("e", "eosin"),
]
_FLAT = f"{_NOT_INSIDE}, or all densities are equal"
_NO_PAIR = f"{_NOT_INSIDE}, or no two pixels of it are adjacent"
TEXTURE = _family(
    "texture",
    _NO_PAIR,
    ("gradient_mean", "OD/um", "mean length of the gradient (Sobel's weights over eight)", "from 0", _NOT_INSIDE),
    ("gradient_sd", "OD/um", "standard deviation of the length of the gradient", "from 0", _NOT_INSIDE),
    ("skewness", "", "skewness of the densities: third central moment over sd3", _ANY, _FLAT),
    ("kurtosis", "", "excess kurtosis of the densities: fourth central moment over sd4, less 3", "from -2", _FLAT),
    ("glcm_contrast", "", "co-occurrence: mean squared difference of levels", "0 to 225"),
    ("glcm_dissimilarity", "", "co-occurrence: mean absolute difference of levels", "0 to 15"),
    ("glcm_homogeneity", "", "co-occurrence: mean of 1 / (1 + squared difference)", "above 0, to 1"),
    ("glcm_asm", "", "co-occurrence: angular second moment, the sum of squared probabilities", "above 0, to 1"),
    ("glcm_entropy_bits", "bit", "co-occurrence: entropy", "0 to 8"),
    ("glcm_correlation", "", "co-occurrence: correlation of neighbours; 1 where all levels are equal", "-1 to 1"),
    (
        "od_clipped_share",
        "",
        "share of the pixels inside whose haematoxylin is 1.6 OD or more, which co-occurrence cannot tell apart",
        "0 to 1",
        _NOT_INSIDE,
    ),
)
BOUNDARY = _family(
    "boundary",
    _NO_PIXELS,
    ("edge_sharpness", "OD/um", "mean fall of haematoxylin over 2 um across the outline", _ANY),
    ("edge_sharpness_sd", "OD/um", "standard deviation of that fall along the outline", "from 0"),
    ("edge_fall_share", "", "share of the outline across which haematoxylin falls", "0 to 1"),
)


def _neighbourhood() -> list[Column]:
    features = _family(
        "neighbourhood",
        "never",
        *(
            (
                f"neighbour_{k}_um",
                "um",
                f"distance of the centroid to the {place} other one",
                f"0 to 100; 100 where `{WITHIN_REACH}` is below {k}",
            )
            for k, place in ((1, "nearest"), (3, "third nearest"), (5, "fifth nearest"))
        ),
        (WITHIN_REACH, "", "other nuclei within 100 um, counted up to five", "whole numbers from 0 to 5"),
        (
            "delaunay_degree",
            "",
            "edges in the Delaunay triangulation (triangles with circumradius up to 50 um)",
            "whole numbers from 0",
        ),
        ("delaunay_edge_mean_um", "um", "mean length of those edges", "0 to 100; 100 without edges"),
        ("delaunay_edge_sd_um", "um", "standard deviation of their length", "0 to 50; 0 without edges"),
    )
    for radius in RADII_UM:
        features += _family(
            "neighbourhood",
            "never",
            (f"count_{radius}um", "", f"other nuclei within {radius} um", "whole numbers from 0"),
            (
                f"entropy_{radius}um_bits",
                "bit",
                f"entropy of the classes within {radius} um, without the nucleus itself",
                "0 to log2 of the number of classes; 0 without others",
            ),
            (
                f"share_{radius}um_{CLASS}",
                "",
                f"share of {CLASS} among the other nuclei within {radius} um",
                "0 to 1; 0 without others",
            ),
        )
    return features


NEIGHBOURHOOD = _neighbourhood()
_NO_AREA = "the store has no tissue, so that nothing is known of the area"
BORDER = [
    *_family(
        "border",
        _NO_AREA,
        (
            "border_um",
            "um",
            "distance of the centroid to the border of the analysed area, exact from its polygons",
            "0 to 100; 100 where it is farther away, 0 outside of the area",
        ),
        ("near_border_50um", "", "1 where `border_um` is below 50, so that neighbours may be missing", "0 or 1"),
    ),
    *(
        column
        for radius in RADII_UM
        for column in _family(
            "border",
            _NO_AREA,
            (
                f"inside_{radius}um",
                "",
                f"share of the disc of {radius} um around the centroid that lies in the analysed area, counted on "
                "cells of 1 um",
                f"0 to 1; 1 where `border_um` is {radius} or more",
            ),
            (
                f"count_{radius}um_corrected",
                "",
                f"other nuclei within {radius} um whose centroids lie in the analysed area, over "
                f"`inside_{radius}um`: what `count_{radius}um` would be, were all around like the analysed part. "
                f"Over {LEAST_SHARE:g} where that part is smaller, so too small there",
                "from 0",
            ),
        )
    ),
]
DAB = _family(
    "dab",
    _NOT_INSIDE,
    ("dab_mean", "OD", "mean DAB inside", "about -2 to 4, by the vectors"),
    ("dab_max", "OD", "largest DAB of a pixel inside", "about -2 to 4, by the vectors"),
)
EMBEDDING = _family(
    "embedding",
    "the slide has no data there",
    (
        f"embedding_{NUMBER}",
        "",
        "what the model's network sees at the centroid; numbers without a meaning each",
        _ANY,
    ),
)
TABLE: tuple[Column, ...] = (*SHAPE, *STAIN, *TEXTURE, *BOUNDARY, *NEIGHBOURHOOD, *BORDER, *DAB, *EMBEDDING)


def features_of(classes: Sequence[str], embedding: int = 0, dab: bool = False) -> list[Column]:
    """The table in the order of the columns, with one row per class where it says `{class}`.

    `embedding`: how many numbers the embedding has. `dab`: whether DAB is measured.
    """
    out: list[Column] = []
    for feature in TABLE:
        if feature.family == "dab" and not dab:
            continue
        if feature.family == "embedding":
            out += [replace(feature, name=feature.name.replace(NUMBER, f"{i:03d}")) for i in range(embedding)]
        else:
            out += [feature.with_({"class": label}) for label in classes] if CLASS in feature.name else [feature]
    return out
