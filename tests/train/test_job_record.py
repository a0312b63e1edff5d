"""What jobs say of themselves, read back as another machine would, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from subshot.train import job_record
from subshot.train.job_record import (
    Pulse,
    begin_job,
    end_job,
    read_heartbeats,
    read_job,
    read_jobs,
    slurm_job,
)
from subshot.train.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_a_job_runs_stops_and_runs_again(run: RunDir) -> None:
    assert read_job(run, "search") is None
    record = begin_job(run, "search", ["python", "launch/search.py", "digits"], 2)
    assert read_job(run, "search") == record and record.state == "running" and record.restarts == 0
    end_job(run, record, "preempted", "SIGTERM, after step 3", "warm-up 3")
    again = begin_job(run, "search", record.command, 3)
    assert (again.restarts, again.stops, again.processes) == (1, ("warm-up 3",), 3)
    end_job(run, again, "finished", "", "random 20")
    ended = read_job(run, "search")
    assert ended is not None and (ended.state, ended.stops) == ("finished", ("warm-up 3",))


def test_stuck_is_three_stops_at_one_place(run: RunDir) -> None:
    for place, stuck in (("warm-up 3", False), ("warm-up 3", False), ("warm-up 3", True), ("warm-up 4", False)):
        end_job(run, begin_job(run, "search", [], 1), "preempted", "", place)
        record = read_job(run, "search")
        assert record is not None and record.is_stuck is stuck


def test_elements_are_listed_by_number(run: RunDir) -> None:
    for name in ("retrain-10", "search", "retrain-9", "retrain"):
        begin_job(run, name, [], 1)
    assert [job.job for job in read_jobs(run)] == ["retrain", "retrain-9", "retrain-10", "search"]


def test_heartbeats_tell_rate_and_time_left(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(job_record.time, "time", lambda: now)
    pulses = [Pulse(run, "search", rank, 2) for rank in range(2)]
    for done in range(51):
        for pulse in pulses:
            pulse.beat("warm-up", done, 100)
        now += 0.5
    first, second = read_heartbeats(run, "search")
    assert (first.rank, second.rank) == (0, 1)
    assert first.stage == "warm-up" and 46 <= first.done <= 50, "it is written every two seconds"
    assert first.rate_per_second == pytest.approx(2.0)
    assert first.seconds_left == pytest.approx((100 - first.done) / 2.0)
    assert pulses[0].progress == "warm-up 50"
    pulses[0].beat("evolution", 0, 10)
    assert read_heartbeats(run, "search")[0].stage == "evolution"
    pulses[1].fail("DataError: a bad image")
    assert read_heartbeats(run, "search")[1].failure == "DataError: a bad image"


def test_processes_of_an_earlier_larger_start_are_left_out(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(job_record.time, "time", lambda: now)
    for rank in range(3):
        Pulse(run, "search", rank, 3).beat("warm-up", 1, 9)
    now += 60
    Pulse(run, "search", 0, 1).beat("warm-up", 5, 9)
    assert [beat.done for beat in read_heartbeats(run, "search")] == [5]


def test_a_damaged_record_is_named(run: RunDir) -> None:
    begin_job(run, "search", [], 1)
    run.job_json("search").write_text(json.dumps({"job": "search"}))
    with pytest.raises(ValueError, match=r"search\.json is not a JobRecord .* delete it"):
        read_job(run, "search")


def test_slurm_names_jobs_and_elements() -> None:
    assert slurm_job({}) == ""
    assert slurm_job({"SLURM_JOB_ID": "7"}) == "7"
    assert slurm_job({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}) == "7_2"


def test_reading_needs_no_torch() -> None:
    code = "import sys, subshot.train.job_record; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
