"""A published result: its nuclei, tables and pictures, for Python and notebooks. `wsi_nuc.open` gives one."""

from __future__ import annotations

import base64
import html
import os
import shutil
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from wsi_nuc.api.picture import colour, drawn, encoded
from wsi_nuc.errors import UsageError
from wsi_nuc.features.class_table import class_rows
from wsi_nuc.features.pixels import read_grid
from wsi_nuc.run.job import slide_of
from wsi_nuc.safezarr import open_array
from wsi_nuc.safezip import contents
from wsi_nuc.slides.identity import refuse_other
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store import layout
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.nuclei_rows import NucleiReader, of_classes
from wsi_nuc.store.reading import class_names, read_thumbnail, read_tissue
from wsi_nuc.tiling.scale import choose_scale
from wsi_nuc.types import Box, SlideRef, UInt8

if TYPE_CHECKING:
    import geopandas
    import pandas

COLUMNS = ("class", "score", "x", "y", "area_um2")
PICTURE_PX = 800


class Result:
    """The result of a slide, as it lies on the disk. Coordinates are in level-0 pixels of the slide.

    In a notebook it shows its picture. As the last name of a `with` it removes what `wsi_nuc.segment` made for it
    alone; otherwise that goes when the object does.
    """

    def __init__(self, path: str | Path, slide: str | None = None, temporary: Path | None = None) -> None:
        """`temporary`: a folder that is removed together with this object."""
        self.path = Path(os.path.abspath(path))
        """Of the store."""
        self._slide = slide
        self._remove = weakref.finalize(self, _remove, temporary)
        self._manifest = manifests.read(self.path)

    @property
    def slide(self) -> dict[str, Any]:
        """What is known of the slide: file, width_px, height_px, mpp (microns per level-0 pixel) and more."""
        return dict(self._manifest["slide"])

    @property
    def classes(self) -> pandas.DataFrame:
        """One row per class: count, share, per_mm2, areas and their quantiles."""
        import pandas

        return pandas.DataFrame(class_rows(self.path)).set_index("class")

    @property
    def tissue(self) -> geopandas.GeoDataFrame:
        """The polygons that were searched."""
        import geopandas

        polygons, _ = read_tissue(self.path)
        return geopandas.GeoDataFrame(geometry=list(polygons))

    def nuclei(
        self,
        box: tuple[float, float, float, float] | None = None,
        classes: str | Sequence[str] = (),
        min_score: float = 0.0,
        columns: Sequence[str] = (),
    ) -> geopandas.GeoDataFrame:
        """One row per nucleus, by its id: outline, class, score, centroid and area.

        `box`: x0, y0, x1, y1, only nuclei that reach into it; nothing else is read. `classes`: only these.
        `columns`: further ones, such as `h_mean`, of a result with features.
        """
        import geopandas
        import pandas

        wanted = [classes] if isinstance(classes, str) else list(classes)
        for name in wanted:
            if name not in class_names(self.path):
                known = ", ".join(class_names(self.path))
                raise UsageError(f"class {name}", "the result has no such class", f"it has {known}")
        names = list(dict.fromkeys([*COLUMNS, *columns]))
        frames = []
        with NucleiReader(self.path, names) as reader:
            for rows in reader.each(box):
                kept = rows.columns["score"] >= min_score
                if wanted:
                    kept &= of_classes(rows.columns["class"], wanted)
                chosen = rows.select(np.flatnonzero(kept))
                index = pandas.Index(chosen.rings.ids, name="id")
                frames.append(
                    geopandas.GeoDataFrame(chosen.columns, geometry=list(chosen.rings.polygons()), index=index)
                )
        filled = [frame for frame in frames if len(frame)]
        if filled:
            return pandas.concat(filled)
        none = pandas.RangeIndex(0, name="id")
        return geopandas.GeoDataFrame({name: [] for name in names}, geometry=[], index=none)

    @property
    def features(self) -> pandas.DataFrame:
        """One row per nucleus, by its id: the probability of each class, then the features that were measured."""
        import pandas

        with NucleiReader(self.path) as reader:
            names, count = reader.measured_columns, reader.rows
        values = np.asarray(open_array(contents(self.path) / layout.NUCLEI_TABLE / "X")[:])
        index = pandas.RangeIndex(1, count + 1, name="id")
        return pandas.DataFrame(values, index=index, columns=list(names))

    def tiles(self, nuclei: geopandas.GeoDataFrame, um: float = 32.0, px: int = 64) -> UInt8:
        """N x px x px x 3: the slide around each of these nuclei, `um` wide. White where the slide ends."""
        source, mpp = open_slide(self._reference), float(self._manifest["slide"]["mpp"])
        try:
            scale = choose_scale(source.info, mpp, um / px)
            out = np.empty((len(nuclei), px, px, 3), np.uint8)
            for row, (x, y) in enumerate(zip(nuclei["x"], nuclei["y"], strict=True)):
                x0, y0 = (round(centre / scale.l0_per_grid - px / 2) for centre in (x, y))
                out[row], _ = read_grid(source, scale, Box(x0, y0, x0 + px, y0 + px))
        finally:
            source.close()
        return out

    @cached_property
    def _reference(self) -> SlideRef:
        """The slide, which has the content that the result was made from."""
        ref = slide_of(self.path, self._slide)
        if ref is None:
            remedy = "pass it: wsi_nuc.open(store, slide)"
            raise UsageError(self.path, f"its slide {self._manifest['slide']['file']} is not beside it", remedy)
        sha256 = str(self._manifest["made_from"]["slide_sha256"])
        refuse_other(ref, sha256, "pass that one: wsi_nuc.open(store, slide)")
        return ref

    def picture(self, px: int = PICTURE_PX) -> UInt8:
        """H x W x 3: the slide with its nuclei in the colours of their classes. `px`: the longer side."""
        slide = self._manifest["slide"]
        size = int(slide["width_px"]), int(slide["height_px"])
        return drawn(self.path, self._overview(size, px), size, px)

    def _overview(self, size: tuple[int, int], px: int) -> UInt8:
        """The slide's pixels, where they are few and at hand; else the thumbnail that the result holds."""
        thumbnail = read_thumbnail(self.path)
        if max(size) > 8 * px or max(thumbnail.shape) >= px:
            return thumbnail
        try:
            source = open_slide(self._reference)
        except UsageError:
            return thumbnail
        try:
            return source.read(0, Box(0, 0, *size)).rgb
        finally:
            source.close()

    def __repr__(self) -> str:
        return f"<{self.path.name}: {self._nuclei:,} nuclei ({', '.join(self._counts())})>"

    @property
    def _nuclei(self) -> int:
        return int(self._manifest["counts"]["nuclei"])

    def _counts(self) -> list[str]:
        """The number of nuclei of each class, in the order of the model."""
        return [f"{self._manifest['counts']['classes'][name]:,} {name}" for name in class_names(self.path)]

    def _repr_png_(self) -> bytes:
        return encoded(self.picture(), ".png")

    def _repr_html_(self) -> str:
        image = base64.b64encode(encoded(self.picture(), ".jpg")).decode()
        legend = ", ".join(
            f'<span style="color: rgb{colour(label)}">&#9632;</span> {html.escape(text)}'
            for label, text in enumerate(self._counts())
        )
        head = f"<b>{html.escape(self.path.name)}</b>: {self._nuclei:,} nuclei"
        return f'<div>{head}<br><img src="data:image/jpeg;base64,{image}"><br>{legend}</div>'

    def close(self) -> None:
        """Remove what was made for this object alone. A result in a folder of the user's stays."""
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def open(store: str | Path, slide: str | Path | None = None) -> Result:
    """A published result. `slide`: its slide, for pictures and tiles; by default a file of its name beside it."""
    return Result(store, None if slide is None else os.fspath(slide))
