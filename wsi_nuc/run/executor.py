"""The executor that a configuration asks for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wsi_nuc.config import RunConfig
from wsi_nuc.events import Emit, ignore
from wsi_nuc.executors.base import Executor
from wsi_nuc.executors.serial import SerialExecutor
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.run.region import prepare_worker
from wsi_nuc.run.resources import allow_files, device_of_jobs, gpus, resolve_device, usable_cpus, usable_memory
from wsi_nuc.store import durable
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.private import Private, SecretFile, private

if TYPE_CHECKING:
    from wsi_nuc.executors.slurm import SlurmOptions

SLURM = "slurm"
# Schedulers that a run makes for itself; anything else is the address of one.
OWN = ("local", SLURM)


def make_executor(config: RunConfig, spec: ModelSpec, device: str, emit: Emit = ignore) -> Executor:
    setup = partial(prepare_worker, config.model, device, tuple(config.inference.items()))
    if config.scheduler == "serial":
        return SerialExecutor(setup)
    from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor

    dask, workers = config.dask, config.workers or usable_cpus()
    if config.scheduler == "local":
        allow_files(workers)
    options = ClusterOptions(
        workers=workers,
        address=None if config.scheduler in OWN else config.scheduler,
        host=dask.host,
        dashboard=dask.dashboard,
        environments=[{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus()] if config.device == "all" else (),
        copied=spec.copyable and device == "cpu",
        in_flight=dask.regions_in_flight,
        tls=(dask.tls_ca, dask.tls_cert, dask.tls_key),
        memory_bytes=usable_memory(),
        slurm=slurm_options(config) if config.scheduler == SLURM else None,
        patience_s=dask.patience_s,
    )
    return DaskExecutor(options, setup, emit)


def executor_device(config: RunConfig, uses_torch: bool) -> str:
    """Where the model runs: on this machine, or in the jobs that compute."""
    if config.scheduler == SLURM:
        return device_of_jobs(config.device, uses_torch, config.dask.slurm.gpu)
    return resolve_device(config.device, uses_torch)


def slurm_options(config: RunConfig) -> SlurmOptions:
    from wsi_nuc.executors.slurm import SlurmOptions

    jobs, folder = config.dask.slurm, private(made_folder(config.out), Private.SLURM)
    # Slurm writes there by its path.
    durable.make_dir(folder)
    return SlurmOptions(
        logs=folder.path,
        keep_key=partial(SecretFile, folder),
        jobs=jobs.jobs,
        workers=1 if jobs.gpu else jobs.cores,
        cores=jobs.cores,
        memory=jobs.memory,
        time=jobs.time,
        partition=jobs.partition,
        account=jobs.account,
        interface=jobs.interface,
        directives=[*(["--gres=gpu:1"] if jobs.gpu else []), *jobs.directives],
        prologue=jobs.prologue,
        resubmit=jobs.resubmit,
        patience_s=jobs.patience_s,
    )
