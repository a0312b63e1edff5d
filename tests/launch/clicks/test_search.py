"""The search and the retraining of a CTR run, from the command line to a model that serves, on a synthetic log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from subshot.data.click_folder import open_clicks
from subshot.launch import retrain, search
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.domain import ClickDomain
from subshot.launch.clicks.retrain import lines_of
from subshot.launch.domain import read_config
from subshot.launch.winners.check import check_winner
from subshot.train.dist import World
from subshot.train.run_dir import RunDir, read_json, read_jsonl

QUICK = [
    "nasrec-full-criteo",
    "--space.blocks=3",
    "--space.max-dense-dim=64",
    "--space.max-sparse-dim=32",
    "--warmup.fraction=0.5",
    "--warmup.recipe.learning-rate=0.05",
    "--warmup.checkpoint-steps=4",
    "--batches.batch-size=66",
    "--batches.num-shards=6",
    "--score.population=8",
    "--evolution.budget=24",
    "--evolution.population=8",
    "--evolution.sample=4",
    "--evolution.children=4",
    "--evolution.best=2",
    "--evolution.controls=2",
    "--retrain.layer-norm",
    "--retrain.top=2",
    "--retrain.controls=1",
    "--retrain.seeds=2",
    "--retrain.learning-rates",
    "0.05",
    "0.1",
    "--retrain.baselines",
    "logistic_regression",
    "dlrm",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, prepared_clicks: Callable[..., Path]) -> Path:
    """A folder with prepared/: 4,000 synthetic rows in small tables."""
    folder = tmp_path_factory.mktemp("clicks")
    prepared_clicks(folder / "prepared")
    return folder


def words_of(work: Path) -> list[str]:
    return [QUICK[0], f"--data={work / 'prepared'}", *QUICK[1:]]


@pytest.fixture(scope="module")
def run_search(work: Path, status_of: Callable[..., int], launched: Callable[..., Any]) -> Callable[..., RunDir]:
    """run_search(name, *words, processes=1): a finished search. One process: here, without the seconds that a new one
    takes to import everything."""

    def run(name: str, *words: str, processes: int = 1) -> RunDir:
        line = [*words_of(work), f"--run-dir={work / name}", *words]
        if processes == 1:
            assert status_of(search, *line) == 0
        else:
            done = launched("search", *line, folder=work, processes=processes)
            assert done.returncode == 0, done.stderr
        return RunDir(work / name)

    return run


@pytest.fixture(scope="module")
def alone(run_search: Callable[..., RunDir]) -> RunDir:
    """A finished search of one process."""
    return run_search("alone")


@pytest.fixture(scope="module")
def retrained(work: Path, alone: RunDir, launched: Callable[..., Any]) -> RunDir:
    done = launched("retrain", alone.root, folder=work, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(alone.winner("1").root)
    return alone


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_bytes_of_one(
    run_search: Callable[..., RunDir], alone: RunDir, processes: int
) -> None:
    """Which also shows that all draw the same path at every step."""
    other = run_search(f"by-{processes}", processes=processes)
    assert other.supernet.read_bytes() == alone.supernet.read_bytes()
    assert other.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()


def test_sharded_tables_give_the_same_to_rounding(run_search: Callable[..., RunDir], alone: RunDir) -> None:
    other = run_search("dmp", "--tables.sharding=dmp", processes=2)
    ours, theirs = load_file(alone.supernet), load_file(other.supernet)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)


def test_the_history_has_every_term_beside_the_trivial_baselines(alone: RunDir) -> None:
    rows = read_jsonl(alone.history_jsonl)
    for method in ("evolution", "random"):
        genotypes = [tuple(row["genotype"]) for row in rows if row["method"] == method]
        assert len(genotypes) == len(set(genotypes)) == 24
    for row in rows:
        assert {"zico", "fisher_rao", "loss", "scored_modules"} <= row["terms"].keys()
        assert {"macs", "params", "num_modules"} <= row["costs"].keys()
    moments = read_json(alone.score_json)
    for row in rows:  # the score is what its terms say, with all weights 1
        terms = [row["terms"]["zico"], np.log(row["terms"]["fisher_rao"]), row["terms"]["loss"]]
        z = [
            (value - moments[name]["mean"]) / moments[name]["sd"]
            for value, name in zip(terms, ("zico", "log_fisher_rao", "loss"), strict=True)
        ]
        assert row["score"] == pytest.approx(z[0] + z[1] - z[2], abs=1e-6)


def test_scoring_leaves_supernet_and_tables_bit_identical(alone: RunDir) -> None:
    from subshot.launch.run_log import RunLog

    config = read_config(alone)
    assert isinstance(config, ClickConfig)
    domain = ClickDomain(config, World(0, 1, torch.device("cpu")))
    with RunLog(alone, False) as log:
        warm = domain.warm(alone, log)
        before = {name: value.clone() for name, value in warm.network.state_dict().items()}
        tables = warm.tables.state()
        scorer = domain.scorer(warm, alone, log)
    genotypes = [tuple(row["genotype"]) for row in read_jsonl(alone.history_jsonl)][:3]
    first = scorer.evaluator.evaluate(genotypes)
    assert first == [row["score"] for row in read_jsonl(alone.history_jsonl)][:3]
    assert all(torch.equal(value, before[name]) for name, value in warm.network.state_dict().items())
    assert all(torch.equal(value, tables[name]) for name, value in warm.tables.state().items())


@pytest.mark.parametrize("kind", ["zico", "sigeo_reference", "one_shot"])
def test_the_other_scores_run(work: Path, run_search: Callable[..., RunDir], alone: RunDir, kind: str) -> None:
    copy = RunDir(work / kind)
    copy.root.mkdir()
    copy.supernet.write_bytes(alone.supernet.read_bytes())
    run = run_search(kind, f"--score.kind={kind}", "--score.tune-steps=20", "--score.tune-batches=5")
    scores = [row["score"] for row in read_jsonl(run.history_jsonl)]
    assert len(set(scores)) > 20
    assert scores != [row["score"] for row in read_jsonl(alone.history_jsonl)]


def test_a_killed_warm_up_goes_on_to_the_same_supernet(
    work: Path, run_search: Callable[..., RunDir], alone: RunDir, killed_in_warm_up: Callable[..., None]
) -> None:
    run = RunDir(work / "killed")
    killed_in_warm_up(run, *words_of(work))
    run_search("killed", "--resume")
    assert run.supernet.read_bytes() == alone.supernet.read_bytes()
    assert run.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()


def test_the_comparison_has_everybody_with_seeds(retrained: RunDir) -> None:
    found = read_json(retrained.comparison_json)
    names = [row["name"] for row in found["networks"]]
    assert names[0].startswith("rank-") and names[1].startswith("random-rank-") and names[2] == "random-1"
    assert names[3:] == ["logistic_regression", "dlrm"]
    assert found["synthetic"] and found["bayes_log_loss"] is not None
    for row in found["networks"]:
        assert row["test/log_loss"]["n"] == 2
        assert row["test/log_loss"]["low"] <= row["test/log_loss"]["mean"] <= row["test/log_loss"]["high"]
    assert "Bayes" in "\n".join(lines_of(found))


def test_the_test_split_is_seen_by_finals_alone(retrained: RunDir) -> None:
    records = [read_json(path) for path in (retrained.root / "trials").glob("*.json")]
    finals = [record for record in records if record["settings"]["tested"]]
    assert len(finals) == 2 * 5
    for record in records:
        assert ("test/log_loss" in record) == record["settings"]["tested"]
        assert ("val/log_loss" in record) == (not record["settings"]["tested"] and record["diverged"] is None)
    chosen = {record["contender"]: record["settings"]["learning_rate"] for record in finals}
    for contender, rate in chosen.items():  # the rate is the one with the lowest validation loss
        tried = {
            record["settings"]["learning_rate"]: record["val/log_loss"]["value"]
            for record in records
            if record["contender"] == contender and "val/log_loss" in record
        }
        assert min(tried, key=tried.__getitem__) == rate


def test_the_winner_serves_what_was_measured(work: Path, retrained: RunDir) -> None:
    folder = retrained.winner("1")
    golden = np.load(folder.golden)
    session = onnxruntime.InferenceSession(str(folder.onnx), providers=["CPUExecutionProvider"])
    fed = {"dense": golden["dense"], "ids": golden["ids"]}
    (served,) = session.run(["probabilities"], {given.name: fed[given.name] for given in session.get_inputs()})
    np.testing.assert_allclose(served, golden["probabilities"], atol=1e-5)
    metrics = read_json(folder.metrics_json)
    assert metrics["contender"] == read_json(retrained.comparison_json)["networks"][0]["name"]
    logits = np.load(retrained.trial_logits(trial_of(retrained)))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits["logits"][:16])), golden["probabilities"], atol=1e-5)
    test = open_clicks(work / "prepared").test
    np.testing.assert_array_equal(logits["labels"], np.concatenate([block.read().labels for block in test.blocks]))
    kept = read_json(folder.preprocess_json)
    assert kept["protocol"] == "nasrec" and len(kept["categories"]) == 26
    assert len(list(check_winner(folder.root))) == 11
    assert read_json(folder.architecture_json)["choices"]["b3.dense_op"] in ("fc", "dot_product", "gating", "sum")


def trial_of(run: RunDir) -> str:
    row = read_json(run.comparison_json)["networks"][0]
    return f"{row['name']}-lr{row['learning_rate']:g}-seed0-tested"


def test_another_top_hands_over_its_own_winner(
    retrained: RunDir, tmp_path: Path, status_of: Callable[..., int]
) -> None:
    """Also where its trainings are all there already."""
    copy = RunDir(Path(shutil.copytree(retrained.root, tmp_path / "copy")))
    metrics = read_json(copy.winner("1").metrics_json)
    stale = metrics | {"contender": "rank-9"}
    copy.winner("1").metrics_json.write_text(json.dumps(stale))
    assert status_of(retrain, copy.root) == 0
    again = read_json(copy.winner("1").metrics_json)
    assert again["contender"] == metrics["contender"]
    assert again["test/log_loss"] == metrics["test/log_loss"]


def test_a_finished_retraining_does_nothing_again(retrained: RunDir, status_of: Callable[..., int]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (retrained.root / "trials").iterdir()}
    assert status_of(retrain, retrained.root) == 0
    assert {path: path.stat().st_mtime_ns for path in (retrained.root / "trials").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nasrec-small-criteo"], "python launch/prepare.py criteo RAW FOLDER"),
        (["nasrec-small-criteo", "--data", "no/such/folder"], "no/such/folder is no prepared click log"),
        (["nasrec-small-criteo", "--data", "prepared", "--warmup.fraction", "2"], "warmup.fraction is 2.0"),
        (["nasrec-small-criteo", "--data", "prepared", "--batches.batch-size", "9000"], "batch_size 9000 is larger"),
        (["nasrec-small-criteo", "--data", "prepared", "--limits.max-macs", "10"], "only 0 of"),
        (["nasrec-small-criteo", "--data", "prepared", "--space.max-dense-dim", "8"], "the smallest are 16 and 16"),
        (["nasrec-small-criteo", "--data", "prepared", "--retrain.baselines", "svm"], "there is no baseline 'svm'"),
        (
            ["nasrec-small-avazu", "--data", "prepared"],
            "nasrec-small-avazu is for avazu, and prepared holds",
        ),
        (["nasrec-small-criteo", "--data", "prepared", "--retrain.seeds", "0"], "retrain.seeds is 0"),
        (["nasrec-small-criteo", "--data", "prepared", "--retrain.learning-rates", "-1"], "learning_rates has -1.0"),
        (["nasrec-small-criteo", "--data", "prepared", "--retrain.batch-size", "7000"], "there are 3200 training rows"),
        (["nasrec-small-criteo", "--data", "prepared", "--warmup.checkpoint-steps", "0"], "checkpoint_steps is 0"),
        (["nasrec-small-criteo", "--data", "prepared", "--warmup.recipe.optimizer", "sgd"], "can only be 'adagrad'"),
        (["nasrec-small-criteo", "--data", "prepared", "--score.population", "1"], "score.population is 1"),
        (["nasrec-small-criteo", "--data", "prepared", "--seed", "-1"], "seed is -1"),
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
    assert sentence in mistake_of(search, *arguments, "--run-dir=mistake")
    assert not (work / "mistake").exists()


def test_other_clicks_under_the_same_path_are_refused(
    work: Path, alone: RunDir, prepared_clicks: Callable[..., Path], mistake_of: Callable[..., str]
) -> None:
    other = prepared_clicks(work / "other", seed=1)
    assert "was begun with other settings or data (data." in mistake_of(retrain, alone.root, f"--data={other}")


def test_a_diverging_warm_up_stops_with_the_reason(
    work: Path, mistake_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    arguments = [*QUICK, "--data=prepared", "--run-dir=diverged", "--warmup.stuck-steps=3"]
    arguments += ["--warmup.recipe.learning-rate=1e-9"]
    said = mistake_of(search, *arguments)
    assert "the warm-up diverged: the mean loss of 3 steps is" in said and "no step was kept" in said
    assert not (work / "diverged" / "supernet.safetensors").exists()


def test_what_is_read_is_json(retrained: RunDir) -> None:
    for path in retrained.root.rglob("*.json"):
        json.loads(path.read_text())
