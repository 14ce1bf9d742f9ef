"""What a few small inputs give, in numbers that do not depend on the CPU.

What is computed in whole numbers (the classical model's outlines, the layout of a store) is hashed. Networks, and
sums of floating-point numbers, differ in their last bits between CPUs. Only their means are kept, and compared
within a tolerance. So a change of the last bits alone goes unnoticed, and any other shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from tests.models import instasam_nets
from tests.results import inputs
from tests.stitch.scenes import crowd, stitched
from wsi_nuc.config import RunConfig
from wsi_nuc.features.running import run_slides
from wsi_nuc.features.summary import slide_summary
from wsi_nuc.importing.build import ImportRequest, import_cells
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.promptnucseg.build import assemble, build_net, spec_of
from wsi_nuc.models.registry import load_model
from wsi_nuc.run.level0 import STEPS_PER_PX
from wsi_nuc.safezarr import open_array
from wsi_nuc.store.manifest import ROOT, read, sha256_of

Fingerprint = dict[str, Any]
# Entries of a manifest that depend on weights, files, machines or times, and not on what the program computes.
NOT_OF_THE_PROGRAM = {"digest", "files", "identity", "made_from", "run", "run_sha256", "slide", "versions"}

# Figures that depend on how the slide's pixels are packed into a file, or on the weights.
OF_THE_FILE = {"slide_sha256", "weights_sha256"}


def means(values: Any) -> list[float]:
    """Mean and root mean square of the finite values."""
    numbers = np.asarray(values, np.float64).ravel()
    numbers = numbers[np.isfinite(numbers)]
    return [float(numbers.mean()), float(np.sqrt((numbers**2).mean()))] if len(numbers) else [0.0, 0.0]


def of_array(values: Any) -> Any:
    """The hash of whole numbers and texts. The means of other columns, and of pixels, which are resampled."""
    array = np.asarray(values)
    if array.ndim > 2:
        return [list(array.shape), means(array)]
    if array.dtype.kind == "f":
        return [list(array.shape), *map(means, array.T if array.ndim == 2 else [array])]
    texts = array.dtype.kind in "OUT"
    data = json.dumps(array.tolist()).encode() if texts else array.astype("<i8").tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def of_model(model: NucleiModel) -> Fingerprint:
    """The model alone: points and masks of one tile, and the geometry that planning takes from it."""
    batch = inputs.tile()
    look = model.look(batch)
    prompts = look.prompts.get()
    crops = list(look.masks(range(len(prompts))).get())
    # Known otherwise, or without a meaning for results.
    apart = ("weights_sha256", "results", "copyable", "as_published")
    spec = {name: value for name, value in asdict(model.spec).items() if name not in apart}
    return {
        "spec": json.loads(json.dumps(spec)),
        "prompts": {f.name: of_array(getattr(prompts, f.name).astype(np.float64)) for f in fields(prompts)},
        "number of prompts": len(prompts),
        "number of masks": sum(len(crop.prompt) for crop in crops),
        "area of masks": float(sum(int(crop.mask.sum()) for crop in crops)),
        "masks": {
            name: of_array(np.concatenate([getattr(crop, name) for crop in crops]).astype(np.float64))
            for name in ("origin_tile", "score", "predicted_iou", "class_probs")
        },
    }


def of_parquet(path: Path) -> Fingerprint:
    table = pq.read_table(path)
    geometry = shapely.from_wkb(np.array(table.column("geometry").to_pylist(), dtype=object))
    steps = np.rint(shapely.get_coordinates(geometry) * STEPS_PER_PX).astype(np.int64)
    columns = [name for name in table.column_names if name not in ("geometry", "bbox")]
    return {
        "schema": [f"{field.name}: {field.type}" for field in table.schema],
        "geometry": of_array(steps),
        **{name: of_array(np.array(table.column(name).to_pylist())) for name in columns},
    }


def of_store(store: Path) -> Fingerprint:
    manifest = read(store)
    root = json.loads((store / ROOT).read_bytes())
    classes = root["attributes"].pop("wsi_nuc")["classes"]
    nodes = root["consolidated_metadata"]["metadata"]
    arrays = [name for name, node in nodes.items() if node["node_type"] == "array"]
    return {
        "files": sorted(manifest["files"]),
        "metadata": sha256_of(root)[:16],
        "manifest": {name: value for name, value in manifest.items() if name not in NOT_OF_THE_PROGRAM},
        "classes": {name: of_array([row[name] for row in classes]) for name in classes[0]},
        "arrays": {name: of_array(open_array(store / name)[...]) for name in arrays},
        "tables": {file: of_parquet(store / file) for file in manifest["files"] if file.endswith(".parquet")},
    }


def _run(folder: Path, **more: Any) -> Path:
    """A run with the classical model, since no network is needed to see what becomes of its nuclei."""
    slide = inputs.slide(folder / "slide.png")
    config = RunConfig(out=folder / "out", model="classical", scheduler="serial", mpp=0.4, **more)
    (result,) = run_slides(config, [str(slide)])
    assert result.exit_code == 0, result.error
    return Path(result.store)


def pipeline(folder: Path) -> Fingerprint:
    store = _run(folder, labels=True, keep_parts=True, region_size=1024)
    part = pa.ipc.open_file(sorted(folder.rglob("region-*.arrow"))[0])
    report = json.loads(part.schema.metadata[b"report"])
    columns = [f"{field.name}: {field.type}" for field in part.schema]
    parts = {"columns": columns, "report": sorted(report)}
    return {**of_store(store), "parts": parts, "stitched": of_stitching()}


def of_stitching() -> Fingerprint:
    """Outlines that overlap more than those of any model."""
    candidates, own = crowd(seed=1, count=200, edge=260)
    nuclei = stitched(replace(candidates, xy=np.rint(candidates.xy * STEPS_PER_PX) / STEPS_PER_PX), own, 100)
    steps = np.rint(nuclei.xy * STEPS_PER_PX).astype(np.int64)
    return {"nuclei": len(nuclei), "lengths": of_array(nuclei.ring_lengths), "outlines": of_array(steps)}


def features(folder: Path) -> Fingerprint:
    store = _run(folder, features=True)
    arrays, summary = of_store(store)["arrays"], slide_summary(store)
    measured = {name: of_columns for name, of_columns in arrays.items() if name.startswith("tables/nuclei_table/")}
    # NaN becomes text, since it does not equal itself.
    known = {name: str(value) if str(value) == "nan" else value for name, value in summary.items()}
    return {**measured, "summary": {name: value for name, value in known.items() if name not in OF_THE_FILE}}


def imported(folder: Path) -> Fingerprint:
    cells, slide = inputs.cells(folder / "cells.geojson"), inputs.slide(folder / "slide.png")
    return of_store(import_cells(ImportRequest(cells, str(slide), folder / "out", mpp=0.4)).published.path)


def classical(folder: Path) -> Fingerprint:
    return of_model(load_model("classical"))


def compact(folder: Path) -> Fingerprint:
    """The first default model in full precision, since half precision is not the same on all CPUs."""
    return of_model(load_model("default-1", "cpu", {"precision": "fp32"}))


def instasam(folder: Path) -> Fingerprint:
    return of_model(instasam_nets.tiny_model())


def promptnucseg(folder: Path) -> Fingerprint:
    settings, state = inputs.promptnucseg()
    spec = replace(spec_of(settings, "0" * 64), cpu_tile_s=1.0)
    return of_model(assemble(build_net(settings, state), settings, "cpu", spec))


# By the name of the results number. A fingerprint that changes may change those after it.
OF: dict[str, Callable[[Path], Fingerprint]] = {
    "classical": classical,
    "compact": compact,
    "instasam": instasam,
    "promptnucseg": promptnucseg,
    "pipeline": pipeline,
    "features": features,
    "import": imported,
}


def fingerprint(name: str) -> Fingerprint:
    """The fingerprint as JSON gives it back."""
    with TemporaryDirectory() as folder:
        as_json: Fingerprint = json.loads(json.dumps(OF[name](Path(folder))))
        return as_json
