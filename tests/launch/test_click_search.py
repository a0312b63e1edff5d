"""The search and the retraining of a CTR run, from the command line to a model that serves, on a synthetic log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from subshot.data.click_folder import open_clicks
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.synthetic_clicks import write_synthetic_log
from subshot.launch import retrain, search
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.domain import ClickDomain
from subshot.launch.clicks.retrain import lines_of
from subshot.launch.domain import read_config
from subshot.launch.winners.check import check_winner
from subshot.train.checkpoint import checkpoint_paths
from subshot.train.dist import World
from subshot.train.run_dir import RunDir, read_json, read_jsonl

REPOSITORY = Path(__file__).resolve().parents[2]
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
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared/: 4,000 synthetic rows in small tables."""
    folder = tmp_path_factory.mktemp("clicks")
    raw = write_synthetic_log(folder / "raw.tsv", 4000, 0)
    prepare_clicks("criteo", raw, folder / "prepared", PrepareOptions(max_rows_per_table=300))
    return folder


def command(script: str, processes: int, arguments: list[str]) -> list[str]:
    path = str(REPOSITORY / "launch" / script)
    if processes == 1:
        return [sys.executable, path, *arguments]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, path, *arguments]


def run_search(folder: Path, name: str, processes: int = 1, extra: list[str] | None = None) -> RunDir:
    """One process: here, without the seconds that a new one takes to import everything."""
    arguments = [QUICK[0], f"--data={folder / 'prepared'}", *QUICK[1:], f"--run-dir={folder / name}", *(extra or [])]
    if processes == 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["launch/search.py", *arguments])
            assert search.main() == 0
        return RunDir(folder / name)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = command("search.py", processes, arguments)
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return RunDir(folder / name)


@pytest.fixture(scope="module")
def alone(work: Path) -> RunDir:
    """A finished search of one process."""
    return run_search(work, "alone")


@pytest.fixture(scope="module")
def retrained(work: Path, alone: RunDir) -> RunDir:
    line = command("retrain.py", 2, [str(alone.root)])
    done = subprocess.run(line, cwd=work, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(alone.winner("1").root)
    return alone


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_bytes_of_one(work: Path, alone: RunDir, processes: int) -> None:
    """Which also shows that all draw the same path at every step."""
    other = run_search(work, f"by-{processes}", processes)
    assert other.supernet.read_bytes() == alone.supernet.read_bytes()
    assert other.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()


def test_sharded_tables_give_the_same_to_rounding(work: Path, alone: RunDir) -> None:
    other = run_search(work, "dmp", 2, ["--tables.sharding=dmp"])
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
def test_the_other_scores_run(work: Path, alone: RunDir, kind: str) -> None:
    copy = RunDir(work / kind)
    copy.root.mkdir()
    copy.supernet.write_bytes(alone.supernet.read_bytes())
    extra = [f"--score.kind={kind}", "--score.tune-steps=20", "--score.tune-batches=5"]
    run = run_search(work, kind, extra=extra)
    scores = [row["score"] for row in read_jsonl(run.history_jsonl)]
    assert len(set(scores)) > 20
    assert scores != [row["score"] for row in read_jsonl(alone.history_jsonl)]


def test_a_killed_warm_up_goes_on_to_the_same_supernet(work: Path, alone: RunDir) -> None:
    run = RunDir(work / "killed")
    arguments = [QUICK[0], f"--data={work / 'prepared'}", *QUICK[1:], f"--run-dir={run.root}"]
    line = command("search.py", 1, arguments)
    process = subprocess.Popen(line, cwd=work, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not checkpoint_paths(run.checkpoints, "warmup") and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint_paths(run.checkpoints, "warmup")
    run_search(work, "killed", extra=["--resume"])
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
    work: Path, retrained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its trainings are all there already."""
    copy = RunDir(Path(shutil.copytree(retrained.root, tmp_path / "copy")))
    metrics = read_json(copy.winner("1").metrics_json)
    stale = metrics | {"contender": "rank-9"}
    copy.winner("1").metrics_json.write_text(json.dumps(stale))
    monkeypatch.setattr(sys, "argv", ["launch/retrain.py", str(copy.root)])
    assert retrain.main() == 0
    again = read_json(copy.winner("1").metrics_json)
    assert again["contender"] == metrics["contender"]
    assert again["test/log_loss"] == metrics["test/log_loss"]


def test_a_finished_retraining_does_nothing_again(
    work: Path, retrained: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (retrained.root / "trials").iterdir()}
    monkeypatch.setattr(sys, "argv", ["launch/retrain.py", str(retrained.root)])
    assert retrain.main() == 0
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
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["launch/search.py", *arguments, "--run-dir=mistake"])
    try:
        status = search.main()
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (work / "mistake").exists()


def test_other_clicks_under_the_same_path_are_refused(
    work: Path, alone: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_synthetic_log(work / "other.tsv", 4000, 1)
    prepare_clicks("criteo", raw, work / "other", PrepareOptions(max_rows_per_table=300))
    monkeypatch.setattr(sys, "argv", ["launch/retrain.py", str(alone.root), f"--data={work / 'other'}"])
    assert retrain.main() == 2
    assert "was begun with other settings or data (data." in capsys.readouterr().err


def test_a_diverging_warm_up_stops_with_the_reason(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    arguments = [*QUICK, "--data=prepared", "--run-dir=diverged", "--warmup.stuck-steps=3"]
    arguments += ["--warmup.recipe.learning-rate=1e-9"]
    monkeypatch.setattr(sys, "argv", ["launch/search.py", *arguments])
    assert search.main() == 2
    said = capsys.readouterr().err
    assert "the warm-up diverged: the mean loss of 3 steps is" in said and "no step was kept" in said
    assert not (work / "diverged" / "supernet.safetensors").exists()


def test_what_is_read_is_json(retrained: RunDir) -> None:
    for path in retrained.root.rglob("*.json"):
        json.loads(path.read_text())
