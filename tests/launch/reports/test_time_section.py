"""Where the hours went, from logs that are written here line by line, and what a price makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from subshot.launch.report import write_report
from subshot.launch.reports.record import Record, commands_of, read_record
from subshot.launch.reports.time_section import rates, stretches, time_section
from subshot.train.run_dir import RunDir, write_json


def device_hours(record: Record) -> float:
    return sum(stretch.device_seconds for stretch in stretches(record)) / 3600


SEARCH = """\
[    0.0 s] digits: 4 process(es) on cpu; run folder runs/digits
[    1.0 s] images: 1082 to train on
[   11.0 s] warm-up: 2 epochs of 8 steps
[  100.0 s] epoch 1: loss 2.5
"""
RESUMED = """\
[    0.5 s] digits: 2 process(es) on cpu; run folder runs/digits
[    1.0 s] images: 1082 to train on
[   61.0 s] epoch 2: loss 2.4
[   62.0 s] score: path loss
[   70.0 s] evolution: best score 1; the budget of 40 candidates is spent; 12.5 candidates scored a second
[   80.0 s] random: best score 0.5; the budget of 40 candidates is spent; 1.82e+03 candidates scored a second
"""
RETRAIN = """\
[   17.9 s] 1: test accuracy 0.9521 [0.9247, 0.9699] on 355 images
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.log.parent.mkdir(parents=True)
    run.log.write_text(SEARCH + RESUMED + RETRAIN)
    write_json(run.environment_json, {"processes": 2, "device": "cpu", "threads_per_process": 1})
    write_json(run.job_json("retrain"), {"job": "retrain", "state": "finished", "processes": 3})
    return run


def test_commands_are_told_apart_by_their_stamps() -> None:
    lines = (SEARCH + "Traceback: not stamped\n" + RESUMED + RETRAIN).splitlines()
    assert [len(command) for command in commands_of(lines)] == [5, 6, 1]
    assert commands_of([]) == []


def test_device_time_counts_the_processes_of_each_command(run: RunDir) -> None:
    found = {stretch.stage: stretch for stretch in stretches(read_record(run))}
    assert found["warm-up"].seconds == pytest.approx(89.0 + 60.0)
    assert found["warm-up"].device_seconds == pytest.approx(4 * 89.0 + 2 * 60.0)
    assert found["evolution"].device_seconds == pytest.approx(2 * 8.0)
    assert found["retraining and export"].device_seconds == pytest.approx(3 * 17.9)
    total = 4 * 100.0 + 2 * 80.0 + 3 * 17.9
    assert device_hours(read_record(run)) == pytest.approx(total / 3600)


def test_elements_of_arrays_count_with_their_own_logs(run: RunDir) -> None:
    before = device_hours(read_record(run))
    run.log.with_name("retrain-4.txt").write_text("[  100.0 s] 1: test accuracy 0.95 [0.9, 1.0] on 355 images\n")
    write_json(run.job_json("retrain-4"), {"job": "retrain-4", "state": "finished", "processes": 8})
    assert device_hours(read_record(run)) - before == pytest.approx(800 / 3600)


def test_trainings_that_judge_the_score_count(run: RunDir) -> None:
    before = device_hours(read_record(run))
    run.correlation.log.parent.mkdir(parents=True)
    run.correlation.log.write_text("[   10.0 s] a: trained already\n[   30.0 s] report: r\n[    5.0 s] report: r\n")
    run.correlation.log.with_name("correlate-3.txt").write_text("[  100.0 s] 1: test accuracy 0.95 on 355 images\n")
    write_json(run.job_json("correlate"), {"job": "correlate", "state": "finished", "processes": 2})
    write_json(run.job_json("correlate-3"), {"job": "correlate-3", "state": "finished", "processes": 8})
    record = read_record(run)
    (found,) = (s for s in stretches(record) if s.stage == "trainings that judge the score")
    assert found.seconds == pytest.approx(135.0) and found.device_seconds == pytest.approx(2 * 35.0 + 800.0)
    assert device_hours(record) - before == pytest.approx(870 / 3600)
    assert "<td>trainings that judge the score</td>" in time_section(record)


def test_candidates_a_second_are_those_of_the_log(run: RunDir) -> None:
    assert rates(read_record(run)) == {"evolution": 12.5, "random": 1820.0}
    html = time_section(read_record(run))
    assert "<b>12.5</b><span>candidates a second, evolution</span>" in html and "<b>1,820</b>" in html


def test_money_is_stated_at_a_price_and_never_without(run: RunDir) -> None:
    html = time_section(read_record(run))
    assert "no money is stated" in html and "money, at" not in html
    hours = device_hours(read_record(run))
    priced = time_section(read_record(run, 36.0))
    assert f"<b>{36.0 * hours:.3g}</b><span>money, at 36 for an hour of a device</span>" in priced
    assert "no money is stated" not in priced
    assert "money, at 36" in write_report(run, 36.0).read_text()


def test_jobs_that_are_not_over_say_how_far_they_are(run: RunDir) -> None:
    write_json(run.job_json("search"), {"job": "search", "state": "preempted", "processes": 2, "restarts": 1})
    beat = {"job": "search", "rank": 0, "stage": "warm-up", "done": 3, "total": 9, "beat_unix": 5.0}
    write_json(run.heartbeat_json("search", 0), beat)
    run.job_json("torn").write_text('{"job": "to')
    html = time_section(read_record(run))
    assert "The job search: preempted, begun 2 times; last heard of at warm-up 3 of 9." in html
    assert "retrain:" not in html


def test_a_gpu_is_named(run: RunDir) -> None:
    record = read_record(run)
    html = time_section(replace(record, environment={"device": "cuda:0", "device_name": "NVIDIA H100"}))
    assert "a process has one GPU (NVIDIA H100)" in html


def test_without_a_log_nothing_is_told(tmp_path: Path) -> None:
    assert "does not tell yet" in time_section(read_record(RunDir(tmp_path)))
