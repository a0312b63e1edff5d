"""When a process is to stop or to save: signals and the clock only set marks, which training and search look at between
two steps.

SIGTERM, SIGUSR1 (SLURM's notice before a time limit or a preemption) and SIGINT (Ctrl-C) mean the same: save, and leave
with the status that says "go on with me". All processes agree before any of them acts; see `StepResult` in train/fit.py
and `stop_agreed` in train/dist.py.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Preempted(Exception):
    """The work stopped where it was asked to, with everything that it needs to go on on the disk."""


class Marks:
    """What this process was asked for. stop_signal: the name of the signal that asked it to stop, or empty."""

    def __init__(self, checkpoint_seconds: float = 600.0) -> None:
        self.checkpoint_seconds = checkpoint_seconds
        self.stop_signal = ""
        self._saved = time.monotonic()

    @property
    def stop(self) -> bool:
        return bool(self.stop_signal)

    @property
    def checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved >= self.checkpoint_seconds

    def saved(self) -> None:
        """Starts the clock anew: a checkpoint was written."""
        self._saved = time.monotonic()


def stopped_at(marks: Marks, where: str) -> str:
    """The words of a Preempted: which signal, and how far the work is."""
    return f"{marks.stop_signal or 'a signal to another process'}, after {where}"


@contextmanager
def heeding_signals(marks: Marks, says_so: bool, launched: bool) -> Iterator[None]:
    """Signals set `marks.stop_signal` inside; as before afterwards. Outside the main thread nothing is changed.

    says_so: one line on stderr at the first signal. launched: a launcher passes signals on, so that Ctrl-C arrives
    twice; without one a second Ctrl-C stops at once, as KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if marks.stop and name == "SIGINT" and not launched:
            raise KeyboardInterrupt
        if not marks.stop and says_so:
            again = "; Ctrl-C again stops at once" if name == "SIGINT" and not launched else ""
            os.write(2, f"{name}: stopping after the present step{again}\n".encode())
        marks.stop_signal = marks.stop_signal or name

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
