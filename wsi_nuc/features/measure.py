"""All features of one row group of a store: what one task computes, from the store and the slide alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from wsi_nuc.features.around import Surroundings
from wsi_nuc.features.cells import AROUND_UM, pixel_features
from wsi_nuc.features.embed import embeddings
from wsi_nuc.features.job import GroupJob
from wsi_nuc.features.neighbourhood import REACH_UM, neighbourhood_features
from wsi_nuc.features.pixels import feature_scale
from wsi_nuc.features.registry import features_of
from wsi_nuc.features.shape import shape_features
from wsi_nuc.rings import Rings
from wsi_nuc.slides.cache import cached_slide
from wsi_nuc.store.reading import NucleiFile, StoredRings
from wsi_nuc.types import Float32


def measure(job: GroupJob) -> Float32:
    """N x F, columns as `features_of` lists them. The same job gives the same bytes each time."""
    cv2.setNumThreads(1)
    source = cached_slide(job.slide)
    scale = feature_scale(job.slide.path, source.info, job.mpp)
    size = job.model.size if job.model else 0
    names = {feature.name: column for column, feature in enumerate(features_of(job.classes, size))}
    with NucleiFile(Path(job.store)) as file:
        own, near = file.rings(job.group), _near(file, job.group, AROUND_UM / job.mpp)
        scene = Surroundings(file, job.mpp, REACH_UM).scene(job.group)
    out = np.full((len(own), len(names)), np.nan, np.float32)
    if len(own):
        columns = shape_features(Rings(own.xy * job.mpp, own.offsets))
        columns |= neighbourhood_features(scene, job.classes)
        for name, values in columns.items():
            out[:, names[name]] = values
        for rows, columns in pixel_features(source, scale, own, near):
            for name, values in columns.items():
                out[rows, names[name]] = values
        out[:, names["h_total_um2"]] = out[:, names["h_mean"]] * out[:, names["area_um2"]]
    if job.model is not None:
        out[:, len(names) - size :] = embeddings(source, job, scene.xy_um[: len(own)] / job.mpp)
    return out


def _near(file: NucleiFile, group: int, around_l0: float) -> StoredRings:
    """Outlines of other row groups that come near those of this one."""
    x0, y0, x1, y1 = file.group_boxes_l0[group].tolist()
    box = (x0 - around_l0, y0 - around_l0, x1 + around_l0, y1 + around_l0)
    none = StoredRings(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)))
    return StoredRings.concat(
        [none, *(file.rings(other).within(box) for other in file.meeting(box) if other != group)]
    )
