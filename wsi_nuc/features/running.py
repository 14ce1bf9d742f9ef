"""Features as a part of a run: measured before a result is published, or added to one that lacks them.

To add them, a new store with the same nuclei takes the place of the published one in one step.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.events import Emit, ignore
from wsi_nuc.executors.base import Execute
from wsi_nuc.features.job import (
    ModelRef,
    covers,
    embedding_of,
    has_features,
    noted,
    settings,
    with_features,
    without_features,
)
from wsi_nuc.features.write import Nuclei, make_room, write_features
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.job import SlideJob
from wsi_nuc.run.request import SlideRequest
from wsi_nuc.run.session import run_session
from wsi_nuc.run.success_or_failure import SlideResult
from wsi_nuc.safezip import Member, contents
from wsi_nuc.slides.identity import refuse_change, refuse_other, stat_signature
from wsi_nuc.store import durable, layout
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.commit import Published, Staging, publish
from wsi_nuc.store.manifest import Accounting, Json, Origin
from wsi_nuc.store.place import Place
from wsi_nuc.store.reading import class_names
from wsi_nuc.store.verify import verified_manifest, verify
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.store.zipping import unpack_into
from wsi_nuc.types import SlideRef

_NEW_PLACES = (f"{layout.NUCLEI_TABLE}/X", f"{layout.NUCLEI_TABLE}/var")
_ABOVE = ("images", "shapes", "tables", "labels")


def run_slides(
    config: RunConfig, slides: Sequence[str | SlideRequest], emit: Emit = ignore, out: Place | None = None
) -> Generator[SlideResult, None, None]:
    """`run.session.run_session`, with features where the configuration asks for them."""
    return run_session(config, slides, emit, out, Features())


class Features:
    """Measures the features. See `run.request.Measures`."""

    def settings(self, config: RunConfig, spec: ModelSpec) -> dict[str, Any]:
        if config.embedding and not spec.embedding:
            remedy = "leave it out, or use a model that has one, such as PromptNucSeg"
            raise UsageError("--embedding", f"the model {spec.name} has no embedding", remedy)
        if not (config.features or config.embedding):
            return {}
        return {"features": settings(spec.weights_sha256 if config.embedding else "")}

    def reconciled(self, job: SlideJob, final: Path) -> SlideJob:
        """A result never loses its features, and one that only lacks them may be replaced."""
        stored = manifests.made_from(final)
        if stored is None or without_features(stored) != without_features(job.origin.key):
            return job
        if covers(stored, job.origin.key):
            return replace(job, origin=replace(job.origin, key=stored))
        return replace(job, config=job.config.model_copy(update={"overwrite": True}))

    def lacking(self, job: SlideJob, final: Path) -> bool:
        key, stored = job.origin.key, manifests.made_from(final)
        if stored is None or covers(stored, key) or without_features(stored) != without_features(key):
            return False
        if verify(final):
            return False
        return job.config.allow_bad_tiles or not manifests.is_partial(manifests.read(final))

    def add(self, job: SlideJob, final: Place, execute: Execute, device: str) -> Published:
        return add_features(final, job.ref, execute, embedding_model(job, device))

    def wanted(self, job: SlideJob) -> bool:
        return has_features(job.origin.key)

    def measure(
        self, folder: ZarrFolder, job: SlideJob, accounting: Accounting, execute: Execute, device: str
    ) -> Json:
        nuclei = Nuclei(
            folder.root.path,
            make_room(folder).path,
            job.pixels,
            job.mpp,
            job.spec.classes,
            embedding_model(job, device),
            manifests.lost_boxes(accounting.document()),
        )
        write_features(folder, nuclei, execute)
        return noted(job.mpp)


def embedding_model(job: SlideJob, device: str) -> ModelRef | None:
    """The model of the run, where the result has its embedding."""
    if not embedding_of(job.origin.key):
        return None
    options = tuple(job.config.inference.items())
    return ModelRef(job.config.model, device, job.spec.embedding, job.spec.weights_sha256, options)


def add_features(store: Place, slide: SlideRef, execute: Execute, model: ModelRef | None = None) -> Published:
    """Measure every nucleus of an intact `store` on the `slide` that it was made from.

    `model` adds its embedding. `new` in the answer is False where the store has all features already. A kill at
    any moment leaves either the old or the new store. Files that stay the same are shared between the two.
    """
    old = verified_manifest(store.path)
    key = with_features(old["made_from"], model.weights_sha256 if model else "")
    if covers(old["made_from"], key):
        return Published(store.path, old, new=False)
    signature = stat_signature(slide)
    refuse_other(slide, str(old["made_from"]["slide_sha256"]), "pass that one with --slide")
    classes, begun = class_names(store.path), time.perf_counter()
    table = contents(store.path) / _NEW_PLACES[0]
    mpp, lost = float(old["slide"]["mpp"]), manifests.lost_boxes(old["tiles"])
    nuclei = Nuclei(store.path, table, slide, mpp, classes, model, lost)
    with Staging(store.parent, store.name) as staging:
        folder, figures = _folder_of(store, staging.root)
        write_features(folder, nuclei, execute)
        layout.seal(folder, key, figures, any(path.startswith("labels/") for path in folder.paths))

        def unchanged() -> None:
            refuse_change(slide, signature, slide.path)
            _refuse_replaced(store.path, old)

        def finish(root: Path) -> Json:
            run = {"features_seconds": round(time.perf_counter() - begun, 3)}
            return manifests.rebuild(root, old | {"counts": old["counts"] | noted(mpp)}, key, run)

        origin = Origin(key, old["slide"], old["versions"])
        return publish(staging, origin, finish, overwrite=True, check=unchanged)


def _refuse_replaced(store: Path, old: Json) -> None:
    if manifests.load(store) != (old, ""):
        raise StorageError(store, "was replaced while its features were measured", "repeat the same command")


def _folder_of(store: Place, root: Place) -> tuple[ZarrFolder, list[Json]]:
    """A folder with the files of the store, except those that are written anew, and the figures of its classes."""
    folder = ZarrFolder(root)
    attributes = folder.adopt(store.path, _is_new)
    inside = contents(store.path)
    same = [name for name in manifests.walk(inside) if not _is_new(name)]
    if isinstance(inside, Member):
        unpack_into(inside, same, root)
    else:
        for name in same:
            durable.link_or_copy(store / name, root / name)
    # Up to format 2 the figures are a table, which is among the files.
    return folder, attributes.get("wsi_nuc", {}).get("classes", [])


def _is_new(name: str) -> bool:
    """Whether a file or a node is written anew, and not taken over from the old store."""
    above = {path for group in _ABOVE for path in (group, f"{group}/zarr.json")}
    return name == "zarr.json" or name in above or any(f"{name}/".startswith(f"{path}/") for path in _NEW_PLACES)
