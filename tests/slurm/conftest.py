"""A SLURM of one machine, started for the tests: munged, slurmctld and two slurmd of the distribution's packages, with
all their files below a temporary folder and ports of their own, so that one that is installed here is left alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
NODES = (socket.gethostname().split(".")[0], "localhost")
"""Two names of this machine, one CPU each: a slurmd runs for each of them."""


@dataclass(frozen=True)
class Slurm:
    """folder: configuration, state and logs of the daemons. environment: what every client needs."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """Standard output of a client, which must succeed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """SLURM's word for a job or an array's element; empty where it has forgotten it."""
        command = ["squeue", "-h", "-r", "--states=all", "-j", job.split("_")[0], "-o", "%i %T"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        states = dict(line.split() for line in done.stdout.splitlines())
        return states.get(job, "")

    def wait(self, job: str, states: tuple[str, ...], seconds: float) -> str:
        """The first of `states` that the job is seen in."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.state(job)
            if found in states:
                return found
            time.sleep(0.2)
        shown = subprocess.run(["scontrol", "show", "job", job], env=self.environment, capture_output=True, text=True)
        raise AssertionError(f"job {job} is {self.state(job)!r} after {seconds} s, not one of {states}\n{shown.stdout}")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"SLURM is not installed here: there is no {', '.join(missing)}; .ci/run installs it")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs only as root")
    folder = tmp_path_factory.mktemp("slurm")
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    started: list[Path] = []
    try:
        start_daemons(folder, environment, started)
        yield Slurm(folder, environment)
    finally:
        end_jobs(environment)
        for pid_file in reversed(started):
            stop(pid_file)


def start_daemons(folder: Path, environment: dict[str, str], started: list[Path]) -> None:
    """In order; the pid file of each goes into `started` before it is."""
    (folder / "slurm.conf").write_text(configuration(folder, free_ports(1 + len(NODES))))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    munged = ["munged", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key"]
    munged += [f"--{what}-file={folder}/munged.{what}" for what in ("pid", "log", "seed")]
    daemons = {"munged": munged, "slurmctld": ["slurmctld"]}
    daemons |= {f"slurmd-{node}": ["slurmd", "-N", node] for node in NODES}
    for name, command in daemons.items():
        started.append(folder / f"{name}.pid")
        subprocess.run(command, env=environment, check=True, timeout=30, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        asked = ["sinfo", "-h", "-N", "-p", "debug", "-o", "%T"]
        seen = subprocess.run(asked, env=environment, capture_output=True, text=True)
        if seen.stdout.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("slurm*.log")))
    raise AssertionError(f"the nodes are not idle after 60 s but {seen.stdout.split()}\n{logs}")


def end_jobs(environment: dict[str, str]) -> None:
    """Those that a failed test left; slurmd would leave their processes."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        subprocess.run(["scancel", "--me"], env=environment, capture_output=True, timeout=30)
        left = subprocess.run(["squeue", "-h"], env=environment, capture_output=True, text=True, timeout=30)
        if not left.stdout.strip():
            return
        time.sleep(0.5)


def stop(pid_file: Path) -> None:
    """Ends the daemon that the file names, and waits for it."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def configuration(folder: Path, ports: list[int]) -> str:
    """slurm.conf. A job of the partition `urgent` preempts others, which get SIGTERM and after GraceTime SIGKILL;
    KillWait is the same time for jobs that are requeued by hand."""
    (folder / "state").mkdir()
    host = NODES[0]
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 State=UNKNOWN"
        for node, port in zip(NODES, ports[1:], strict=True)
    )
    return f"""ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MpiDefault=none
MaxArraySize=1001
JobRequeue=1
MinJobAge=3600
KillWait=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""
