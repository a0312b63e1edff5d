"""Searches that are stopped, killed, starved of disk or data, or lose a process: each says one sentence, loses nothing,
and goes on to the bytes of an undisturbed run.

Commands run in this process where they can, without the seconds that a new one takes to import everything; what must be
killed runs in its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subshot.launch import retrain, search
from subshot.train.checkpoint import checkpoint_paths
from subshot.train.claim import claimed
from subshot.train.job_record import read_heartbeats, read_job
from subshot.train.run_dir import RunDir, read_json, read_jsonl

REPOSITORY = Path(__file__).resolve().parents[2]
Search = Callable[..., int]
Once = Callable[..., Any]  # of tests/conftest.py
WaitFor = Callable[..., None]
QUICK = [
    "digits",
    "--data=images",
    "--space.width=0.125",
    "--images.batch-size=32",
    "--images.search-fraction=0.2",
    "--warmup.recipe.epochs=5",
    "--score.kind=one_shot",
    "--score.calibration-images=64",
    "--evolution.budget=20",
    "--evolution.population=10",
    "--evolution.sample=4",
    "--limits.max-macs=1.5e6",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, few_digits: Callable[..., Path]) -> Path:
    """A folder with images/: some of the handwritten digits."""
    folder = tmp_path_factory.mktemp("stops")
    few_digits(folder / "images")
    return folder


@pytest.fixture(scope="module")
def search_here(work: Path, status_of: Callable[..., int]) -> Search:
    """search_here(run, *words): the exit status of a search in this process."""

    def begin(run: RunDir, *words: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(work)
            return status_of(search, *QUICK, f"--run-dir={run.root}", *words)

    return begin


@pytest.fixture
def start_ranks(work: Path, started: Callable[..., Any]) -> Callable[..., Any]:
    """start_ranks(run, ranks, *words): a search's processes."""
    return lambda run, ranks, *words: started(
        "search", *QUICK, f"--run-dir={run.root}", *words, folder=work, ranks=ranks
    )


@pytest.fixture(scope="module")
def alone(work: Path, search_here: Search) -> RunDir:
    """An undisturbed run of one process."""
    run = RunDir(work / "alone")
    assert search_here(run) == 0
    return run


def same(run: RunDir, alone: RunDir) -> bool:
    """Whether a run came to the bytes of the undisturbed one."""
    names = ("history.jsonl", "supernet.safetensors", "paths.jsonl")
    best = read_json(run.summary_json)["best"]
    return best == read_json(alone.summary_json)["best"] and all(
        (run.root / name).read_bytes() == (alone.root / name).read_bytes() for name in names
    )


def warming(run: RunDir) -> bool:
    return bool(checkpoint_paths(run.checkpoints, "warmup"))


def scoring(run: RunDir) -> bool:
    return any(len(path.read_bytes().splitlines()) > 3 for path in run.all_scores("search"))


def controlling(run: RunDir) -> bool:
    return '"method":"random"' in (run.history_jsonl.read_text() if run.history_jsonl.is_file() else "")


@pytest.mark.parametrize(
    ("number", "stage"), [(signal.SIGTERM, warming), (signal.SIGUSR1, scoring), (signal.SIGINT, controlling)]
)
def test_a_signal_saves_and_the_run_goes_on(
    number: signal.Signals,
    stage: Callable[[RunDir], bool],
    work: Path,
    alone: RunDir,
    search_here: Search,
    once: Once,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = RunDir(work / number.name)
    sender = once(lambda: stage(run), lambda: os.kill(os.getpid(), number))
    assert search_here(run) == 75
    sender.join()
    said = capfd.readouterr().err
    assert f"{number.name}: stopping after the present step" in said
    assert said.splitlines()[-1].startswith(f"stopped: {number.name}, ")
    assert f"go on with: python launch/search.py {' '.join(QUICK)} --run-dir={run.root} --resume" in said
    record = read_job(run, "search")
    assert record is not None and record.state == "preempted" and len(record.stops) == 1
    assert not run.summary_json.exists() and not run.claim_json("search").exists()
    known = {path: path.read_bytes() for path in run.all_scores("search")}
    assert search_here(run, "--resume") == 0
    assert same(run, alone)
    for path, before in known.items():
        assert path.read_bytes().startswith(before), "no score that was given is given again"
    rows = [tuple(row["genotype"]) for path in run.all_scores("search") for row in read_jsonl(path)]
    assert len(rows) == len(set(rows))
    record = read_job(run, "search")
    assert record is not None and record.state == "finished" and record.restarts == 1


def test_a_signal_to_one_process_stops_all_and_three_go_on(
    work: Path, alone: RunDir, start_ranks: Callable[..., Any], wait_for: WaitFor
) -> None:
    """The flag is agreed on at a step boundary; the resumed search has another number of processes."""
    run = RunDir(work / "one-of-two")
    processes = start_ranks(run, 2)
    wait_for(lambda: scoring(run), processes)
    processes[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [75, 75]
    assert "stopped: SIGTERM, " in said[0] and "stopped" not in said[1]
    record = read_job(run, "search")
    assert record is not None and record.state == "preempted"
    for process in (more := start_ranks(run, 3, "--resume")):
        assert process.communicate(timeout=200)[1] is not None
    assert [process.returncode for process in more] == [0, 0, 0]
    assert same(run, alone)


def test_a_process_that_dies_is_named_and_nothing_is_lost(
    work: Path, alone: RunDir, search_here: Search, start_ranks: Callable[..., Any], wait_for: WaitFor
) -> None:
    run = RunDir(work / "dead")
    processes = start_ranks(run, 2)
    wait_for(lambda: warming(run), processes)
    processes[1].kill()
    said = processes[0].communicate(timeout=100)[1]
    processes[1].communicate()
    assert processes[0].returncode == 75
    assert f"error: process 1 on {socket.gethostname()} is gone" in said.splitlines()[-1]
    assert "go on with: " in said.splitlines()[-1]
    assert "Traceback" not in said
    assert search_here(run, "--resume") == 0
    assert same(run, alone)


def test_the_others_speak_where_the_main_process_dies(
    work: Path, start_ranks: Callable[..., Any], wait_for: WaitFor
) -> None:
    run = RunDir(work / "headless")
    processes = start_ranks(run, 2)
    wait_for(lambda: warming(run), processes)
    processes[0].kill()
    said = processes[1].communicate(timeout=100)[1]
    processes[0].communicate()
    assert processes[1].returncode == 75
    assert f"error: process 0 on {socket.gethostname()} is gone" in said


@pytest.mark.parametrize("hanging", [0, 1])
def test_a_process_that_hangs_is_waited_for_only_so_long(
    work: Path, start_ranks: Callable[..., Any], wait_for: WaitFor, hanging: int
) -> None:
    run = RunDir(work / f"hung-{hanging}")
    processes = start_ranks(run, 2, "--timeout-minutes=0.05")
    wait_for(lambda: warming(run), processes)
    processes[hanging].send_signal(signal.SIGSTOP)
    other = processes[1 - hanging]
    said = other.communicate(timeout=100)[1]
    processes[hanging].kill()
    processes[hanging].communicate()
    assert other.returncode == 75
    assert f"error: process {hanging} on " in said and "gave its last sign" in said and "at warm-up" in said
    record = read_job(run, "search")
    assert record is not None and record.state == ("preempted" if hanging == 1 else "running")
    assert [beat.rank for beat in read_heartbeats(run, "search")] == [0, 1]


def test_kills_at_random_instants_end_in_the_same_bytes(tmp_path: Path, launched: Callable[..., Any]) -> None:
    """benchmarks/chaos.py, in small: SIGKILL to one, two or three processes wherever they are, twice."""
    chaos = REPOSITORY / "benchmarks/chaos.py"
    done = launched(chaos, "--kills=2", "--stages=images", f"--folder={tmp_path}", timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": killed ") == 2
    assert "0 differ" in done.stdout


def test_torn_and_damaged_files_are_mended(
    work: Path, alone: RunDir, search_here: Search, once: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a crash of the machine may leave them: a torn line, a damaged checkpoint, a damaged state, a line of zeros."""
    run = RunDir(work / "damaged")
    sender = once(lambda: controlling(run), lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert search_here(run) == 75
    sender.join()
    run.supernet.unlink()
    latest = checkpoint_paths(run.checkpoints, "warmup")[0]
    latest.write_bytes(latest.read_bytes()[:-100])
    run.state_json.write_text("{")
    history = run.history_jsonl.read_bytes().splitlines(keepends=True)
    run.history_jsonl.write_bytes(b"".join([*history[:13], b"\0" * 40 + b"\n", *history[14:]]))
    for path in (run.metrics_jsonl, run.paths_jsonl, *run.all_scores("search")):
        path.write_bytes(path.read_bytes() + b'{"torn":')
    capsys.readouterr()
    assert search_here(run, "--resume") == 0
    said = capsys.readouterr().err
    assert f"{latest} is damaged" in said and "warm-up continues after step 20" in said
    assert f"{run.state_json} is not JSON" in said
    assert f"{run.history_jsonl}, line 14" in said
    assert same(run, alone)
    for path in run.root.rglob("*.jsonl"):
        assert read_jsonl(path), "every line is JSON again"


def test_a_second_search_of_a_folder_refuses(
    alone: RunDir, search_here: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in alone.root.rglob("*") if path.is_file()}
    with claimed(alone.claim_json("search"), "the first"):
        assert search_here(alone, "--resume") == 2
    said = capsys.readouterr().err
    assert f"error: a search in {alone.root} is at work already: process {os.getpid()} on " in said
    assert {path: path.read_bytes() for path in alone.root.rglob("*") if path.is_file()} == before


def test_what_differs_is_listed_and_may_be_named(
    work: Path, alone: RunDir, search_here: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(work / "changed")
    run.root.mkdir()
    for path in (alone.config_json, alone.data_json, alone.paths_jsonl, alone.supernet, alone.spectrum_json):
        (run.root / path.name).write_bytes(path.read_bytes())
    config = read_json(run.config_json)
    run.config_json.write_text(json.dumps(config | {"schema_version": 1}))
    data = read_json(run.data_json)
    run.data_json.write_text(json.dumps(data | {"classes": 9}))
    changed = ["--resume", "--evolution.budget=22"]
    assert search_here(run, *changed) == 2
    said = capsys.readouterr().err
    names = ["evolution.budget", "schema_version", "data.classes"]
    for part in ("evolution.budget: 20 in the run, 22 now", "schema_version: 1 in the run, 2 now", "--accept "):
        assert part in said
    assert "data.classes: 9 in the run, 10 now" in said
    assert search_here(run, *changed, "--accept", *names[:2]) == 2
    said = capsys.readouterr().err
    assert "data.classes" in said and "evolution.budget" not in said
    assert search_here(run, *changed, "--accept", *names) == 0
    assert "accepted change: evolution.budget: 20 in the run, 22 now" in run.log.read_text()
    assert search_here(run, *changed) == 0, "once accepted, these are the run's settings"


def test_a_full_disk_is_told_and_more_room_is_enough(
    alone: RunDir, small_disk: Path, search_here: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(small_disk / "run")
    (small_disk / "in-the-way").write_bytes(b"x" * 3_100_000)
    assert search_here(run) == 2
    said = capsys.readouterr().err
    assert "error: the disk is full: " in said and str(small_disk) in said and "go on with: " in said
    (small_disk / "in-the-way").unlink()
    assert search_here(run, "--resume") == 0
    assert same(run, alone)


def test_a_folder_that_turns_read_only_is_told(
    work: Path, alone: RunDir, search_here: Search, once: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(work / "read-only")
    frozen: list[int] = []

    def freeze() -> None:
        frozen.append(subprocess.run(["chattr", "+i", run.checkpoints], capture_output=True, check=False).returncode)

    watcher = once(lambda: warming(run), freeze)
    status = search_here(run)
    watcher.join()
    subprocess.run(["chattr", "-i", run.checkpoints], capture_output=True, check=False)
    if frozen != [0]:
        pytest.skip("this file system knows no immutable folders")
    assert status == 2
    said = capsys.readouterr().err
    assert f"error: {run.checkpoints}" in said and "change its permissions, and go on with: " in said
    assert search_here(run, "--resume") == 0
    assert same(run, alone)


def test_a_data_file_that_vanishes_is_named(
    work: Path, alone: RunDir, search_here: Search, once: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    run, away = RunDir(work / "vanished"), work / "away"
    part = sorted((work / "images/train").iterdir())[3]
    mover = once(lambda: warming(run), lambda: part.rename(away))
    assert search_here(run) == 2
    mover.join()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and f"/{part.name}/" in said and "put it back or correct its path, and " in said
    away.rename(part)
    assert search_here(run, "--resume") == 0
    assert same(run, alone)


def test_a_retraining_goes_on_after_a_signal(
    work: Path, alone: RunDir, status_of: Callable[..., int], once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of a frozen manifest, stopped in its middle, comes to the weights of an undisturbed one."""
    monkeypatch.chdir(work)

    def retrain_here(run: RunDir, *extra: str) -> int:
        options = ["--controls=0", "--epochs=2", "--checkpoint-minutes=0.0001", *extra]
        return status_of(retrain, run.root, *options)

    other = RunDir(work / "retrained")
    subprocess.run(["cp", "-r", alone.root, other.root], check=True)
    for run in (alone, other):
        assert retrain_here(run, "--seeds=2", "--freeze") == 0
    elements = read_json(alone.manifest_json)["elements"]
    assert [element["name"] for element in elements] == ["1", "1-seed1"]
    assert retrain_here(alone, "--index=1") == 0
    left = lambda: checkpoint_paths(other.checkpoints, "retrain-1-seed1")  # noqa: E731
    sender = once(lambda: bool(left()), lambda: os.kill(os.getpid(), signal.SIGUSR1))
    assert retrain_here(other, "--index=1") == 75
    sender.join()
    record = read_job(other, "retrain-1")
    assert record is not None and record.state == "preempted" and "of 1-seed1" in record.message
    assert retrain_here(other, "--index=1") == 0
    for name in ("model.safetensors", "metrics.json"):
        assert (other.winner("1-seed1").root / name).read_bytes() == (alone.winner("1-seed1").root / name).read_bytes()
    assert not left()
    assert retrain_here(other, "--index=1") == 0, "a finished element has nothing to do"
    before = other.job_json("retrain-1").read_bytes()
    with claimed(other.claim_json("retrain-1"), "the first"):
        assert retrain_here(other, "--index=1") == 2, "a second job of the same element"
    assert other.job_json("retrain-1").read_bytes() == before
    assert retrain_here(other, "--index=2") == 2
    assert retrain_here(other, "--index=0", "--epochs=5") == 2
