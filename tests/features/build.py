"""Published stores for the tests of features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from tests.store.build import CLASSES, core_boxes_l0
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.store import layout
from wsi_nuc.store.column_record import Column
from wsi_nuc.store.commit import Staging, publish
from wsi_nuc.store.durable import remove_tree
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import Accounting, Json, Origin, build, identity_key
from wsi_nuc.store.nuclei_columns import NucleiWriter
from wsi_nuc.store.tables import write_columns
from wsi_nuc.store.tissue import write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import TileCounts

MPP = 0.25


def made_from(slide_sha256: str = "a" * 64, mpp: float = MPP, size: int = 4096, **config: object) -> Origin:
    key = identity_key(slide_sha256, "b" * 64, {"model": "classical", "mpp": mpp, **config}, {"pipeline": 1})
    facts = {"file": "x.svs", "sha256": slide_sha256, "mpp": mpp, "width_px": size, "height_px": size}
    return Origin(key, facts, {"wsi-nuc": "0.1"})


def publish_nuclei(
    out: Path,
    table: NucleiTable,
    tissue: Any = None,
    made: Origin | None = None,
    name: str = "x.svs.zarr",
    features: Mapping[Column, npt.NDArray[Any]] | None = None,
    accounting: Accounting | None = None,
) -> Path:
    """A store of these nuclei, published as by a run. `features`: the values of measured columns."""
    made = made or made_from()
    mpp = float(made.slide["mpp"])
    area = tissue if tissue is not None else shapely.box(0, 0, made.slide["width_px"], made.slide["height_px"])
    with Staging(made_folder(out), name) as staging:
        folder = ZarrFolder(staging.root)
        with NucleiWriter(folder, CLASSES, mpp, core_boxes_l0) as writer:
            writer.append(table)
            summary = writer.finish(area.area * (mpp / 1000) ** 2)
        if features is not None:
            for part in ("X", "var"):
                remove_tree(folder.root / layout.NUCLEI_TABLE / part)
            measured = np.column_stack([table.class_probs, *features.values()]).astype(np.float32)
            write_columns(folder, CLASSES, list(features), [measured])
        write_tissue(folder, shapely.MultiPolygon([area]), mpp)
        layout.seal(folder, made.key, summary.class_figures)
        counts = {"nuclei": summary.nuclei, "classes": summary.counts}

        def finish(root: Path) -> Json:
            whole = Accounting(TileCounts(processed=256))
            return build(root, made, accounting or whole, counts, {"seconds": {"predict": 1.0}})

        return publish(staging, made, finish).path
