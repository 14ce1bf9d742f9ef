"""A real Slurm of two virtual nodes on this machine: munged, slurmctld and two slurmd, each with its own folders.

Nothing of a Slurm that the machine may have otherwise is touched: own ports, own munge socket and key.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "squeue")
NODES = ("n1", "n2")
CPUS = 2

CONF = """
ClusterName=wsinuc
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={root}/munge/munge.socket,cred_expire=15
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=8
KillWait=5
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=8000
PartitionName=batch Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Why Slurm cannot be started here; "" if it can."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)} (apt-get install slurm-wlm munge --no-install-recommends)"
    return "" if os.geteuid() == 0 else "slurmd and munged need root"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


class Slurm:
    """`env` is the environment that commands need to reach this cluster and no other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = os.environ | {"SLURM_CONF": str(root / "slurm.conf"), "PATH": _path()}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self._start_munge()
        conf = CONF.format(host=socket.gethostname(), ports=_free_ports(3), root=self.root, cpus=CPUS)
        (self.root / "slurm.conf").write_text(conf)
        (self.root / "state").mkdir()
        self._daemon("slurmctld", ["slurmctld", "-D", "-c"])
        for node in NODES:
            self.start_node(node)
        until(self.ready, 120, self.logs)

    def ready(self) -> bool:
        """Whether both nodes are up and idle. Also False while the controller is not up yet."""
        with suppress(AssertionError):
            nodes = sorted(self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%N %t").splitlines())
            return nodes == [f"{name} idle" for name in NODES]
        return False

    def _start_munge(self) -> None:
        """As the user munge, which it insists on. Its folder belongs to that user alone."""
        folder = self.root / "munge"
        folder.mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        for path in (folder, folder / "munge.key"):
            shutil.chown(path, "munge", "munge")
        folder.chmod(0o755)
        (folder / "munge.key").chmod(0o400)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{name}={folder}/munge.{suffix}" for name, suffix in names.items()]
        self._daemon("munged", ["munged", "--foreground", *options], "munge")
        until((folder / "munge.socket").exists, 20, self.logs)

    def start_node(self, node: str) -> None:
        (self.root / f"spool-{node}").mkdir(exist_ok=True)
        self._daemon(node, ["slurmd", "-D", "-N", node])

    def _daemon(self, name: str, command: Sequence[str], user: str | None = None) -> None:
        with (self.root / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command, env=self.env, stdout=out, stderr=out, user=user, group=user
            )

    def run(self, *command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command], env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise AssertionError(f"{command}: {done.stderr}\n{self.logs()}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """State of every job and array task that is not over, by its name such as 12_3."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def processes(self, node: str) -> list[psutil.Process]:
        """What runs on a node, with its daemons. Jobs know their node, and each has a slurmstepd above it."""
        processes = [psutil.Process(self._daemons[node].pid)] if node in self._daemons else []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                if (
                    environment.get("SLURMD_NODENAME") == node
                    and environment.get("SLURM_CONF") == self.env["SLURM_CONF"]
                ):
                    processes.append(process)
                    parent = process.parent()
                    if parent is not None and parent.name() == "slurmstepd":
                        processes.append(parent)
        return processes

    def processes_of(self, task: str) -> list[psutil.Process]:
        """What runs of an array task, by its name such as 12_3."""
        job, number = task.split("_")
        processes = []
        for process in (process for node in NODES for process in self.processes(node)):
            with suppress(psutil.Error):
                environment = process.environ()
                ids = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
                if ids == (job, number):
                    processes.append(process)
        return processes

    def kill_node(self, node: str) -> None:
        """End everything on the node at once, as if its power were cut."""
        doomed = self.processes(node)
        # The daemon last: a job whose end it could report would not be the loss of a node.
        for process in doomed:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)
        for process in doomed:
            with suppress(psutil.Error):
                process.kill()
        self._daemons.pop(node).wait(10)

    def stop(self) -> None:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.run("scancel", "-f", "-u", "root", "--signal=KILL")
        for node in NODES:
            if node in self._daemons:
                self.kill_node(node)
        for daemon in reversed(list(self._daemons.values())):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait(10)

    def logs(self) -> str:
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-1500:]}"
            for path in sorted(self.root.rglob("*"))
            if path.suffix in (".log", ".out")
        )


def until(true: Callable[[], bool], seconds: float, why: Callable[[], str] = lambda: "") -> None:
    """Poll; the limit is generous, since it only has to end a test that is stuck."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, why()
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for listening in sockets:
        listening.bind(("127.0.0.1", 0))
    ports = [int(listening.getsockname()[1]) for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


@contextmanager
def two_nodes() -> Iterator[Slurm]:
    # Not pytest's folder: the user munge has to reach its own below this one.
    root = Path(tempfile.mkdtemp(prefix="wsi-nuc-slurm-"))
    root.chmod(0o755)
    slurm = Slurm(root)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(root, ignore_errors=True)
