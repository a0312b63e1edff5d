"""launch/status.py: what it shows of jobs wherever they run, and the verdict that batch scripts ask for."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from subshot.launch import status
from subshot.launch.manifest import Element, Manifest, freeze
from subshot.launch.verdict import mark, settled_verdict, verdict
from subshot.train.job_record import Heartbeat, Pulse, State, begin_job, end_job, read_job
from subshot.train.run_dir import RunDir, write_json

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = RunDir(tmp_path / "run")
    write_json(found.config_json, {})
    return found


def beat(run: RunDir, job: str, rank: int, done: int, seconds_ago: float, processes: int = 2) -> None:
    written = Heartbeat(job, rank, processes, "warm-up", done, 100, 0.5, f"node{rank}", 1, time.time() - seconds_ago)
    write_json(run.heartbeat_json(job, rank), vars(written))


def begun(run: RunDir, job: str, state: State, message: str = "", progress: str = "") -> None:
    record = begin_job(run, job, ["python", "launch/search.py"], 2)
    if state != "running":
        end_job(run, record, state, message, progress)


def test_shows_each_process_and_who_is_late(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    begun(run, "search", "running")
    beat(run, "search", 0, 40, seconds_ago=2)
    beat(run, "search", 1, 40, seconds_ago=300)
    assert status.main([str(run.root)]) == 0
    first, job, rank_0, rank_1 = capsys.readouterr().out.splitlines()
    assert first == f"run {run.root}: searching"
    assert job == "search: running"
    assert rank_0 == "  rank 0 on node0: warm-up 40 of 100, 0.5 a second, 2 min 00 s left, heard of 2 s ago"
    assert rank_1.endswith("heard of 5 min 00 s ago, LATE")
    assert status.main([str(run.root), "--late-seconds", "1000"]) == 0
    assert "LATE" not in capsys.readouterr().out


def test_shows_why_a_job_failed_and_which_are_begun_again(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    begun(run, "search", "preempted", "SIGUSR1", "warm-up 3")
    begun(run, "search", "finished")
    begun(run, "retrain-2", "failed", "OSError: No space left on device\nmore")
    begun(run, "retrain-10", "running")
    record = read_job(run, "retrain-10")
    assert record is not None
    write_json(run.job_json("retrain-10"), vars(replace(record, begun_unix=time.time() - 1000, slurm_job="7_10")))
    assert status.main([str(run.root)]) == 0
    _, *jobs = capsys.readouterr().out.splitlines()
    assert jobs == [
        "retrain-2: failed: OSError: No space left on device",
        "  go on with: python launch/search.py",
        "retrain-10: running, or killed without notice, SLURM job 7_10",
        "search: finished, begun 2 times",
    ]
    assert status.main([str(run.root), "--job", "search"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_counts_finished_retrainings(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    elements = [
        Element(i, f"{i}", "1", "winner", None, "0", i, None, None, f"winners/{i}/metrics.json") for i in range(3)
    ]
    freeze(run, Manifest("0", "test/accuracy", tuple(elements)))
    write_json(run.root / "winners/1/metrics.json", {})
    assert status.main([str(run.root)]) == 0
    assert capsys.readouterr().out == f"run {run.root}: 1 of 3 retrainings finished\n"
    assert status.main([str(run.root), "--elements"]) == 0
    assert capsys.readouterr().out == "3\n"


def test_a_wrong_folder_is_the_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert status.main([str(tmp_path)]) == 2
    assert "is no run folder (it has no config.json)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        status.main([str(tmp_path), "--mark"])


@pytest.mark.parametrize("seconds", [0, 59, 60, 3599, 3600, 90_000])
def test_durations_are_read_at_a_glance(seconds: int) -> None:
    said = {0: "0 s", 59: "59 s", 60: "1 min 00 s", 3599: "59 min 59 s", 3600: "1 h 00 min", 90_000: "1 d 1 h"}
    assert status.duration(seconds) == said[seconds]


def test_needs_neither_torch_nor_numpy(run: RunDir) -> None:
    begun(run, "search", "running")
    program = f"""
import sys
from subshot.launch import status
assert status.main([{str(run.root)!r}]) == 0
print(sorted({{"torch", "numpy", "tyro"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_runs_as_a_script(run: RunDir) -> None:
    command = [sys.executable, str(REPOSITORY / "launch/status.py"), str(run.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"run {run.root}: searching\n"


def test_the_verdict_is_of_this_start(run: RunDir) -> None:
    before = mark(run, "search")
    assert before == "0"
    assert verdict(run, "search", before)[0] == "failed"
    begun(run, "search", "preempted", "SIGUSR1", "warm-up 3")
    assert verdict(run, "search", before)[0] == "requeue"
    assert verdict(run, "search", mark(run, "search"))[0] == "failed", "it was not begun since that mark"


@pytest.mark.parametrize(("state", "word"), [("finished", "finished"), ("failed", "failed"), ("preempted", "requeue")])
def test_the_record_says_how_it_ended(run: RunDir, state: State, word: str) -> None:
    begun(run, "search", state, "a reason", "warm-up 3")
    assert settled_verdict(run, "search", "0", 0.0)[0] == word


def test_a_killed_job_goes_on_while_it_makes_headway(run: RunDir) -> None:
    for done, word in ((3, "requeue"), (5, "requeue"), (5, "stuck")):
        before = mark(run, "search")
        begun(run, "search", "running")
        Pulse(run, "search", 0, 1).beat("warm-up", done, 100)
        assert settled_verdict(run, "search", before, 0.0)[0] == word


def test_a_job_that_is_preempted_at_the_same_place_is_stuck_in_the_end(run: RunDir) -> None:
    words = []
    for _ in range(4):
        before = mark(run, "search")
        begun(run, "search", "preempted", "SIGTERM", "warm-up 3")
        words.append(verdict(run, "search", before)[0])
    record = read_job(run, "search")
    assert record is not None and record.is_stuck
    assert words[0] == "requeue" and words[-1] == "stuck"


def test_waits_for_a_record_that_is_seen_late(run: RunDir) -> None:
    """As on NFS: the end of the job, written by another node, appears after a while."""
    before = mark(run, "search")
    begun(run, "search", "running")
    late = f"""
import time
from pathlib import Path
from subshot.train.job_record import end_job, read_job
from subshot.train.run_dir import RunDir
time.sleep(0.7)
run = RunDir(Path({str(run.root)!r}))
end_job(run, read_job(run, "search"), "finished", "", "")
"""
    writer = subprocess.Popen([sys.executable, "-c", late])
    assert settled_verdict(run, "search", before, 30.0)[0] == "finished"
    assert writer.wait() == 0
