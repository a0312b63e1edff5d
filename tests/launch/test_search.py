"""The search command, from its command line to its history, on real JPEGs through DALI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from subshot.launch import search
from subshot.launch.config import VisionConfig, differences, from_json, to_json
from subshot.launch.presets import PRESETS
from subshot.train.checkpoint import checkpoint_paths
from subshot.train.run_dir import RunDir, read_json, read_jsonl

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = [
    "digits",
    "--space.width=0.125",
    "--warmup.recipe.epochs=3",
    "--evolution.budget=40",
    "--evolution.population=10",
    "--evolution.sample=4",
    "--limits.max-macs=1.5e6",
]


def command(processes: int, arguments: list[str]) -> list[str]:
    script = str(REPOSITORY / "launch" / "search.py")
    if processes == 1:
        return [sys.executable, script, *arguments]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, script, *arguments]


def run_search(folder: Path, name: str, processes: int = 1, extra: list[str] | None = None) -> RunDir:
    arguments = [*QUICK, f"--run-dir={folder / name}", *(extra or [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(processes, arguments), cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return RunDir(folder / name)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def alone(work: Path) -> RunDir:
    """A finished run of one process."""
    return run_search(work, "alone")


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_bytes(work: Path, alone: RunDir, processes: int) -> None:
    other = run_search(work, f"by-{processes}", processes)
    assert other.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()
    assert other.supernet.read_bytes() == alone.supernet.read_bytes()
    assert other.paths_jsonl.read_bytes() == alone.paths_jsonl.read_bytes()


def test_the_report_of_a_finished_search_speaks_of_no_job_at_work(alone: RunDir) -> None:
    assert "The job" not in alone.report_html.read_text()
    assert read_json(alone.job_json("search"))["state"] == "finished"
    assert f"report: {alone.report_html}" in alone.log.read_text().splitlines()[-1]


def test_history_holds_every_candidate_once_within_the_limit(alone: RunDir) -> None:
    rows = read_jsonl(alone.history_jsonl)
    for method in ("evolution", "random"):
        genotypes = [tuple(row["genotype"]) for row in rows if row["method"] == method]
        assert len(genotypes) == len(set(genotypes)) == 40
    assert max(row["costs"]["macs"] for row in rows) <= 1.5e6


def test_optimum_bounds_both_searches(alone: RunDir) -> None:
    found = read_json(alone.summary_json)
    best = max(row["score"] for row in read_jsonl(alone.history_jsonl))
    assert found["optimum"]["score"] >= best - 1e-9
    assert found["evolution_regret"] >= -1e-12
    assert len(found["controls"]) == 3


def test_a_killed_search_goes_on_to_the_same_history(work: Path, alone: RunDir) -> None:
    run = RunDir(work / "killed")
    arguments = [*QUICK, f"--run-dir={run.root}"]
    process = subprocess.Popen(command(1, arguments), cwd=work, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not checkpoint_paths(run.checkpoints, "warmup") and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint_paths(run.checkpoints, "warmup")
    run_search(work, "killed", extra=["--resume"])
    assert run.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()
    assert run.supernet.read_bytes() == alone.supernet.read_bytes()


def test_resuming_mid_search_gives_the_same_history(work: Path, alone: RunDir) -> None:
    """The files as they lie after a stop in the middle of the random control, with a torn line."""
    text = alone.history_jsonl.read_text()
    state = read_json(alone.state_json)
    copy = RunDir(work / "copied")
    copy.root.mkdir()
    for path in (
        alone.config_json,
        alone.data_json,
        alone.paths_jsonl,
        alone.supernet,
        alone.indicators_json,
        alone.spectrum_json,
    ):
        (copy.root / path.name).write_bytes(path.read_bytes())
    (copy.root / "history.jsonl").write_text(text[: len(text) * 3 // 4])
    (copy.root / "state.json").write_text(json.dumps({"evolution": state["evolution"]}))
    run_search(work, "copied", extra=["--resume"])
    assert copy.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()


def status_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["launch/search.py", *arguments])
    try:
        return search.main()
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digit"], "there is no preset 'digit'"),
        (["mobilenetv2-imagenette"], "add --data PATH"),
        (["mobilenetv2-imagenette", "--data", "no/such/folder"], "the data folder no/such/folder does not exist"),
        (["digits", "--limits.max-macs", "1000"], "the minimum that the space reaches is"),
        (["digits", "--warmup.recipe.epochs", "-1"], "epochs is -1"),
        (["digits", "--space.width", "wide"], "wide"),
        (["digits", "--images.num-shards", "5"], "must be a multiple of num_shards"),
        (["digits", "--warmup.recipe.epochs", "1"], "has to tell 19 effects apart by the losses of 14 settled steps"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(
    arguments: list[str],
    sentence: str,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(work)
    assert status_of([*arguments, *(["--run-dir=mistake"] if len(arguments) > 1 else [])], monkeypatch) == 2
    assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (work / "mistake" / "history.jsonl").exists()


def test_a_run_is_never_overwritten(
    alone: RunDir, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    before = alone.history_jsonl.read_bytes()
    assert status_of([*QUICK, f"--run-dir={alone.root}"], monkeypatch) == 2
    assert "add --resume" in capsys.readouterr().err
    assert status_of([*QUICK, f"--run-dir={alone.root}", "--resume", "--seed=4"], monkeypatch) == 2
    assert "seed: 0 in the run, 4 now" in capsys.readouterr().err
    assert alone.history_jsonl.read_bytes() == before


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    preset = PRESETS[name]()
    assert preset.preset == name
    assert from_json(type(preset), json.loads(json.dumps(to_json(preset)))) == preset


def test_json_of_another_version_is_refused_by_field() -> None:
    record = to_json(PRESETS["digits"]())
    record["space"]["depth"] = 3
    with pytest.raises(ValueError, match=r"config\.space.*depth"):
        from_json(VisionConfig, record)
    record = to_json(PRESETS["digits"]())
    record["seed"] = "zero"
    with pytest.raises(ValueError, match=r"config\.seed is 'zero'; it must be of type int"):
        from_json(VisionConfig, record)


def test_differences_name_the_fields() -> None:
    first, second = to_json(PRESETS["digits"]()), to_json(PRESETS["digits"]())
    second["images"]["batch_size"] = 1
    assert differences(first, first) == []
    assert differences(first, second) == [f"images.batch_size: {first['images']['batch_size']} in the run, 1 now"]
