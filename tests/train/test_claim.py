"""Claims: one holder, refusal while it lives, taken over when it is gone; by real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from subshot.train import claim
from subshot.train.claim import Claimed, Holder, claimed

HOLD = """
import sys, time
from pathlib import Path
from subshot.train.claim import claimed
with claimed(Path(sys.argv[1]), "a search in runs/a"):
    print("held", flush=True)
    time.sleep(600)
"""


def holder_of(path: Path) -> Holder:
    return Holder(**json.loads(path.read_text()))


@pytest.fixture
def other(tmp_path: Path):
    """Another process that holds tmp_path/search.json."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "search.json")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_claim_is_held_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "search.json"
    with claimed(path, "a search"):
        assert holder_of(path).pid == os.getpid()
    assert list(path.parent.iterdir()) == []
    with pytest.raises(KeyError), claimed(path, "a search"):
        raise KeyError
    assert not path.exists()


def test_a_second_process_refuses_at_once_and_says_who(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    path = tmp_path / "search.json"
    with pytest.raises(Claimed, match=rf"a search in runs/a is at work already: process {other.pid} on "):
        with claimed(path, "a search in runs/a"):
            pass
    assert holder_of(path).pid == other.pid


def test_a_killed_holder_is_taken_over_at_once(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # not waited for: its remains still have the id
    with claimed(tmp_path / "search.json", "a search"):
        assert holder_of(tmp_path / "search.json").pid == os.getpid()


def test_one_on_another_machine_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = tmp_path / "search.json"
    elsewhere = Holder("node7", "another boot", 4711, "99", "", 0)
    path.write_text(json.dumps(asdict(elsewhere)))
    with claimed(path, "a search", stale_seconds=0.4):  # gives no sign
        assert holder_of(path).pid == os.getpid()
    assert "process 4711 on node7 holds" in capsys.readouterr().err
    path.write_text(json.dumps(asdict(elsewhere)))
    beat = threading.Timer(0.1, lambda: path.write_text(json.dumps(asdict(replace(elsewhere, beats=1)))))
    beat.start()
    with pytest.raises(Claimed, match="process 4711 on node7"), claimed(path, "a search", stale_seconds=2.0):
        pass
    beat.join()


def test_an_earlier_start_of_the_same_slurm_job_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "search.json"
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    path.write_text(json.dumps(asdict(Holder("node7", "another boot", 4711, "99", "12", 0))))
    began = time.monotonic()
    with claimed(path, "a search", stale_seconds=60.0):
        assert holder_of(path).slurm_restart == 1
    assert time.monotonic() - began < 30


def test_a_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "RENEW_SECONDS", 0.02)
    path = tmp_path / "search.json"
    with claimed(path, "a search"):
        end = time.monotonic() + 20
        while holder_of(path).beats < 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert holder_of(path).beats >= 3
    assert not path.exists()


IN_AND_OUT = """
import os, sys, time
from pathlib import Path
from subshot.train.claim import Claimed, claimed
log = Path(sys.argv[2])
def note(word):
    with log.open("a") as file:
        file.write(f"{word} {os.getpid()}\\n")
while not Path(sys.argv[3]).exists():
    time.sleep(0.001)
try:
    with claimed(Path(sys.argv[1]), "a search"):
        note("in")
        time.sleep(0.05)
        note("out")
except Claimed:
    pass
"""


def test_many_at_once_hold_it_one_after_the_other(tmp_path: Path) -> None:
    """All find the same dead holder's claim."""
    path, log, go = tmp_path / "search.json", tmp_path / "log.txt", tmp_path / "go"
    path.write_text(json.dumps(asdict(replace(claim._this_process(), pid=2**22 + 1, started="1"))))
    crowd = [subprocess.Popen([sys.executable, "-c", IN_AND_OUT, path, log, go]) for _ in range(6)]
    time.sleep(3.0)
    go.touch()
    assert [process.wait() for process in crowd] == [0] * 6
    lines = log.read_text().splitlines()
    assert lines
    for entered, left in zip(lines[::2], lines[1::2], strict=True):
        assert (entered.split()[0], left.split()[0]) == ("in", "out") and entered.split()[1] == left.split()[1]


def test_what_is_no_claim_is_named(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"search\.json is not a claim"), claimed(tmp_path / "search.json", "a search"):
        pass
