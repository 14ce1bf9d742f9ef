"""Workers as jobs of Slurm, for one slide over many nodes. Lost jobs are submitted again, up to a limit."""

from __future__ import annotations

import math
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
from dask.utils import parse_bytes
from distributed.utils import get_ip

from wsi_nuc.errors import Interrupted, UsageError
from wsi_nuc.executors import slurm_commands
from wsi_nuc.executors.local import scheduler_only
from wsi_nuc.executors.original import ENVIRONMENT
from wsi_nuc.executors.private import own_certificate, security_with
from wsi_nuc.executors.watch import Seen

OPTION = "--scheduler slurm"
REMEDY = "change the section dask.slurm of --config"
# A job that starts after its run has ended does not reach a scheduler, and ends by itself.
ORPHAN_LIMIT_S = 60
LOOK_EVERY_S = 10.0
CLOSE_S = 3


class KeyFile(Protocol):
    """A file that only its owner can read; `close` removes it."""

    @property
    def path(self) -> Path:
        """Where it is, on all nodes."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """The jobs that have the workers of a run."""

    logs: Path
    """Folder for the jobs' logs; all nodes see it."""
    keep_key: Callable[[str], KeyFile]
    """Puts this run's private key into a file that all nodes see."""
    jobs: int
    workers: int
    """Processes per job."""
    cores: int
    """CPUs per job."""
    memory: str
    """Per job, such as 8GiB."""
    time: str
    """Limit of a job, as Slurm writes it."""
    partition: str | None = None
    account: str | None = None
    interface: str | None = None
    """Of the network between the nodes."""
    directives: Sequence[str] = ()
    """Further ones, without #SBATCH."""
    prologue: Sequence[str] = ()
    """Shell lines before the worker."""
    resubmit: int = 3
    """How often a job is submitted again, on average."""
    patience_s: float = math.inf
    """How long a run may be without any worker, while its jobs wait in the queue."""


class SlurmCrew:
    """A scheduler in this process and its jobs. Every LOOK_EVERY_S seconds it asks Slurm what became of them."""

    def __init__(self, options: SlurmOptions) -> None:
        slurm_commands.check_slurm(OPTION)
        host = _address(options.interface)
        self.wanted, self.patience_s = options.jobs * options.workers, options.patience_s
        self._jobs, self._left = list[str](), options.jobs * options.resubmit
        self._options, self._looked_at = options, time.monotonic()
        self.security = security_with(own_certificate())
        self._key = options.keep_key(own_certificate())
        self.contact = scheduler_only(host, False, self.security)
        self._script = "\n".join(_script(options, self._key.path, self.contact.scheduler_address)) + "\n"
        try:
            slurm_commands.refuse_what_slurm_refuses(OPTION, self._script, REMEDY)
            for _ in range(options.jobs):
                self._submit()
        except UsageError:
            self.close()
            raise

    def tend(self, client: Any) -> Seen:
        note = ""
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:
            note = self._replace_lost()
            self._looked_at = time.monotonic()
        return Seen(len(self.contact.scheduler.workers), note)

    def _replace_lost(self) -> str:
        queued = slurm_commands.queued(self._jobs)
        if queued is None:
            return ""
        lost = [job for job in self._jobs if job not in queued]
        self._jobs = [job for job in self._jobs if job in queued]
        # A job that Slurm does not accept now is submitted at the next look.
        with suppress(UsageError):
            for _ in range(min(self._left, self._options.jobs - len(self._jobs))):
                self._submit()
                self._left -= 1
        if not self._jobs and not self._left:
            logs = f"see their logs in {self._options.logs}"
            raise Interrupted(f"the loss of all its jobs, which were submitted again as often as allowed; {logs}")
        if not lost:
            return ""
        return f"worker jobs are gone: {', '.join(lost)}; jobs may be submitted again {self._left} times"

    def _submit(self) -> None:
        self._jobs.append(slurm_commands.submit_text(OPTION, self._script, REMEDY))

    def close(self) -> None:
        slurm_commands.cancel(self._jobs)
        self._key.close()
        with suppress(OSError, TimeoutError):
            self.contact.close(timeout=CLOSE_S)


def _address(interface: str | None) -> str:
    """This machine's address in the network between the nodes."""
    if interface is None:
        return str(get_ip())
    known = psutil.net_if_addrs()
    addresses = [entry.address for entry in known.get(interface, []) if entry.family == socket.AF_INET]
    if not addresses:
        cause = (
            f"this machine has no such network interface with an IPv4 address; it has {', '.join(sorted(known))}"
        )
        raise UsageError(f"dask.slurm.interface={interface}", cause, "name the one that leads to the nodes")
    return str(addresses[0])


def _script(options: SlurmOptions, key_file: Path, scheduler: str) -> Iterator[str]:
    memory_bytes = parse_bytes(options.memory)
    yield "#!/usr/bin/env bash"
    yield "#SBATCH --job-name=wsi-nuc"
    yield f'#SBATCH --output="{str(options.logs).replace("%", "%%")}/%j.log"'
    yield f"#SBATCH --ntasks=1 --cpus-per-task={options.cores} --mem={math.ceil(memory_bytes / 2**20)}M"
    yield f"#SBATCH --time={options.time}"
    for name, value in (("partition", options.partition), ("account", options.account)):
        if value:
            yield f"#SBATCH --{name}={value}"
    yield from (f"#SBATCH {directive}" for directive in options.directives)
    yield from (f"export {name}={value}" for name, value in ENVIRONMENT.items())
    yield from options.prologue
    key = shlex.quote(str(key_file))
    words = [
        f"exec {shlex.quote(sys.executable)} -m distributed.cli.dask_worker {scheduler}",
        '--name "wsi-nuc-$SLURM_JOB_ID"',
        f"--nworkers {options.workers} --nthreads 1 --memory-limit {memory_bytes // options.workers}",
        f"--death-timeout {ORPHAN_LIMIT_S} --no-dashboard --worker-class wsi_nuc.executors.private.QuietWorker",
        '--local-directory "${TMPDIR:-/tmp}"',
        f"--protocol tls:// --tls-ca-file {key} --tls-cert {key} --tls-key {key}",
        f"--interface {options.interface}" if options.interface else "",
    ]
    yield " ".join(filter(None, words))
