"""Slides for the tests: pictures of nuclei whose stain is known everywhere, at any resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.features.build import made_from, publish_nuclei
from tests.features.shapes import blobs, turned
from tests.store.build import CLASSES
from wsi_nuc.features.job import GroupJob
from wsi_nuc.features.measure import measure
from wsi_nuc.features.registry import features_of
from wsi_nuc.models.classical.settings import unmixing
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.types import Float64, Int64, SlideRef, UInt8

NAMES = [feature.name for feature in features_of(CLASSES)]


@dataclass(frozen=True)
class Tissue:
    """Outlines of nuclei on a square."""

    xy_um: Float64
    offsets: Int64
    """Where the vertices of each outline begin in `xy_um`."""
    centres_um: Float64
    edge_um: float
    """Edge of the square."""

    @classmethod
    def of(cls, count: int, seed: int = 0, edge_um: float = 128.0) -> Tissue:
        """Nuclei on a jittered lattice, so that they do not touch."""
        xy, offsets = blobs(count, seed)
        per_row = int(np.ceil(np.sqrt(count)))
        pitch, rng = edge_um / per_row, np.random.default_rng(seed)
        column, row = np.divmod(np.arange(count), per_row)[::-1]
        centres = (np.column_stack([column, row]) + 0.5 + rng.uniform(-0.1, 0.1, (count, 2))) * pitch
        return cls(xy + np.repeat(centres, np.diff(offsets), axis=0), offsets, centres, edge_um)

    def turned(self) -> Tissue:
        """Turned by a quarter about the middle."""
        half = self.edge_um / 2
        xy, centres = (turned(part - half, np.pi / 2) + half for part in (self.xy_um, self.centres_um))
        return Tissue(xy, self.offsets, centres, self.edge_um)

    def density(self, mpp: float) -> Float64:
        """Haematoxylin (OD), H x W: 0.2 outside, and a level for each nucleus, with a slope around the edge."""
        from scipy.ndimage import gaussian_filter

        from wsi_nuc.rings import Rings
        from wsi_nuc.types import Box

        fine = 8
        edge = round(self.edge_um / mpp) * fine
        ids = np.arange(1, len(self.offsets))
        label = Rings(self.xy_um / mpp * fine, self.offsets).fill(ids, Box(0, 0, edge, edge))
        level = np.concatenate([[0.2], 0.55 + 0.5 * (ids % 5) / 5])[label]
        smooth = gaussian_filter(level, 0.4 / mpp * fine)
        return np.asarray(smooth.reshape(edge // fine, fine, -1, fine).mean(axis=(1, 3)))

    def rgb(self, mpp: float, eosin: float = 0.1) -> UInt8:
        """The picture: light through the haematoxylin and an even eosin."""
        stains = np.linalg.inv(unmixing())
        od = self.density(mpp)[..., None] * stains[0] + eosin * stains[1]
        return np.clip(np.rint(256 * 10**-od - 1), 0, 255).astype(np.uint8)

    def table(self, mpp: float) -> NucleiTable:
        count = len(self.centres_um)
        ones = np.ones(count, np.float32)
        probs = np.eye(len(CLASSES), dtype=np.float32)[np.arange(count) % len(CLASSES)]
        tile = np.zeros(count, np.int64)
        return NucleiTable(self.xy_um / mpp, self.offsets, self.centres_um / mpp, ones, ones, ones, probs, tile)


def picture(path: Path, rgb: UInt8) -> Path:
    Image.fromarray(rgb).save(path)
    return path


def slide_and_store(folder: Path, tissue: Tissue, mpp: float, rgb: UInt8 | None = None) -> tuple[SlideRef, Path]:
    """The picture of the tissue and a published store of its nuclei."""
    folder.mkdir(parents=True, exist_ok=True)
    ref = SlideRef(str(picture(folder / "x.png", tissue.rgb(mpp) if rgb is None else rgb)), mpp=mpp)
    made = made_from(content_sha256(ref), mpp, round(tissue.edge_um / mpp))
    return ref, publish_nuclei(folder / "out", tissue.table(mpp), made=made)


def measured(ref: SlideRef, store: Path) -> dict[str, Float64]:
    """All columns of a store that has one row group."""
    rows = measure(GroupJob(str(store), ref, 0, float(ref.mpp or 0), CLASSES))
    return dict(zip(NAMES, rows.T.astype(np.float64), strict=True))
