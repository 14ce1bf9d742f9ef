"""HoVer-Net's JSON of a whole slide: `mag`, and under `nuc` each nucleus by its number, as in the store.

Box, centroid, contour, type and probability are those of `cellvit`, with the same convention of pixels. HoVer-Net
writes the pixels of the magnification that it worked at, and says which. Here these are the pixels of level 0, and
`mag` is the objective of the slide that its resolution suggests. `type_map` has the names of the types, which
HoVer-Net keeps in a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from wsi_nuc.exporting import cellvit
from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import About
from wsi_nuc.store.nuclei_rows import NucleiRows

SUFFIX = ".hovernet.json"
COLUMNS = cellvit.COLUMNS
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def write(nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
    head = {"mag": cellvit.magnification(about.mpp), "type_map": cellvit.types(about.classes)}
    output.write(_ENCODER.encode(head)[:-1].encode() + b',"nuc":{')
    separator = b"\n"
    for rows in nuclei:
        for nucleus, cell in zip(rows.rings.ids.tolist(), cellvit.cells(rows), strict=True):
            output.write(separator + b'"%d":' % nucleus + _ENCODER.encode(cell).encode())
            separator = b",\n"
    output.write(b"\n}}\n")
