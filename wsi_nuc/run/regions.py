"""How large the regions of a slide are: small enough for all workers and for little loss by a kill."""

from __future__ import annotations

import math

from wsi_nuc.config import RunConfig
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.resources import usable_cpus
from wsi_nuc.tiling.plan import TilePlan

# Then the last region of the last worker is a small part of the whole.
REGIONS_A_WORKER = 4
# On a core like those that `ModelSpec.cpu_tile_s` was measured on. Four times slower ones still need less than the
# ten minutes that a task of a cluster must have.
LONGEST_S = 150.0
# The workers of somebody else's scheduler are not known yet when the first slide is planned.
WORKERS_ELSEWHERE = 16


def sized(plan: TilePlan, config: RunConfig, spec: ModelSpec, device: str) -> TilePlan:
    """The plan with regions for these workers, no larger than those that it has; those asked for are kept."""
    if config.region_size is not None:
        return plan
    fair = math.isqrt(plan.planned_tiles // (REGIONS_A_WORKER * workers_of(config)))
    quick = math.isqrt(int(LONGEST_S / spec.cpu_tile_s)) if device == "cpu" else plan.tiles_per_region
    return plan.with_regions(max(1, min(plan.tiles_per_region, fair, quick)))


def workers_of(config: RunConfig) -> int:
    """How many are going to compute, as far as the configuration tells."""
    if config.scheduler == "serial":
        return 1
    if config.scheduler == "slurm":
        jobs = config.dask.slurm
        return jobs.jobs * (1 if jobs.gpu else jobs.cores)
    if config.scheduler == "local":
        return config.workers or usable_cpus()
    return WORKERS_ELSEWHERE
