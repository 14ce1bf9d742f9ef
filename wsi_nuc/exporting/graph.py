"""The graph that the neighbourhood features are measured on: `nodes.parquet` and `edges.parquet` in a folder.

Nodes are the rows of `parquet`, in the store's order, with every column. An edge is a Delaunay edge between two
centroids, of a triangle whose circumcircle has a radius of at most 50 um. `source` and `target` are positions
among the nodes, from 0 on; each edge is there once, with the smaller one as the source. So
`edges[["source", "target"]].to_numpy().T` is the `edge_index` of torch-geometric, for one of the two directions.
Only the nuclei that are written are neighbours. With all of them, degrees are those of `delaunay_degree`.

Centroids count pixels from the corner of the first one, as in the store; a pixel's centre is at 0.5.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from wsi_nuc.exporting import parquet
from wsi_nuc.exporting.registry import About
from wsi_nuc.features.neighbourhood import edges_between
from wsi_nuc.features.registry import REACH_UM
from wsi_nuc.store.nuclei_rows import NucleiRows
from wsi_nuc.store.reading import meet
from wsi_nuc.types import Float64, Int64

SUFFIX, KIND, MARK = ".graph", "folder", "edges.parquet"
COLUMNS = parquet.COLUMNS


def write_path(nuclei: Iterable[NucleiRows], about: About, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.mkdir()
    # The file has no name, so that nothing stays of it.
    with tempfile.TemporaryFile(dir=path) as file:
        points = _Points(file, about.mpp)
        with (path / "nodes.parquet").open("wb") as nodes:
            parquet.write(points.noted(nuclei), about, nodes)
        schema = pa.schema({"source": pa.int64(), "target": pa.int64(), "length_um": pa.float64()})
        with pq.ParquetWriter(path / MARK, schema, compression="zstd") as writer:
            for group in range(points.groups):
                ends, length = points.edges(group)
                writer.write_table(pa.table([ends[:, 0], ends[:, 1], length], schema=schema))


class _Points:
    """Centroids in micrometres, in the groups in which they came, in a file."""

    def __init__(self, file: IO[bytes], mpp: float) -> None:
        self._file, self._mpp = file, mpp
        self._starts, self._boxes = [0], list[Float64]()

    @property
    def groups(self) -> int:
        return len(self._boxes)

    def noted(self, nuclei: Iterable[NucleiRows]) -> Iterator[NucleiRows]:
        """The same nuclei, after their centroids were written down."""
        for rows in nuclei:
            if len(rows):
                xy = np.column_stack([rows.columns["x"], rows.columns["y"]]) * self._mpp
                self._file.write(xy.tobytes())
                self._starts.append(self._starts[-1] + len(rows))
                self._boxes.append(np.concatenate([xy.min(axis=0), xy.max(axis=0)]))
            yield rows

    def edges(self, group: int) -> tuple[Int64, Float64]:
        """The edges whose source is in the group, E x 2, and their lengths.

        As with the features, a small enough triangle of the whole slide is one of the points within reach, too.
        """
        grown = self._boxes[group] + np.array([-REACH_UM, -REACH_UM, REACH_UM, REACH_UM])
        near = [other for other in np.flatnonzero(meet(np.array(self._boxes), grown)).tolist() if other != group]
        parts = [self._group(other, grown) for other in (group, *near)]
        rows, xy = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        ends = edges_between(xy - np.floor(xy.min(axis=0)))
        length = np.hypot(*(xy[ends[:, 0]] - xy[ends[:, 1]]).T)
        ends = np.sort(rows[ends], axis=1)
        order = np.lexsort((ends[:, 1], ends[:, 0]))
        order = order[(ends[order, 0] >= self._starts[group]) & (ends[order, 0] < self._starts[group + 1])]
        return ends[order], length[order]

    def _group(self, group: int, box: Float64) -> tuple[Int64, Float64]:
        """The rows of a group whose points lie in the box, and the points."""
        start, stop = self._starts[group : group + 2]
        self._file.seek(start * 16)
        xy = np.frombuffer(self._file.read((stop - start) * 16)).reshape(-1, 2)
        inside = ((xy >= box[:2]) & (xy <= box[2:])).all(axis=1)
        return start + np.flatnonzero(inside), xy[inside]
