"""Parameters and multiply-accumulates of PromptNucSeg-B, -L and -H on one 256 px tile with 24 prompts.

"as published" counts the plain modules, with padded windows and every prompt decoded on its own in full. "here"
counts what this package computes for the same masks. Nothing is allocated, since the tensors only have shapes.
The targets of B are the paper's (Table 5); it gives none for L and H, and theirs are counts by another program.
"""

from __future__ import annotations

from benchmarks.table import Row, print_rows
from wsi_nuc.models.promptnucseg.cost import gmacs_here, network, parameters_m, published_gmacs
from wsi_nuc.models.promptnucseg.settings import SegmentorSettings, Settings

CLASSES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
# Size -> millions of parameters, GMACs, and by how much of them each may be missed.
SIZES = {
    "B": ("vit_b", 145.6, 59.0, 0.005, 0.015),
    "L": ("vit_l", 363.5, 154.3, 0.001, 0.001),
    "H": ("vit_h", 691.2, 295.9, 0.001, 0.001),
}


def measure(small: bool = False) -> list[Row]:
    rows = []
    for name, (size, wanted_m, wanted_gmacs, near_m, near_gmacs) in list(SIZES.items())[: 1 if small else None]:
        net = network(Settings(CLASSES, 0.25, segmentor=SegmentorSettings(size)))
        parameters, published, here = parameters_m(net), published_gmacs(net), gmacs_here(net)
        rows += [
            _near(f"{name}: parameters", parameters, "M", wanted_m, near_m),
            _near(f"{name}: as published", published, "GMACs", wanted_gmacs, near_gmacs),
            Row(f"{name}: here", here, "GMACs", "<= as published", here <= published, always=True),
        ]
    return rows


def _near(what: str, value: float, unit: str, wanted: float, share: float) -> Row:
    target = f"{wanted:g} +- {100 * share:g} %"
    return Row(what, value, unit, target, abs(value / wanted - 1) <= share, always=True)


if __name__ == "__main__":
    print_rows(measure())
