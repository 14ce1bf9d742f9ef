"""Workers as jobs of Slurm: one slide over many nodes, submitted by dask-jobqueue and cancelled at the end."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Security

from wsi_nuc.errors import UsageError
from wsi_nuc.executors.crew import Seen

OPTION = "--scheduler slurm"
# A job that starts after its run is gone finds no scheduler, and ends by itself.
ORPHAN_LIMIT_S = 60
TEST_LIMIT_S = 60
CLOSE_S = 3


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """`jobs` of `workers` processes and `cores` CPUs each; all nodes see `folder`, for logs and certificates.

    `interface`: of the network between the nodes; `secure`: TLS with certificates made for this run.
    """

    folder: Path
    jobs: int
    workers: int
    cores: int
    memory: str
    time: str
    partition: str | None = None
    account: str | None = None
    interface: str | None = None
    secure: bool = True
    directives: Sequence[str] = ()
    prologue: Sequence[str] = ()


class SlurmCrew:
    """Workers as jobs that Slurm may let wait for as long as it likes."""

    wanted, patience_s = None, math.inf

    def __init__(self, options: SlurmOptions) -> None:
        self.contact = slurm_cluster(options)
        self.security: Security | None = self.contact.security

    def tend(self, client: Any) -> Seen:
        return Seen(len(self.contact.scheduler.workers))

    def close(self) -> None:
        with suppress(OSError, TimeoutError):
            self.contact.close(timeout=CLOSE_S)


def slurm_cluster(options: SlurmOptions) -> Any:
    """A cluster whose jobs are submitted; they may wait in the queue for as long as they like."""
    if shutil.which("sbatch") is None:
        raise UsageError(OPTION, "there is no sbatch here", "run it where Slurm's commands are installed")
    with _handlers_kept():
        try:
            from dask_jobqueue import SLURMCluster
        except ImportError:
            raise UsageError(OPTION, "dask-jobqueue is not installed", "pip install 'wsi-nuc[slurm]'") from None
    cluster = SLURMCluster(
        cores=options.workers,
        processes=options.workers,
        job_cpu=options.cores,
        memory=options.memory,
        walltime=options.time,
        queue=options.partition,
        account=options.account,
        interface=options.interface,
        job_name="wsi-nuc",
        job_extra_directives=list(options.directives),
        job_script_prologue=list(options.prologue),
        death_timeout=ORPHAN_LIMIT_S,
        log_directory=str(options.folder),
        local_directory=tempfile.gettempdir(),
        shared_temp_directory=str(options.folder),
        security=Security.temporary() if options.secure else None,
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
        silence_logs="critical",
    )
    try:
        _refuse_what_slurm_refuses(cluster.job_script())
    except UsageError:
        cluster.close()
        raise
    cluster.scale(jobs=options.jobs)
    return cluster


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Importing dask-jobqueue sets handlers of signals: ours would be gone, and in a thread the import fails."""
    original = signal.signal
    signal.signal = lambda number, handler: signal.getsignal(number)  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        signal.signal = original  # type: ignore[assignment, misc]


def _refuse_what_slurm_refuses(script: str) -> None:
    """A dry submission: a wrong partition or too much memory is told now, in Slurm's own words."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        command = ["sbatch", "--test-only", file.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TEST_LIMIT_S, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"sbatch ends with {done.returncode}"
        raise UsageError(OPTION, f"Slurm refuses such a job ({said})", "change the section dask.slurm of --config")
