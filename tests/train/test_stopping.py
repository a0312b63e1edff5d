"""Signals set marks and do nothing else; what they replaced is put back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from subshot.train.dist import World, joined_world, stop_agreed, together, unless_stopped
from subshot.train.stopping import SIGNALS, Marks, Preempted, heeding_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_a_mark(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    marks, before = Marks(), signal.getsignal(number)
    with heeding_signals(marks, says_so=True, launched=False):
        assert not marks.stop
        os.kill(os.getpid(), number)
        assert marks.stop and marks.stop_signal == number.name
        os.kill(os.getpid(), signal.SIGTERM)
        assert marks.stop_signal == number.name, "the first one is what stopped it"
    assert signal.getsignal(number) == before
    assert capfd.readouterr().err.count("stopping after the present step") == 1


def test_a_second_ctrl_c_stops_at_once_but_not_under_a_launcher(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), heeding_signals(Marks(), says_so=True, launched=False):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert "Ctrl-C again stops at once" in capfd.readouterr().err
    with heeding_signals(Marks(), says_so=True, launched=True):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert "again" not in capfd.readouterr().err


def test_other_threads_leave_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with heeding_signals(Marks(), says_so=False, launched=False):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_checkpoints_are_due_by_the_clock() -> None:
    assert not Marks(1000.0).checkpoint_due
    marks = Marks(0.0)
    assert marks.checkpoint_due
    marks.checkpoint_seconds = 1000.0
    marks.saved()
    assert not marks.checkpoint_due


def test_work_stops_between_two_items(one_process: World) -> None:
    assert unless_stopped([1, 2], str, one_process) == ["1", "2"]
    assert not stop_agreed(one_process)
    done = []

    def work(item: int) -> None:
        done.append(item)
        one_process.marks.stop_signal = "SIGTERM" if item == 2 else ""

    with pytest.raises(Preempted, match="SIGTERM, 2 done"):
        together(lambda: unless_stopped([1, 2, 3], work, one_process), one_process)
    assert done == [1, 2] and stop_agreed(one_process)


@pytest.mark.parametrize(("timeout", "checkpoint"), [(0.0, 10.0), (-1.0, 10.0), (30.0, 0.0)])
def test_minutes_are_above_zero(timeout: float, checkpoint: float) -> None:
    with pytest.raises(ValueError, match=r"-minutes is .*; it must be above 0"), joined_world(timeout, checkpoint):
        pass
