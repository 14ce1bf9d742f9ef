"""Features as a part of a run: measured before a result is published, or added to one that lacks them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import UsageError
from wsi_nuc.events import Emit, ignore
from wsi_nuc.executors.base import Execute
from wsi_nuc.features.add import add_features
from wsi_nuc.features.identity import covers, embedding_of, has_features, settings, without_features
from wsi_nuc.features.job import ModelRef
from wsi_nuc.features.write import Nuclei, make_room, write_features
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run import session
from wsi_nuc.run.job import SlideJob
from wsi_nuc.run.request import SlideRequest
from wsi_nuc.run.result import SlideResult
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.commit import Published
from wsi_nuc.store.place import Place
from wsi_nuc.store.verify import verify
from wsi_nuc.store.zarrfile import ZarrFolder


class Features:
    """See `run.measures.Measures`."""

    def settings(self, config: RunConfig, spec: ModelSpec) -> dict[str, Any]:
        if config.embedding and not spec.embedding:
            remedy = "leave it out, or use a model that has one, such as PromptNucSeg"
            raise UsageError("--embedding", f"the model {spec.name} has no embedding", remedy)
        if not (config.features or config.embedding):
            return {}
        return {"features": settings(spec.weights_sha256 if config.embedding else "")}

    def reconciled(self, job: SlideJob, final: Path) -> SlideJob:
        """A result with features is never made one without, and one that only lacks them may be replaced."""
        there = manifests.made_from(final)
        if there is None or without_features(there) != without_features(job.origin.key):
            return job
        if covers(there, job.origin.key):
            return replace(job, origin=replace(job.origin, key=there))
        return replace(job, config=job.config.model_copy(update={"overwrite": True}))

    def lacking(self, job: SlideJob, final: Path) -> bool:
        key, there = job.origin.key, manifests.made_from(final)
        if there is None or covers(there, key) or without_features(there) != without_features(key):
            return False
        if verify(final):
            return False
        return job.config.allow_bad_tiles or not manifests.is_partial(manifests.read(final))

    def add(self, job: SlideJob, final: Place, execute: Execute, device: str) -> Published:
        return add_features(final, job.ref, execute, embedding_model(job, device))

    def wanted(self, job: SlideJob) -> bool:
        return has_features(job.origin.key)

    def measure(self, folder: ZarrFolder, job: SlideJob, execute: Execute, device: str) -> None:
        nuclei = Nuclei(
            folder.root.path,
            make_room(folder).path,
            job.pixels,
            job.mpp,
            job.spec.classes,
            embedding_model(job, device),
        )
        write_features(folder, nuclei, execute)


def embedding_model(job: SlideJob, device: str) -> ModelRef | None:
    """The model of the run, where the result has its embedding."""
    if not embedding_of(job.origin.key):
        return None
    options = tuple(job.config.inference.items())
    return ModelRef(job.config.model, device, job.spec.embedding, job.spec.weights_sha256, options)


def run_slides(
    config: RunConfig, slides: Sequence[str | SlideRequest], emit: Emit = ignore, out: Place | None = None
) -> Generator[SlideResult, None, None]:
    """`run.session.run_slides`, with features where the configuration asks for them."""
    return session.run_slides(config, slides, emit, out, Features())
