"""Who works on a part of a run folder: a small file that its holder renews, so that a second job refuses.

No locks, which shared file systems may lack. A claim appears by link(), which fails where there is one already. A
holder renews it every few seconds; one whose process is gone is taken over at once where that can be seen (the same
machine, or an earlier start of the same SLURM job), and otherwise after it has not been renewed for a while. Clocks of
two machines are never compared.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from subshot.train.job_record import slurm_job
from subshot.train.run_dir import put_in_place, read_json, temporary_beside, write_json

RENEW_SECONDS = 5.0
STALE_SECONDS = 60.0
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Claimed(ValueError):
    """Another process works here; the message says which."""


@dataclass(frozen=True)
class Holder:
    """A process. machine: this start of this computer, and its process namespace. started: the process's, in ticks
    since the machine's start, because ids are used again. beats: how often it has renewed its claim."""

    host: str
    machine: str
    pid: int
    started: str
    slurm_job: str
    slurm_restart: int
    beats: int = 0


@contextmanager
def claimed(path: Path, what: str, stale_seconds: float = STALE_SECONDS) -> Iterator[None]:
    """Holds the claim inside. Raises Claimed where another process holds it; of one on another machine that may be dead
    it waits `stale_seconds` for a sign. what: names the part in that message.
    """
    me = _this_process()
    _acquire(path, me, what, stale_seconds)
    released = threading.Event()
    renewer = threading.Thread(target=_renew, args=(path, me, what, released), daemon=True)
    renewer.start()
    try:
        yield
    finally:
        released.set()
        renewer.join()
        if _is_ours(path, me):
            path.unlink(missing_ok=True)


def _acquire(path: Path, me: Holder, what: str, stale_seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _linked(path, me):
        holder = _read(path)
        if holder is None:
            continue
        if not _is_gone(holder, me):
            if holder.machine == me.machine or not _is_silent(path, holder, stale_seconds):
                raise Claimed(_refusal(holder, what))
        _take_away(path, holder)


def _linked(path: Path, me: Holder) -> bool:
    """Whether the claim is now ours: link() puts a whole file there, or fails."""
    temporary = temporary_beside(path)
    try:
        write_json(temporary, asdict(me))
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _created(path, me)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _created(path: Path, me: Holder) -> bool:
    """As `_linked`, where a file system knows no hard links: the file is there, and is written at once after."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(asdict(me)))
    except FileExistsError:
        return False
    return True


def _take_away(path: Path, dead: Holder) -> None:
    """Removes a dead holder's claim; where another process took it over in between, that one's is put back."""
    aside = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.dead")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    try:
        if _read(aside) != dead:
            with suppress(FileExistsError):  # renewed in between by its holder
                os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _renew(path: Path, me: Holder, what: str, released: threading.Event) -> None:
    """Every few seconds until `released`. A process that was asleep for so long that its claim was taken over ends at
    once: two writers would be worse."""
    temporary, told = temporary_beside(path), False
    while not released.wait(RENEW_SECONDS):
        try:
            if not (_is_ours(path, me) or _is_ours(path, me, after_seconds=1.0)):
                print(
                    f"error: the claim on {what} was taken over, or its folder is gone; ending at once", file=sys.stderr
                )
                os._exit(1)
            me = replace(me, beats=me.beats + 1)
            write_json(temporary, asdict(me), durable=False)
            put_in_place(temporary, path, durable=False)
        except (OSError, ValueError) as error:  # a full disk ends the work, not this thread; it goes on trying
            if not told:
                print(f"the claim {path} cannot be renewed: {error}", file=sys.stderr)
            told = True


def _is_silent(path: Path, holder: Holder, seconds: float) -> bool:
    """Whether the holder gives no sign for so long; waits for it."""
    print(f"{_who(holder)} holds {path}; waiting up to {seconds:.0f} s for a sign of it", file=sys.stderr)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(1.0, seconds / 4))
        if _read(path) != holder:
            return False
    return True


def _is_ours(path: Path, me: Holder, after_seconds: float = 0.0) -> bool:
    time.sleep(after_seconds)  # another process may look at the claim, moved aside, for an instant
    holder = _read(path)
    return holder is not None and replace(holder, beats=0) == replace(me, beats=0)


def _is_gone(holder: Holder, me: Holder) -> bool:
    """Whether the holder surely does not run any more."""
    if holder.machine == me.machine:
        return process_started(holder.pid) != holder.started
    return bool(me.slurm_job) and holder.slurm_job == me.slurm_job and holder.slurm_restart < me.slurm_restart


def _refusal(holder: Holder, what: str) -> str:
    return f"{what} is at work already: {_who(holder)}; wait for it, stop it, or use another folder"


def _who(holder: Holder) -> str:
    job = f", SLURM job {holder.slurm_job}" if holder.slurm_job else ""
    return f"process {holder.pid} on {holder.host}{job}"


def _read(path: Path) -> Holder | None:
    """None where there is no claim. A file that is no claim raises ValueError."""
    try:
        record: Any = read_json(path)
        return Holder(**record)
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a claim ({error}); delete it if nothing works there") from error


def _this_process() -> Holder:
    return Holder(
        host=socket.gethostname(),
        machine=machine_id(),
        pid=os.getpid(),
        started=process_started(os.getpid()),
        slurm_job=slurm_job(),
        slurm_restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    )


def machine_id() -> str:
    """This start of this computer and its process namespace, within which a process id means one process."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.is_file():
        return socket.gethostname()
    return f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def process_started(pid: int) -> str:
    """When a process of this machine began, in the kernel's ticks; empty where there is none, or only its remains."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").is_file():
        return "?" if _exists(pid) else ""
    try:
        after_name = stat.read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if after_name[0] in "ZX" else after_name[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
