"""How a batch script learns what became of its job: a mark before the work, a verdict after it. Needs no torch."""

from __future__ import annotations

import os
import time
from typing import Literal

from subshot.train.job_record import read_heartbeats, read_job
from subshot.train.run_dir import RunDir

Word = Literal["finished", "requeue", "stuck", "failed"]


def mark(run: RunDir, job: str) -> str:
    """How often the job was begun, and how far it is."""
    return f"{starts(run, job)} {reached(run, job)}".strip()


def starts(run: RunDir, job: str) -> int:
    record = read_job(run, job)
    return 0 if record is None else record.restarts + 1


def reached(run: RunDir, job: str) -> str:
    """Stage and count of the job's first process; empty where it never said."""
    return next((f"{beat.stage} {beat.done}" for beat in read_heartbeats(run, job)), "")


def verdict(run: RunDir, job: str, before: str, preempted: bool = False) -> tuple[Word, str]:
    """A word and its reason. before: the job's mark when the script began. preempted: SLURM says that it took the nodes
    away; that matters for a job that had not come as far as to say anything.

    requeue: it goes on where it was. stuck: it would, but made no headway between two stops. A job that still says that
    it runs was killed without notice: nothing of it is left when this is asked.
    """
    begun, _, where_before = before.partition(" ")
    record = read_job(run, job)
    if record is None or str(starts(run, job)) == begun:
        if preempted:
            return "requeue", f"{job} was preempted before it had begun and goes on from the queue"
        return "failed", f"{job} did not get as far as to begin; its log says why"
    if record.state == "finished":
        return "finished", f"{job} is finished"
    if record.state == "failed":
        return "failed", f"{job} failed: {record.message}"
    where = reached(run, job)
    if record.state == "preempted":
        is_stuck, how = record.is_stuck, f"stopped ({record.message})"
    else:
        is_stuck, how = where == where_before, f"killed without notice at {where or 'its start'}"
    if is_stuck:
        return "stuck", f"{job} was {how} again, without any headway; it is not begun once more"
    return "requeue", f"{job} was {how} and goes on from the queue"


def settled_verdict(run: RunDir, job: str, before: str, seconds: float, preempted: bool = False) -> tuple[Word, str]:
    """The verdict, once the job itself said how it ended or the time is up: what another node wrote may take a while
    to be seen here."""
    deadline = time.monotonic() + seconds
    while True:
        look_again(run)
        record = read_job(run, job)
        said = record is not None and record.state != "running" and str(starts(run, job)) != before.partition(" ")[0]
        if said or time.monotonic() > deadline:
            return verdict(run, job, before, preempted)
        time.sleep(0.5)


def look_again(run: RunDir) -> None:
    """Opening its folders makes NFS ask what is in them now."""
    for folder in (run.root, run.job_json("x").parent, run.heartbeat_json("x", 0).parent):
        if folder.is_dir():
            os.listdir(folder)
