"""Runs on a real SLURM of two nodes: a search that is preempted, an array of six retrainings of which one is requeued
in its middle and one fails, and what `collect` says until all are done.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from subshot.train.job_record import read_heartbeats, read_job
from subshot.train.run_dir import RunDir, read_json

pytestmark = pytest.mark.slurm

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = [
    "digits",
    "--space.width=0.125",
    "--warmup.recipe.epochs=6",
    "--evolution.budget=40",
    "--evolution.population=10",
    "--evolution.sample=4",
    "--limits.max-macs=1.5e6",
    "--retrain.recipe.epochs=8",
]
FOR_SLURM = ["--slurm.nodes=2", "--slurm.cpus-per-task=1", "--slurm.controls=2", "--slurm.seeds=2"]
CLICKS = [
    "clicks",
    "--space.blocks=2",
    "--space.max-dense-dim=32",
    "--space.max-sparse-dim=16",
    "--warmup.fraction=0.02",
    "--score.population=8",
    "--evolution.budget=16",
    "--evolution.population=8",
    "--evolution.sample=4",
    "--evolution.children=4",
    "--retrain.top=1",
    "--retrain.controls=0",
    "--retrain.layer-norm",
    "--retrain.learning-rates=0.1",
    "--retrain.baselines=fm",
]
URGENT = ["sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=true"]
TO_FAIL, TO_REQUEUE = "random-1-seed1", 1


@dataclass(frozen=True)
class Submitted:
    """A run whose search was preempted and is finished, and whose array of retrainings is on its way."""

    run: RunDir
    search: str
    retrain: str
    folder: Path
    slurm: Any

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return call(self.folder, self.slurm, *arguments)


def call(folder: Path, slurm: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the commands, as a user gives it on a login node."""
    script, *rest = arguments
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "launch" / script), *rest],
        cwd=folder,
        env=slurm.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def wait_for(what: str, happens: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def is_at_work(run: RunDir, job: str, stage: str, restarts: int = 0, done: int = 1) -> bool:
    """Whether that start of the job has come to that stage, and has done some of its steps."""
    record = read_job(run, job)
    return (
        record is not None
        and record.restarts == restarts
        and any(
            beat.stage.startswith(stage) and beat.done >= done and beat.beat_unix > record.begun_unix
            for beat in read_heartbeats(run, job)
        )
    )


def begin_again_at_once(slurm: Any, job: str) -> None:
    """SLURM lets a requeued job wait two minutes; a test, only until slurmd takes it (job credential revoked)."""
    slurm.wait(job, ("PENDING",), 60)
    time.sleep(3)
    slurm.ask("scontrol", "update", f"jobid={job}", "starttime=now")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, slurm: Any) -> bytes:
    """The history of the same search in one process, without SLURM."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = call(folder, slurm, "search.py", *QUICK, "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    return RunDir(folder / "run").history_jsonl.read_bytes()


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory, slurm: Any) -> Submitted:
    folder = tmp_path_factory.mktemp("submitted") / "a folder of 100%"
    run = RunDir(folder / "runs" / "a run")
    run.winners.mkdir(parents=True)
    (run.winners / TO_FAIL).write_text("a file where a folder has to be")
    scores = ["--slurm.population=12", "--slurm.shares=2"]
    done = call(folder, slurm, "slurm.py", *QUICK, "--run-dir", "runs/a run", *FOR_SLURM, *scores)
    search, _, retrain = ids(done)
    return Submitted(run, search, retrain, folder, slurm)


def ids(done: subprocess.CompletedProcess[str]) -> list[str]:
    """SLURM's, in the order of submission."""
    assert done.returncode == 0, done.stderr
    return [line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("job ")]


def log_of(run: RunDir, name: str) -> str:
    return "\n".join(path.read_text() for path in sorted((run.slurm / "logs").glob(f"{name}-*.log")))


def test_a_second_submission_is_refused_while_jobs_are_queued(submitted: Submitted) -> None:
    done = submitted.call("slurm.py", *QUICK, "--run-dir", "runs/a run", *FOR_SLURM)
    assert done.returncode == 2 and "in the queue already" in done.stderr


def test_a_preempted_search_ends_with_the_history_of_an_undisturbed_one(
    submitted: Submitted, request: pytest.FixtureRequest
) -> None:
    """A job of more priority takes its nodes, first before it has begun, then in its middle; then it is told that its
    time will be over."""
    run, slurm, job = submitted.run, submitted.slurm, submitted.search
    slurm.wait(job, ("RUNNING",), 60)
    slurm.ask(*URGENT)
    begin_again_at_once(slurm, job)
    assert "search was preempted before it had begun" in log_of(run, "search")
    wait_for("the warm-up", lambda: is_at_work(run, "search", "warm-up"), 120)
    shown = submitted.call("status.py", "runs/a run")
    assert "search: running" in shown.stdout and "rank 1 on" in shown.stdout, shown.stdout
    slurm.ask(*URGENT)
    begin_again_at_once(slurm, job)
    require_stopped(run, "SIGTERM")
    wait_for("the warm-up again", lambda: is_at_work(run, "search", "warm-up", restarts=1), 120)
    slurm.ask("scancel", "--signal=USR1", job)
    begin_again_at_once(slurm, job)
    require_stopped(run, "SIGUSR1")
    assert slurm.wait(job, ("COMPLETED", "FAILED"), 120) == "COMPLETED", log_of(run, "search")
    record = read_job(run, "search")
    assert record is not None and record.state == "finished" and record.restarts == 2
    history: bytes = request.getfixturevalue("undisturbed")
    assert run.history_jsonl.read_bytes() == history
    assert hashlib.sha256(history).hexdigest() in log_of(run, "search")
    assert len(read_json(run.manifest_json)["elements"]) == 6


def require_stopped(run: RunDir, signal: str) -> None:
    record = read_job(run, "search")
    assert record is not None and record.state == "preempted" and record.message.startswith(signal)
    assert f"search was stopped ({signal}" in log_of(run, "search")


def test_an_array_with_a_requeued_and_a_failed_element_is_completed(submitted: Submitted) -> None:
    run, slurm, array = submitted.run, submitted.slurm, submitted.retrain
    requeued = f"{array}_{TO_REQUEUE}"
    wait_for("the element to be requeued", lambda: is_at_work(run, f"retrain-{TO_REQUEUE}", "retrain", done=0), 120)
    slurm.ask("scontrol", "requeue", requeued)
    begin_again_at_once(slurm, requeued)
    names = [row["name"] for row in read_json(run.manifest_json)["elements"]]
    failed = names.index(TO_FAIL)
    ends = [slurm.wait(f"{array}_{index}", ("COMPLETED", "FAILED"), 300) for index in range(6)]
    assert ends == ["FAILED" if index == failed else "COMPLETED" for index in range(6)], log_of(run, "retrain")
    record = read_job(run, f"retrain-{TO_REQUEUE}")
    assert record is not None and record.restarts == 1 and record.stops
    assert f"{names[TO_REQUEUE]}: continues after step" in log_of(run, "retrain")

    collected = submitted.call("slurm.py", "collect", "runs/a run")
    assert collected.returncode == 75, collected.stderr
    lines = collected.stdout.splitlines()
    assert lines[0] == "scores: 12 networks, 0 of them without a score"
    named = [line for line in lines if line.startswith(("failed:", "missing:"))]
    assert len(named) == 1 and named[0].startswith(f"failed: element {failed} ({TO_FAIL}): "), collected.stdout
    again = lines[-1]
    assert f"--array={failed}%8" in again

    (run.winners / TO_FAIL).unlink()
    words = shlex.split(again)
    number = slurm.ask(*words).split()[-1]
    assert slurm.wait(f"{number}_{failed}", ("COMPLETED", "FAILED"), 120) == "COMPLETED", log_of(run, "retrain")
    collected = submitted.call("slurm.py", "collect", "runs/a run")
    assert collected.returncode == 0, collected.stdout
    assert [line.split()[:4] for line in collected.stdout.splitlines()[-3:]] == [
        ["1", "2", "of", "2"],
        ["random-1", "2", "of", "2"],
        ["random-2", "2", "of", "2"],
    ]


def test_a_finished_array_is_left_as_it_is(submitted: Submitted) -> None:
    run, slurm = submitted.run, submitted.slurm
    before = {path: path.stat().st_mtime_ns for path in run.winners.rglob("*.safetensors")}
    number = slurm.ask("sbatch", "--parsable", "--array=0,7", str(run.slurm / "retrain.sbatch"))
    for element in (0, 7):
        assert slurm.wait(f"{number}_{element}", ("COMPLETED", "FAILED"), 120) == "COMPLETED", log_of(run, "retrain")
    assert "element 7: the manifest has only 6, so there is nothing to do" in log_of(run, "retrain")
    assert {path: path.stat().st_mtime_ns for path in run.winners.rglob("*.safetensors")} == before


def test_a_cancelled_search_stays_cancelled(tmp_path: Path, slurm: Any) -> None:
    run = RunDir(tmp_path / "run")
    search, retrain = ids(call(tmp_path, slurm, "slurm.py", *QUICK, "--run-dir", "run", *FOR_SLURM))
    wait_for("the warm-up", lambda: is_at_work(run, "search", "warm-up"), 120)
    slurm.ask("scancel", search)
    slurm.wait(search, ("CANCELLED",), 60)
    slurm.wait(f"{retrain}_0", ("CANCELLED",), 60)


def test_clicks_have_jobs_after_their_arrays(tmp_path: Path, slurm: Any) -> None:
    run = RunDir(tmp_path / "run")
    two_nodes = ["--slurm.nodes=2", "--slurm.cpus-per-task=1", "--slurm.seeds=2", "--slurm.correlate=8"]
    submitted = ids(call(tmp_path, slurm, "slurm.py", *CLICKS, "--run-dir", "run", *two_nodes))
    _, retrain, rest, _, judging = submitted
    assert slurm.wait(rest, ("COMPLETED", "FAILED", "CANCELLED"), 600) == "COMPLETED", log_of(run, "retrain")
    assert [slurm.state(f"{retrain}_{index}") for index in range(3)] == ["COMPLETED"] * 3
    assert slurm.wait(judging, ("COMPLETED", "FAILED", "CANCELLED"), 600) == "COMPLETED", log_of(run, "correlate")
    assert read_json(run.ranking_json)["networks"] == 8
    collected = call(tmp_path, slurm, "slurm.py", "collect", "run")
    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert "whether it ranks: " in collected.stdout
    assert [line.split()[:2] for line in collected.stdout.splitlines()[-3:]] == [
        ["rank-1", "2"],
        ["random-rank-1", "2"],
        ["fm", "2"],
    ]
    assert run.winner("1").metrics_json.is_file()
