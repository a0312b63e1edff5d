"""One command at work on a run folder: its claim, its record, its heartbeats, and what is said when it ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from subshot.train.claim import Claimed, claimed, process_started
from subshot.train.dist import LostProcesses, World, gather_objects
from subshot.train.job_record import Heartbeat, Pulse, State, begin_job, end_job, read_heartbeats, read_job
from subshot.train.run_dir import RunDir
from subshot.train.stopping import Preempted

LAST_WORDS_SECONDS = 3.0
"""How long a process that lost another waits for that one's reason."""


@contextmanager
def claimed_by_main(path: Path, what: str, world: World) -> Iterator[None]:
    """The main process holds the claim for all. Raises Claimed, on every rank, where another job holds it."""
    with ExitStack() as held:
        failure: Exception | None = None
        if world.is_main:
            try:
                held.enter_context(claimed(path, what))
            except (ValueError, OSError) as error:  # told to the others, which wait, and raised below
                failure = error
        (refusal, *_) = gather_objects("" if failure is None else str(failure), world)
        if failure is not None:
            raise failure
        if refusal:
            raise Claimed(refusal)
        yield


@contextmanager
def job(run: RunDir, name: str, command: Sequence[str], world: World) -> Iterator[Pulse]:
    """Gives this process's pulse, and writes down how the job ends: finished, preempted or failed, and why.

    The main process writes the record. Another process that fails leaves its reason in its heartbeat, and who lost it
    raises LostProcesses with that reason.
    """
    pulse = Pulse(run, name, world.rank, world.size)
    record = begin_job(run, name, command, world.size) if world.is_main else None
    pulse.beat("starting", 0, 0)

    def end(state: State, message: str) -> None:
        with suppress(OSError):  # a full disk, which the error on its way tells of
            if record is not None:
                end_job(run, record, state, message, pulse.progress)
            elif state == "failed":
                pulse.fail(message)

    try:
        yield pulse
    except (Preempted, KeyboardInterrupt) as reason:
        end("preempted", str(reason) or "Ctrl-C")
        raise
    except LostProcesses as error:
        lost, failed = what_happened(run, name, world)
        end("failed" if failed else "preempted", lost)
        told = LostProcesses(f"{lost} ({error})")
        told.speaks = world.is_main or _speaks(run, name, world)
        raise told from error
    except BaseException as error:
        end("failed", f"{type(error).__name__}: {error}")
        raise
    if record is not None:
        end_job(run, record, "finished", "", pulse.progress)


def what_happened(run: RunDir, name: str, world: World) -> tuple[str, bool]:
    """(A sentence on the other processes after one was lost, whether one of them failed for a reason of its own)."""
    end = time.monotonic() + LAST_WORDS_SECONDS
    while True:
        others = [beat for beat in beats_since_begun(run, name) if beat.rank != world.rank]
        failed = [f"process {beat.rank} failed: {beat.failure}" for beat in others if beat.failure]
        gone = [f"process {beat.rank} on {beat.host} is gone" for beat in others if is_gone(beat)]
        if failed or time.monotonic() > end:
            break
        time.sleep(0.1)
    ages = [
        f"process {beat.rank} on {beat.host} gave its last sign {time.time() - beat.beat_unix:.0f} s ago, at "
        f"{beat.stage} {beat.done}"
        for beat in others
    ]
    return "; ".join(failed or gone or ages) or "another process has given no sign yet", bool(failed)


def beats_since_begun(run: RunDir, name: str) -> list[Heartbeat]:
    """Without those of an earlier start."""
    record = read_job(run, name)
    return [beat for beat in read_heartbeats(run, name) if record is None or beat.beat_unix >= record.begun_unix - 1.0]


def is_gone(beat: Heartbeat) -> bool:
    """Whether a process of this machine runs no more; False for those of other machines, which cannot be seen."""
    return beat.host == socket.gethostname() and not process_started(beat.pid)


def _speaks(run: RunDir, name: str, world: World) -> bool:
    """Whether the main process ended without a word, or hangs, and so does every other before this one."""
    time.sleep(1.0)  # the main process, where it lives, has written by now how the job ended
    record = read_job(run, name)
    earlier = [beat for beat in read_heartbeats(run, name) if beat.rank < world.rank]
    silent = all(is_gone(beat) or time.time() - beat.beat_unix > LAST_WORDS_SECONDS for beat in earlier)
    return record is not None and record.state == "running" and silent
