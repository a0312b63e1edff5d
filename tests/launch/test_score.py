"""Scores of a large population in shares, on a small run of each domain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from subshot.data.digits import write_digits
from subshot.launch import score, search
from subshot.launch.domain import open_domain, read_config
from subshot.launch.run_log import RunLog
from subshot.launch.scoring import alone
from subshot.train.dist import World
from subshot.train.job_record import read_job
from subshot.train.run_dir import RunDir, read_json, read_jsonl

SMALL = ["--evolution.budget=6", "--evolution.population=4", "--evolution.sample=2", "--evolution.children=2"]
RUNS = {
    "vision": [
        "digits",
        "--data=digits",
        "--space.width=0.125",
        "--warmup.recipe.epochs=1",
        "--score.kind=one_shot",
        "--score.calibration-images=64",
        "--limits.max-macs=1.5e6",
    ],
    "clicks": [
        "nasrec-full-criteo",
        "--data=prepared",
        "--space.blocks=3",
        "--space.max-dense-dim=64",
        "--space.max-sparse-dim=32",
        "--warmup.fraction=0.2",
        "--warmup.recipe.learning-rate=0.05",
        "--batches.batch-size=64",
        "--score.population=6",
        "--retrain.layer-norm",
    ],
    "training_free": [
        "nasbench201-cifar10",
        "--data=digits",
        "--space.input-size=8",
        "--limits.max-macs=8e6",
        "--score.population=6",
        "--score.batch-size=4",
    ],
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, prepared_clicks: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("score")
    write_digits(folder / "digits")
    prepared_clicks(folder / "prepared")
    return folder


@pytest.fixture(scope="module")
def runs(work: Path, status_of: Callable[..., int]) -> Callable[[str], RunDir]:
    """A finished search of a domain, made when it is first asked for."""
    made: dict[str, RunDir] = {}

    def run_of(name: str) -> RunDir:
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(work)
                assert status_of(search, *RUNS[name], *SMALL, f"--run-dir={work / name}") == 0
            made[name] = RunDir(work / name)
        return made[name]

    return run_of


@pytest.fixture(autouse=True)
def _inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data folders are given relative to this one."""
    monkeypatch.chdir(work)


def bytes_of(run: RunDir) -> dict[Path, bytes]:
    """Everything but scores, what a job says of itself, and what it logs."""
    own = {"scores", "jobs", "heartbeats", "claims"}
    found = {path.relative_to(run.root): path for path in run.root.rglob("*") if path.is_file()}
    kept = {short for short in found if short.parts[0] not in own and not short.stem.startswith("score-")}
    return {short: found[short].read_bytes() for short in kept}


@pytest.mark.parametrize("name", list(RUNS))
def test_shares_make_up_the_population_and_touch_nothing_else(
    name: str, runs: Callable[[str], RunDir], status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs(name)
    before, journal = bytes_of(run), [path.read_bytes() for path in run.all_scores("search")]
    capsys.readouterr()
    for index in (1, 0):
        assert status_of(score, str(run.root), "--population=7", "--of=2", f"--index={index}") == 0
        path = run.scores_jsonl(f"score-{index}", 0)
        assert capsys.readouterr().out.splitlines() == [str(path)]
        assert path.is_file()
    rows = [row for index in (0, 1) for row in read_jsonl(run.scores_jsonl(f"score-{index}", 0))]
    config = read_config(run)
    domain = open_domain(config, World(0, 1, torch.device("cpu")))
    wanted = score.population_of(domain, config.seed, 7)
    assert sorted(tuple(row["genotype"]) for row in rows) == sorted(wanted)
    for row in rows:
        assert row.keys() == {"genotype", "score", "reason", "costs"}
        assert row["costs"] == domain.costs(tuple(row["genotype"]))
        assert (row["score"] is None) == (row["reason"] is not None)
        assert domain.sampler().is_legal(tuple(row["genotype"]))
    assert bytes_of(run) == before
    assert [path.read_bytes() for path in run.all_scores("search")] == journal
    job = read_job(run, "score-1")
    assert job is not None and job.state == "finished"


@pytest.mark.parametrize("name", list(RUNS))
def test_scores_are_those_of_the_history(name: str, runs: Callable[[str], RunDir]) -> None:
    run = runs(name)
    config = read_config(run)
    domain = open_domain(config, World(0, 1, torch.device("cpu")))
    silent = RunLog(run, is_main=False)
    scorer = domain.scorer(domain.warm(run, silent), run, silent)
    for row in read_jsonl(run.history_jsonl)[:4]:
        found = score.row_of(tuple(row["genotype"]), domain, alone(scorer.evaluator))
        assert (found["score"], found["reason"], found["costs"]) == (row["score"], row.get("infeasible"), row["costs"])


def test_a_share_that_is_done_is_left_as_it_is_and_a_torn_line_is_made_good(
    runs: Callable[[str], RunDir], status_of: Callable[..., int]
) -> None:
    run = runs("training_free")
    line = (str(run.root), "--population=9", "--of=2", "--index=0")
    path = run.scores_jsonl("score-0", 0)
    assert status_of(score, *line) == 0
    whole = path.read_text()
    assert status_of(score, *line) == 0
    assert path.read_text() == whole
    path.write_text(whole[: len(whole) - 30])
    assert status_of(score, *line) == 0
    assert path.read_text() == whole


def test_without_an_index_all_shares_are_scored(
    runs: Callable[[str], RunDir], status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs("training_free")
    capsys.readouterr()
    assert status_of(score, str(run.root), "--population=5", "--of=3") == 0
    paths = [run.scores_jsonl(f"score-{index}", 0) for index in range(3)]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    rows = {tuple(row["genotype"]): row["score"] for path in paths for row in read_jsonl(path)}
    config = read_config(run)
    domain = open_domain(config, World(0, 1, torch.device("cpu")))
    assert set(score.population_of(domain, config.seed, 5)) <= rows.keys()


def test_two_processes_give_the_scores_of_one(
    work: Path, runs: Callable[[str], RunDir], status_of: Callable[..., int], launched: Callable[..., Any]
) -> None:
    run = runs("training_free")
    share = [str(run.root), "--population=28", "--of=7", "--index"]
    done = launched("score", *share, "6", folder=work, processes=2)
    assert done.returncode == 0, done.stderr
    paths = run.all_scores("score-6")
    assert done.stdout.splitlines()[-1] == str(paths[0]) and len(paths) == 2
    by_two = [read_jsonl(path) for path in paths]
    for path in paths:
        path.unlink()
    assert status_of(score, *share, "6") == 0
    alone_rows = read_jsonl(run.scores_jsonl("score-6", 0))
    assert len(alone_rows) == 4 and all(len(rows) == 2 for rows in by_two)
    assert sorted(alone_rows, key=str) == sorted((row for rows in by_two for row in rows), key=str)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--population=0"], "--population is 0; it must be 1 or more"),
        (["--population=5", "--of=0"], "--of is 0; it must be 1 or more"),
        (["--population=5", "--of=2", "--index=2"], "--index is 2; with --of 2 there are shares 0 to 1"),
        (["--population=5", "--data=nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(
    arguments: list[str], sentence: str, runs: Callable[[str], RunDir], mistake_of: Callable[..., str]
) -> None:
    run = runs("training_free")
    assert sentence in mistake_of(score, run.root, *arguments)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("vision", "supernet.safetensors"),
        ("vision", "indicators.json"),
        ("clicks", "score.json"),
        ("training_free", "score.json"),
    ],
)
def test_what_the_search_has_not_written_yet_is_not_written_here(
    name: str, missing: str, runs: Callable[[str], RunDir], mistake_of: Callable[..., str]
) -> None:
    run = runs(name)
    path = run.root / missing
    kept = path.read_bytes()
    path.unlink()
    try:
        said = mistake_of(score, run.root, "--population=3")
        assert not path.exists()
    finally:
        path.write_bytes(kept)
    assert f"has no {missing} yet; let launch/search.py come to its search first" in said


def test_a_folder_without_a_run_and_other_data_are_refused(
    work: Path, runs: Callable[[str], RunDir], mistake_of: Callable[..., str]
) -> None:
    assert "holds no run" in mistake_of(score, work / "empty", "--population=3")
    run = runs("training_free")
    kept = run.data_json.read_text()
    run.data_json.write_text(json.dumps(read_json(run.data_json) | {"classes": 11}))
    try:
        said = mistake_of(score, run.root, "--population=3")
    finally:
        run.data_json.write_text(kept)
    assert "was begun with other settings or data (data.classes: 11 in the run, 10 now)" in said
