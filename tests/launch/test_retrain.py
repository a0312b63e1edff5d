"""Retraining a run's winner and controls, and the folders that come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from subshot.launch import retrain, search
from subshot.launch.domain import read_config
from subshot.launch.vision import retrain as vision_retrain
from subshot.launch.vision.build import make_space
from subshot.launch.winners.check import check_winner
from subshot.supernet.network import build_network
from subshot.supernet.space import from_named_choices
from subshot.train.run_dir import RunDir, read_json


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, status_of: Callable[..., int]) -> RunDir:
    """A tiny search, its winner and one control retrained for two epochs."""
    folder = tmp_path_factory.mktemp("retrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = [
            "--space.width=0.125",
            "--warmup.recipe.epochs=3",
            "--evolution.budget=20",
            "--evolution.population=10",
            "--evolution.sample=4",
            "--retrain.recipe.ema-decay=0.5",
        ]
        assert status_of(search, "digits", "--run-dir", folder / "run", *settings) == 0
        assert status_of(retrain, folder / "run", "--controls", "1", "--epochs", "2") == 0
    return RunDir(folder / "run")


def test_folders_are_whole(run: RunDir) -> None:
    assert run.winner_names() == ["1", "random-1"]
    root = run.winner("1").root
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert files == {
        "MODEL_CARD.md",
        "SHA256SUMS",
        "architecture.json",
        "golden.npz",
        "golden/deep.png",
        "golden/expected.safetensors",
        "golden/raw.json",
        "golden/tall.jpg",
        "golden/wide.png",
        "labels.json",
        "latency.json",
        "load.py",
        "metrics.json",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
        "network.json",
        "preprocess.json",
        "preprocess.py",
        "provenance.json",
    }
    assert {row["batch"] for row in read_json(run.winner("1").latency_json)} == {1, 32}
    assert len(list(check_winner(root))) == 11
    left = [path.name for path in run.winners.iterdir() if path.name.startswith(".")]
    assert not left and not list(run.checkpoints.glob("retrain-*"))


def test_the_report_of_finished_retraining_speaks_of_no_job_at_work(run: RunDir) -> None:
    assert "The job" not in run.report_html.read_text()


def test_metrics_tell_n_interval_and_role(run: RunDir) -> None:
    metrics = read_json(run.winner("random-1").metrics_json)
    low, high = metrics["test/interval_95"]
    assert low <= metrics["test/accuracy"] <= high
    assert metrics["test/n"] == 355
    assert metrics["role"] == "control"
    assert metrics["epochs"] == 2


@pytest.mark.parametrize("name", ["1", "random-1"])
def test_json_and_weights_rebuild_the_network(run: RunDir, name: str) -> None:
    winner = run.winner(name)
    config = read_config(run)
    architecture = read_json(winner.architecture_json)
    space = make_space(config.space, architecture["space"]["classes"])
    genotype = from_named_choices(space, architecture["choices"])
    assert list(genotype) == architecture["genotype"]
    assert space.cost(genotype).macs == architecture["costs"]["macs"]
    network = build_network(space.decode(genotype)).eval()
    network.load_state_dict(load_file(winner.weights()))
    golden = np.load(winner.golden, allow_pickle=False)
    with torch.no_grad():
        outputs = network(torch.from_numpy(golden["images"])).numpy()
    assert np.abs(outputs - golden["logits"]).max() < 1e-4


def test_onnx_takes_any_batch(run: RunDir) -> None:
    winner = run.winner("1")
    golden = np.load(winner.golden, allow_pickle=False)
    session = onnxruntime.InferenceSession(str(winner.onnx), providers=["CPUExecutionProvider"])
    for count in (1, 3, 8):
        (logits,) = session.run(["logits"], {"images": golden["images"][:count]})
        assert np.abs(logits - golden["logits"][:count]).max() < 1e-3
    assert read_json(winner.metrics_json)["onnx_max_abs_difference"] < 1e-3


def test_finished_networks_are_kept(
    run: RunDir, status_of: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.root.parent)
    before = run.winner("1").weights().stat().st_mtime_ns
    assert status_of(retrain, run.root, "--controls", "1", "--epochs", "2") == 0
    assert run.winner("1").weights().stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--index", "9"], "--index is 9; the manifest has lines 0 to"),
        (["--data", "no/such"], "the data folder no/such does not exist"),
        (["--epochs", "-3"], "epochs is -3"),
        (["--epochs", "3"], "was trained with other settings (recipe.epochs: 2 in the run, 3 now)"),
        (["--top", "0"], "--top is 0; it must be 1 or more"),
    ],
)
def test_mistakes_end_with_2(
    run: RunDir,
    arguments: list[str],
    sentence: str,
    mistake_of: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run.root.parent)
    assert sentence in mistake_of(retrain, run.root, *arguments)


def test_a_run_without_a_search_is_refused(tmp_path: Path, mistake_of: Callable[..., str]) -> None:
    assert "run launch/search.py first" in mistake_of(retrain, tmp_path / "run")


def test_manifest_lists_seeds_and_controls(run: RunDir) -> None:
    jobs = vision_retrain.manifest(read_json(run.summary_json), top=2, controls=1, seeds=2)
    assert [job.name for job in jobs] == ["1", "1-seed1", "2", "2-seed1", "random-1", "random-1-seed1"]
    assert [job.role for job in jobs][0] == "winner"
