"""The search command, from its command line to its history, on real JPEGs through DALI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subshot.launch import search
from subshot.launch.config import VisionConfig, differences, from_json, to_json
from subshot.launch.presets import PRESETS
from subshot.train.run_dir import RunDir, read_json, read_jsonl

QUICK = [
    "digits",
    "--space.width=0.125",
    "--warmup.recipe.epochs=3",
    "--evolution.budget=40",
    "--evolution.population=10",
    "--evolution.sample=4",
    "--limits.max-macs=1.5e6",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def run_search(work: Path, launched: Callable[..., Any]) -> Callable[..., RunDir]:
    """run_search(name, *words, processes=1): a finished run in processes of its own."""

    def run(name: str, *words: str, processes: int = 1) -> RunDir:
        done = launched("search", *QUICK, f"--run-dir={work / name}", *words, folder=work, processes=processes)
        assert done.returncode == 0, done.stderr
        return RunDir(work / name)

    return run


@pytest.fixture(scope="module")
def alone(run_search: Callable[..., RunDir]) -> RunDir:
    """A finished run of one process."""
    return run_search("alone")


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_bytes(
    run_search: Callable[..., RunDir], alone: RunDir, processes: int
) -> None:
    other = run_search(f"by-{processes}", processes=processes)
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


def test_a_killed_search_goes_on_to_the_same_history(
    work: Path, run_search: Callable[..., RunDir], alone: RunDir, killed_in_warm_up: Callable[..., None]
) -> None:
    run = RunDir(work / "killed")
    killed_in_warm_up(run, *QUICK)
    run_search("killed", "--resume")
    assert run.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()
    assert run.supernet.read_bytes() == alone.supernet.read_bytes()


def test_resuming_mid_search_gives_the_same_history(
    work: Path, run_search: Callable[..., RunDir], alone: RunDir
) -> None:
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
    run_search("copied", "--resume")
    assert copy.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()


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
    mistake_of: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(work)
    assert sentence in mistake_of(search, *arguments, *(["--run-dir=mistake"] if len(arguments) > 1 else []))
    assert not (work / "mistake" / "history.jsonl").exists()


def test_a_run_is_never_overwritten(
    alone: RunDir, work: Path, mistake_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    before = alone.history_jsonl.read_bytes()
    assert "add --resume" in mistake_of(search, *QUICK, f"--run-dir={alone.root}")
    resumed = mistake_of(search, *QUICK, f"--run-dir={alone.root}", "--resume", "--seed=4")
    assert "seed: 0 in the run, 4 now" in resumed
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
