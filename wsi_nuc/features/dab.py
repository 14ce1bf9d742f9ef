"""DAB, the brown of immunohistochemistry: its optical density in every nucleus, and the share of positive nuclei.

Colour deconvolution as in `features/pixels.py`, with haematoxylin, DAB and what is left over: the third vector is
the cross product of the two. White is 255 on every slide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.features.coverage import Groups
from wsi_nuc.features.job import Vector, Vectors, dab_of
from wsi_nuc.features.pixels import OD, Int16, weighted
from wsi_nuc.features.shape import ratio
from wsi_nuc.features.texture import mean_sd
from wsi_nuc.models.classical.settings import STAINS
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.column_record import Column, about_mean_by
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.store.reading import class_names
from wsi_nuc.tissue.stain import optical_density
from wsi_nuc.types import Float64, UInt8

DEFAULT: Vectors = (STAINS["haematoxylin"], STAINS["rest"])
DEFAULT_TEXT, CALIBRATED = "default", "calibrated"
MEAN = "dab_mean"
# Of the mean density in a nucleus. QuPath's positive cell detection has the same default.
POSITIVE_OD = 0.2
POSITIVE_SHARE = "positive_share"
FIGURES = tuple(
    Column(
        f"{POSITIVE_SHARE}{ending}",
        "",
        f"share of positive nuclei{of}: those whose `{MEAN}` is above {POSITIVE_OD:g} OD, of those that have one. "
        "`wsi-nuc count --positive-above` takes any other limit",
        "0 to 1",
        f"DAB was not measured, or in no nucleus{of}",
        "class",
        patient=about_mean_by(weight),
    )
    for ending, of, weight in (("", "", "nuclei"), ("_{class}", " of the class", "count_{class}"))
)
# Pixels of a calibration: dense enough to have a colour, and so many that percentiles say something.
STAINED_OD, FEWEST_PIXELS = 0.065, 500
# Of the directions of the pixels' densities: a few pixels beyond these are dirt and noise.
PERCENTILES = (1.0, 99.0)
# Two vectors that are closer than this (radians) cannot be told apart.
LEAST_ANGLE = 0.15


def checked(text: str) -> str:
    """How the identity of a result states the vectors that a user named. UsageError for what names none."""
    if text in (DEFAULT_TEXT, CALIBRATED):
        return text
    try:
        first, second = _parsed(text)
        lengths = np.linalg.norm(first) * np.linalg.norm(second)
        if not np.linalg.norm(np.cross(first, second)) > np.sin(LEAST_ANGLE) * lengths > 0:
            raise ValueError("the same stain twice")
    except ValueError as error:
        remedy = f"write {DEFAULT_TEXT}, {CALIBRATED}, or six numbers R,G,B,R,G,B: haematoxylin's, then DAB's"
        raise UsageError(f"--dab-vectors {text}", f"does not name two stains ({error})", remedy) from None
    return ",".join(f"{number:g}" for number in (*first, *second))


def vectors_of(text: str, picture: Callable[[], UInt8]) -> Vectors:
    """The vectors that `checked` has seen. `picture`: H x W x 3 of the slide, if they are the slide's own."""
    if text == DEFAULT_TEXT:
        return DEFAULT
    return calibrated(picture()) if text == CALIBRATED else _parsed(text)


def _parsed(text: str) -> Vectors:
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) != 6 or not np.isfinite(numbers).all():
        raise ValueError("not six numbers")
    return _vector(numbers[:3]), _vector(numbers[3:])


def _vector(numbers: Sequence[float]) -> Vector:
    red, green, blue = numbers
    return red, green, blue


def calibrated(rgb: UInt8) -> Vectors:
    """The vectors of a slide's two stains, from a picture of it, after Macenko et al. 2009.

    The densities of stained pixels lie near a plane, between the directions of the two stains. The bluer one of
    the outermost directions is haematoxylin. The default vectors where a slide has too few stained pixels, or only
    one stain.
    """
    density = optical_density(rgb).reshape(-1, 3).astype(np.float64)
    density = density[density.mean(axis=1) > STAINED_OD]
    if len(density) < FEWEST_PIXELS:
        return DEFAULT
    _, axes = np.linalg.eigh(np.cov(density.T))
    plane = axes[:, [2, 1]] * np.where(axes[:, [2, 1]].sum(axis=0) < 0, -1, 1)
    flat = density @ plane
    angle = np.percentile(np.arctan2(flat[:, 1], flat[:, 0]), PERCENTILES)
    if angle[1] - angle[0] < LEAST_ANGLE:
        return DEFAULT
    ends = np.maximum(np.column_stack([np.cos(angle), np.sin(angle)]) @ plane.T, 0)
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    # DAB absorbs blue most, haematoxylin red and green.
    ends = ends[np.argsort(ends[:, 2] - ends[:, 0])]
    first, second = (_vector(np.round(end, 4).tolist()) for end in ends)
    return first, second


def density_of(rgb: UInt8, vectors: Vectors) -> Int16:
    """H x W of DAB, in units of `OD`; negative where haematoxylin explains too much."""
    stains = np.array([*vectors, np.cross(*vectors)], np.float64)
    unit: Float64 = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    return weighted(rgb, np.asarray(np.linalg.inv(unit)[:, 1], np.float64))


def dab_features(dab: Int16, inside: Groups) -> dict[str, Float64]:
    """Column name -> one value per nucleus; NaN without a pixel."""
    values = dab.ravel()[inside.pixel]
    mean, _ = mean_sd(values, inside)
    highest = np.full(len(inside.count), np.nan)
    owners = np.flatnonzero(inside.count)
    if len(owners):
        highest[owners] = np.maximum.reduceat(values, inside.starts[owners])
    return {MEAN: mean * OD, "dab_max": highest * OD}


def is_measured(store: Path) -> bool:
    """Whether the nuclei of a store have a density of DAB."""
    return bool(dab_of(manifests.made_from(store) or {"config": {}}))


def positive_shares(store: Path, above: float = POSITIVE_OD) -> dict[str, float]:
    """The share of positive nuclei of each class, and of all under "". NaN where none was measured."""
    names = class_names(store)
    positive, known = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    with NucleiReader(store, ["class_id", MEAN]) as reader:
        for group in range(reader.groups):
            columns = reader.values(group)
            label, mean = columns["class_id"].astype(np.int64), columns[MEAN]
            known += np.bincount(label[np.isfinite(mean)], minlength=len(names))
            positive += np.bincount(label[mean > above], minlength=len(names))
    shares = ratio(positive.astype(np.float64), known.astype(np.float64))
    whole = ratio(np.array([float(positive.sum())]), np.array([float(known.sum())]))
    return {"": float(whole[0]), **dict(zip(names, map(float, shares), strict=True))}


def positive_figures(store: Path) -> dict[str, Any]:
    """The figures of a slide, under their names in tables of cohorts."""
    shares = positive_shares(store)
    return {f"{POSITIVE_SHARE}_{name}" if name else POSITIVE_SHARE: share for name, share in shares.items()}
