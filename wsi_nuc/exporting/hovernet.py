"""HoVer-Net's JSON of a whole slide: `mag`, and under `nuc` each nucleus by its number, as in the store.

Box, centroid, contour, type and probability are those of `cellvit`, with the same convention of pixels. HoVer-Net
writes the pixels of the magnification that it worked at, and says which. Here these are the pixels of level 0, and
`mag` is the objective of the slide that its resolution suggests. `type_map` has the names of the types, which
HoVer-Net keeps in a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from wsi_nuc.exporting import cellvit
from wsi_nuc.exporting.columns import write_items
from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import About
from wsi_nuc.store.nuclei_rows import NucleiRows

SUFFIX = ".hovernet.json"
COLUMNS = cellvit.COLUMNS


def write(nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
    head = {"mag": cellvit.magnification(about.mpp), "type_map": cellvit.types(about.classes)}
    output.write(json.dumps(head)[:-1].encode() + b',"nuc":{')
    write_items(nuclei, output, _named)
    output.write(b"\n}}\n")


def _named(rows: NucleiRows) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.array(rows.rings.ids).cast(pa.string())
    return pc.binary_join_element_wise('"', ids, '":', cellvit.cells(rows), "")
