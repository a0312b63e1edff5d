"""What a job says of itself, for people and scripts on another machine: jobs/<job>.json, which its first process
writes, and heartbeats/<job>-<rank>.json, one a process, each with one writer.

A job is one command at work on a run folder: `search`, `retrain`, or an element of an array, `retrain-3`. Nothing here
needs torch: launch/status.py reads these files on a login node.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from subshot.train.run_dir import RunDir, read_json, write_json

State = Literal["running", "preempted", "failed", "finished"]
STATES: tuple[State, ...] = get_args(State)
BEAT_EVERY_SECONDS = 2.0
STOPS_KEPT = 8


@dataclass(frozen=True)
class JobRecord:
    """jobs/<job>.json. running: at work, or killed without notice (then its heartbeats are old). preempted: stopped by
    a signal, or because other processes were lost; the same command with --resume goes on. failed: `message` says why.
    """

    job: str
    state: State
    message: str
    command: tuple[str, ...]
    """How the job is given again."""
    processes: int
    host: str
    slurm_job: str
    """SLURM's id of the job or of the array element; empty outside SLURM."""
    begun_unix: float
    updated_unix: float
    restarts: int = 0
    """How often the job was begun again before this."""
    stops: tuple[str, ...] = ()
    """How far it was at its last stops, the latest last."""

    @property
    def is_stuck(self) -> bool:
        """Whether its last three stops came without any progress between them."""
        return len(self.stops) >= 3 and len(set(self.stops[-3:])) == 1


@dataclass(frozen=True)
class Heartbeat:
    """heartbeats/<job>-<rank>.json: how far a process is in its present stage. total: 0 where it is not known. failure:
    why it ended, where it failed."""

    job: str
    rank: int
    processes: int
    stage: str
    done: int
    total: int
    rate_per_second: float
    host: str
    pid: int
    beat_unix: float
    failure: str = ""

    @property
    def seconds_left(self) -> float | None:
        """Of the stage, at its present rate; None where that is not known."""
        left = self.total - self.done
        return left / self.rate_per_second if self.total and self.rate_per_second > 0 else None


def slurm_job(environment: Mapping[str, str] = os.environ) -> str:
    """SLURM's id of this job, of an array's element as <array>_<element>; empty outside SLURM."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID", "")


def read_job(run: RunDir, job: str) -> JobRecord | None:
    """None where no such job ever began. Raises ValueError where the file is damaged."""
    return _read(JobRecord, run.job_json(job))


def read_jobs(run: RunDir) -> list[JobRecord]:
    """All jobs of a run, in order of name, array elements by their number."""
    found = [_read(JobRecord, path) for path in run.job_json("x").parent.glob("*.json")]
    return sorted((job for job in found if job is not None), key=lambda job: _by_number(job.job))


def read_heartbeats(run: RunDir, job: str) -> list[Heartbeat]:
    """Of the processes of a job's last start, by rank; those of an earlier start with more of them are left out."""
    found = []
    for path in run.heartbeat_json(job, 0).parent.glob(f"{job}-rank*.json"):
        with suppress(ValueError):  # of another version; the next beat replaces it
            found.append(_read(Heartbeat, path))
    beats = sorted((beat for beat in found if beat is not None and beat.job == job), key=lambda beat: beat.rank)
    latest = max(beats, key=lambda beat: beat.beat_unix, default=None)
    return [beat for beat in beats if latest is not None and beat.rank < latest.processes]


def begin_job(run: RunDir, job: str, command: Sequence[str], processes: int) -> JobRecord:
    """Writes that the job runs; a job that ran before counts as begun again."""
    before = read_job(run, job)
    now = time.time()
    record = JobRecord(
        job=job,
        state="running",
        message="",
        command=tuple(command),
        processes=processes,
        host=socket.gethostname(),
        slurm_job=slurm_job(),
        begun_unix=now,
        updated_unix=now,
        restarts=0 if before is None else before.restarts + 1,
        stops=() if before is None else before.stops,
    )
    write_json(run.job_json(job), asdict(record))
    return record


def end_job(run: RunDir, record: JobRecord, state: State, message: str, progress: str) -> None:
    """Writes how the job ended. progress: how far it was, in words that are equal only where nothing was done since."""
    stops = (*record.stops, progress)[-STOPS_KEPT:] if state == "preempted" else record.stops
    ended = replace(record, state=state, message=message, updated_unix=time.time(), stops=stops)
    write_json(run.job_json(record.job), asdict(ended))


class Pulse:
    """Writes one process's heartbeat, at most every two seconds and whenever the stage changes."""

    def __init__(self, run: RunDir, job: str, rank: int, processes: int) -> None:
        self.run, self.job, self.rank, self.processes = run, job, rank, processes
        self.last: Heartbeat | None = None
        self._began: dict[str, tuple[float, int]] = {}
        self.progress = ""
        """The stage and count of the latest call, in words."""

    def beat(self, stage: str, done: int, total: int) -> None:
        now = time.time()
        self.progress = f"{stage} {done}"
        began, first = self._began.setdefault(stage, (now, done))
        if done < first:
            began, first = self._began[stage] = (now, done)
        if self.last is not None and stage == self.last.stage and now - self.last.beat_unix < BEAT_EVERY_SECONDS:
            if done < total or not total:
                return
        rate = (done - first) / (now - began) if now > began else 0.0
        self.last = Heartbeat(
            self.job, self.rank, self.processes, stage, done, total, rate, socket.gethostname(), os.getpid(), now
        )
        self._write()

    def fail(self, reason: str) -> None:
        """The process's last words."""
        if self.last is not None:
            self.last = replace(self.last, failure=reason, beat_unix=time.time())
            self._write()

    def _write(self) -> None:
        assert self.last is not None, "there is something to write"
        with suppress(OSError):  # a missed heartbeat harms nothing; the work's own writes tell of a broken disk
            write_json(self.run.heartbeat_json(self.job, self.rank), asdict(self.last), durable=False)


def _read(kind: Any, path: Path) -> Any:
    if not path.is_file():
        return None
    record = read_json(path)
    names = {field.name for field in fields(kind)}
    if not isinstance(record, dict) or set(record) != names or record.get("state", "running") not in STATES:
        raise ValueError(f"{path} is not a {kind.__name__} of this version of subshot; delete it")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in record.items()})


def _by_number(job: str) -> tuple[str, int]:
    name, _, number = job.rpartition("-")
    return (name, int(number)) if number.isdigit() else (job, -1)
