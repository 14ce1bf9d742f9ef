"""The executor that a configuration asks for."""

from __future__ import annotations

from functools import partial

from wsi_nuc.config import RunConfig
from wsi_nuc.executors.base import Executor
from wsi_nuc.executors.serial import SerialExecutor
from wsi_nuc.run.region import prepare_worker
from wsi_nuc.run.resources import usable_cpus


def make_executor(config: RunConfig, device: str) -> Executor:
    setup = partial(prepare_worker, config.model, device, tuple(config.inference.options.items()))
    if config.scheduler == "serial":
        return SerialExecutor(setup)
    from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor

    dask = config.dask
    options = ClusterOptions(
        workers=config.workers or usable_cpus(),
        address=None if config.scheduler == "local" else config.scheduler,
        host=dask.host,
        dashboard=dask.dashboard,
        gpus=config.device == "all",
        in_flight=dask.regions_in_flight,
        tls=(dask.tls_ca, dask.tls_cert, dask.tls_key),
    )
    return DaskExecutor(options, setup)
