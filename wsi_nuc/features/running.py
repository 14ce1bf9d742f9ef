"""Features as a part of a run: measured before a result is published, or added to one that lacks them.

To add them, a new store with the same nuclei takes the place of the published one in one step.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import OK, StorageError, UsageError, WsiNucError
from wsi_nuc.events import Emit, ignore
from wsi_nuc.executors.base import Execute
from wsi_nuc.features.class_table import write_class_table
from wsi_nuc.features.dab import checked, vectors_of
from wsi_nuc.features.job import (
    ModelRef,
    covers,
    dab_of,
    embedding_of,
    has_features,
    noted,
    settings,
    with_features,
    with_those_of,
    without_features,
)
from wsi_nuc.features.write import Nuclei, make_room, write_features
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.job import SlideJob
from wsi_nuc.run.request import SlideRequest
from wsi_nuc.run.session import run_session
from wsi_nuc.run.success_or_failure import SlideResult, failure
from wsi_nuc.safezip import Member, contents
from wsi_nuc.slides.identity import refuse_change, refuse_other, stat_signature
from wsi_nuc.store import durable, layout
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.commit import Published, Staging, publish
from wsi_nuc.store.manifest import Accounting, Json, Origin
from wsi_nuc.store.place import Place, open_folder
from wsi_nuc.store.reading import class_names, read_thumbnail
from wsi_nuc.store.verify import verified_manifest, verify
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.store.zipping import unpack_into
from wsi_nuc.types import SlideRef

_NEW_PLACES = (f"{layout.NUCLEI_TABLE}/X", f"{layout.NUCLEI_TABLE}/var")
_ABOVE = ("images", "shapes", "tables", "labels")


def run_slides(
    config: RunConfig,
    slides: Sequence[str | SlideRequest],
    emit: Emit = ignore,
    out: Place | None = None,
    class_tables: bool = True,
) -> Generator[SlideResult, None, None]:
    """`run.session.run_session`, with features where the configuration asks for them, and with a table of the
    classes beside each store if `class_tables`."""
    with closing(run_session(config, slides, emit, out, Features())) as results:
        for result in results:
            yield _with_class_table(result) if class_tables and result.exit_code == OK else result


def _with_class_table(result: SlideResult) -> SlideResult:
    """The result, or a failure that leaves the complete store where it is: the same call makes the table."""
    store = Path(result.store)
    try:
        write_class_table(open_folder(store.parent) / store.name)
    except WsiNucError as error:
        return failure(result.slide, error, result.seconds)
    return result


class Features:
    """Measures the features. See `run.request.Measures`."""

    def settings(self, config: RunConfig, spec: ModelSpec) -> dict[str, Any]:
        if config.embedding and not spec.embedding:
            remedy = "leave it out, or use a model that has one, such as PromptNucSeg"
            raise UsageError("--embedding", f"the model {spec.name} has no embedding", remedy)
        if not (config.features or config.embedding or config.dab):
            return {}
        dab = checked(config.dab_vectors) if config.dab else ""
        return {"features": settings(spec.weights_sha256 if config.embedding else "", dab)}

    def reconciled(self, job: SlideJob, final: Path) -> SlideJob:
        """A result never loses its features, and one that only lacks them may be replaced."""
        stored = manifests.made_from(final)
        if stored is None or without_features(stored) != without_features(job.origin.key):
            return job
        key = stored if covers(stored, job.origin.key) else with_those_of(stored, job.origin.key)
        same = key == stored
        config = job.config if same else job.config.model_copy(update={"overwrite": True})
        return replace(job, origin=replace(job.origin, key=key), config=config)

    def lacking(self, job: SlideJob, final: Path) -> bool:
        key, stored = job.origin.key, manifests.made_from(final)
        if stored is None or covers(stored, key) or without_features(stored) != without_features(key):
            return False
        if verify(final):
            return False
        return job.config.allow_bad_tiles or not manifests.is_partial(manifests.read(final))

    def add(self, job: SlideJob, final: Place, execute: Execute, device: str) -> Published:
        return add_features(final, job.ref, execute, embedding_model(job, device), dab_of(job.origin.key))

    def wanted(self, job: SlideJob) -> bool:
        return has_features(job.origin.key)

    def measure(
        self, folder: ZarrFolder, job: SlideJob, accounting: Accounting, execute: Execute, device: str
    ) -> Json:
        dab = dab_of(job.origin.key)
        vectors = vectors_of(dab, lambda: job.tissue.thumbnail) if dab else None
        nuclei = Nuclei(
            folder.root.path,
            make_room(folder).path,
            job.pixels,
            job.mpp,
            job.spec.classes,
            embedding_model(job, device),
            vectors,
            manifests.lost_boxes(accounting.document()),
        )
        write_features(folder, nuclei, execute)
        return noted(job.mpp, vectors)


def embedding_model(job: SlideJob, device: str) -> ModelRef | None:
    """The model of the run, where the result has its embedding."""
    if not embedding_of(job.origin.key):
        return None
    options = tuple(job.config.inference.items())
    return ModelRef(job.config.model, device, job.spec.embedding, job.spec.weights_sha256, options)


def add_features(
    store: Place, slide: SlideRef, execute: Execute, model: ModelRef | None = None, dab: str = ""
) -> Published:
    """Measure every nucleus of an intact `store` on the `slide` that it was made from.

    `model` adds its embedding, and `dab` (as `features.dab.checked` gives it) the density of DAB. `new` in the
    answer is False where the store has all features already. A kill at any moment leaves either the old or the new
    store. Files that stay the same are shared between the two.
    """
    old = verified_manifest(store.path)
    dab = dab or dab_of(old["made_from"])
    key = with_features(old["made_from"], model.weights_sha256 if model else "", dab)
    if covers(old["made_from"], key):
        return Published(store.path, old, new=False)
    if embedding_of(old["made_from"]) and model is None:
        raise UsageError(store, "has an embedding, which would be lost", "pass its model again with --embedding")
    signature = stat_signature(slide)
    refuse_other(slide, str(old["made_from"]["slide_sha256"]), "pass that one with --slide")
    classes, begun = class_names(store.path), time.perf_counter()
    table = contents(store.path) / _NEW_PLACES[0]
    mpp, lost = float(old["slide"]["mpp"]), manifests.lost_boxes(old["tiles"])
    vectors = vectors_of(dab, lambda: read_thumbnail(store.path)) if dab else None
    nuclei = Nuclei(store.path, table, slide, mpp, classes, model, vectors, lost)
    with Staging(store.parent, store.name) as staging:
        folder, figures = _folder_of(store, staging.root)
        write_features(folder, nuclei, execute)
        layout.seal(folder, key, figures, any(path.startswith("labels/") for path in folder.paths))

        def unchanged() -> None:
            refuse_change(slide, signature, slide.path)
            _refuse_replaced(store.path, old)

        def finish(root: Path) -> Json:
            run = {"features_seconds": round(time.perf_counter() - begun, 3)}
            return manifests.rebuild(root, old | {"counts": old["counts"] | noted(mpp, vectors)}, key, run)

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
