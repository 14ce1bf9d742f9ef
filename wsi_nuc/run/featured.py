"""Features as a part of a run: measured before a result is published, or added to one that lacks them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wsi_nuc.features.identity import covers, embedding_of, without_features
from wsi_nuc.features.job import ModelRef
from wsi_nuc.features.write import Execute, Nuclei, make_room, write_features
from wsi_nuc.run.job import SlideJob
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.verify import verify
from wsi_nuc.store.zarrfile import ZarrFolder


def reconciled(job: SlideJob, final: Path) -> SlideJob:
    """The job in the light of what lies at its place: a result with features is never made one without, and one
    that only lacks them may be replaced."""
    there = manifests.made_from(final)
    if there is None or without_features(there) != without_features(job.origin.key):
        return job
    if covers(there, job.origin.key):
        return replace(job, origin=replace(job.origin, key=there))
    return replace(job, config=job.config.model_copy(update={"overwrite": True}))


def only_features_lack(job: SlideJob, final: Path) -> bool:
    """The nuclei that the job asks for are there, intact, but not their features."""
    key, there = job.origin.key, manifests.made_from(final)
    if there is None or covers(there, key) or without_features(there) != without_features(key):
        return False
    if verify(final):
        return False
    return job.config.allow_bad_tiles or not manifests.is_partial(manifests.read(final))


def embedding_model(job: SlideJob, device: str) -> ModelRef | None:
    """The model of the run, where the result has its embedding."""
    if not embedding_of(job.origin.key):
        return None
    options = tuple(job.config.inference.items())
    return ModelRef(job.config.model, device, job.spec.embedding, job.spec.weights_sha256, options)


def measure_before_publishing(folder: ZarrFolder, job: SlideJob, execute: Execute, device: str) -> None:
    """The nuclei are written, the store is not sealed yet."""
    nuclei = Nuclei(
        folder.root.path,
        make_room(folder).path,
        job.pixels,
        job.mpp,
        job.spec.classes,
        embedding_model(job, device),
    )
    write_features(folder, nuclei, execute)
