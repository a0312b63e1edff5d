"""Winners' folders of untrained networks, written as retraining writes them, of which each test copies what it breaks;
what several tests of reports need; and runs that are quick to make: real searches by scores that need no supernet,
retraining's figures made up."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from subshot.data.clicks import ClickEvalLoader, open_clicks
from subshot.data.digits import write_digits
from subshot.data.image_folder import ImageFolder, scan
from subshot.data.imagenet import EvalLoader
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.synthetic_clicks import write_synthetic_log
from subshot.launch.clicks.data import ClickData
from subshot.launch.clicks.winner import click_handover
from subshot.launch.config import LimitsConfig, SpaceConfig, VisionConfig, to_json
from subshot.launch.domain import Scorer
from subshot.launch.explore import explore
from subshot.launch.presets import PRESETS, digits
from subshot.launch.run_log import RunLog
from subshot.launch.vision.build import make_space
from subshot.launch.vision.domain import VisionNetworks
from subshot.launch.vision.winner import image_handover
from subshot.launch.winners.check import check_winner
from subshot.launch.winners.handover import write_winner
from subshot.search.evaluator import AdditiveEvaluator, FunctionEvaluator
from subshot.search.evolution import EvolutionConfig
from subshot.supernet import CLICK_SPACES
from subshot.supernet.nasrec_network import build_nasrec
from subshot.supernet.network import build_network
from subshot.supernet.space import Additive, Genotype, sample
from subshot.train.checkpoint import checkpoint_paths
from subshot.train.dist import World
from subshot.train.run_dir import RunDir, write_json
from subshot.train.tables import TablesConfig, build_tables

MakeRun = Callable[..., RunDir]


def additive_score(networks: VisionNetworks) -> Additive:
    """A number for each choice of each layer, always the same ones."""
    rng = random.Random(7)
    return Additive(0.0, tuple(tuple(rng.random() for _ in d.choices) for d in networks.space.decisions))


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """make_run(folder, seed=0, budget=60, noise=0.0): a finished search of images; with noise the score is no sum."""

    def make(folder: Path, seed: int = 0, budget: int = 60, noise: float = 0.0) -> RunDir:
        run = RunDir(folder)
        config: VisionConfig = replace(
            PRESETS["macro-cifar10"](),  # type: ignore[arg-type]
            space=SpaceConfig("nasbench-macro", input_size=8, width=0.125),
            limits=LimitsConfig(max_macs=1.3e5),
            evolution=EvolutionConfig(budget=budget, population=12, sample=4, children=6),
            seed=seed,
        )
        networks = VisionNetworks(config, 10)
        additive = additive_score(networks)

        def noisy(genotype: Genotype) -> float:
            return additive(genotype) + noise * random.Random(str(genotype)).gauss(0.0, 1.0)

        scorer = Scorer("a sum", AdditiveEvaluator(additive), additive)
        if noise:
            scorer = Scorer("a sum and noise", FunctionEvaluator(noisy), None)
        write_json(run.config_json, to_json(config))
        write_json(run.data_json, {"classes": 10, "images": {"val": 355}})
        write_json(run.environment_json, {"python": "3.11", "processes": 2, "device": "cpu", "threads_per_process": 1})
        with RunLog(run, True) as log:
            log.line("macro-cifar10: 2 process(es) on cpu; run folder runs/macro")
            log.line("images: 1082 to train on, 355 untouched for the test; 10 classes")
            explore(config, networks, scorer, World(0, 1, torch.device("cpu")), run, log)
        return run

    return make


@pytest.fixture(scope="session")
def exact_run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """To be read, not changed: its score is exactly a sum over layers."""
    return make_run(tmp_path_factory.mktemp("exact") / "exact")


@pytest.fixture(scope="session")
def noisy_run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """To be read, not changed: a sum and noise."""
    return make_run(tmp_path_factory.mktemp("noisy") / "noisy", seed=1, noise=0.2)


@pytest.fixture
def killed_in_warm_up(started: Callable[..., Any], wait_for: Callable[..., None]) -> Callable[..., None]:
    """killed_in_warm_up(run, *words): a search, until its warm-up has a checkpoint."""

    def begin(run: RunDir, *words: str) -> None:
        [process] = started("search", *words, f"--run-dir={run.root}", folder=run.root.parent)
        wait_for(lambda: checkpoint_paths(run.checkpoints, "warmup"), [process])
        process.kill()
        process.communicate()
        assert checkpoint_paths(run.checkpoints, "warmup")

    return begin


@pytest.fixture(scope="session")
def few_digits() -> Callable[..., Path]:
    """few_digits(folder, train=20, val=10): so many of the handwritten digits of each class."""

    def write(folder: Path, train: int = 20, val: int = 10) -> Path:
        write_digits(folder)
        for split, kept in (("train", train), ("val", val)):
            for label in (folder / split).iterdir():
                for path in sorted(label.iterdir())[kept:]:
                    path.unlink()
        return folder

    return write


@pytest.fixture(scope="session")
def prepared_clicks() -> Callable[..., Path]:
    """prepared_clicks(folder, rows=4000, max_rows=300, seed=0): a prepared synthetic log, in tables of so many rows."""

    def write(folder: Path, rows: int = 4000, max_rows: int = 300, seed: int = 0) -> Path:
        raw = write_synthetic_log(folder.with_suffix(".tsv"), rows, seed)
        prepare_clicks("criteo", raw, folder, PrepareOptions(max_rows_per_table=max_rows))
        return folder

    return write


CLASSES = ("ant", "bee", "cat")


@dataclass(frozen=True)
class Made:
    """A winner's folder and what it was made from. images: files that the DALI pipeline reads, or None."""

    winner: Path
    prepared: Path
    raw: Path
    images: ImageFolder | None = None


def begun_run(folder: Path, data: dict[str, str]) -> RunDir:
    run = RunDir(folder)
    write_json(run.config_json, {"preset": "made by a test", "data": str(folder)})
    write_json(run.environment_json, {"python": "3.11"})
    write_json(run.data_json, data)
    run.history_jsonl.write_text("")
    return run


def draw_images(root: Path) -> None:
    """Smooth shapes and noise of many sizes, JPEG and PNG, some grey, of 16 bits, or with a palette."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            for number in range(4):
                height, width = rng.integers(20, 150, 2)
                ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
                pixels = np.clip(ramp + rng.normal(0, 30, (height, width, 3)), 0, 255).astype(np.uint8)
                picture = Image.fromarray(pixels if number else pixels[..., 0])
                if number == 3:  # odd ones: grey of 16 bits, a palette
                    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 250)
                    picture = deep if label == "ant" else picture.convert("P")
                picture.save(root / split / label / f"{number}.{'png' if number % 2 else 'jpg'}", quality=90)


@pytest.fixture(scope="session")
def made_images(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An image network of random weights, whose BatchNorms have moved."""
    folder = tmp_path_factory.mktemp("made-images")
    draw_images(folder / "images")
    config = digits()
    space = make_space(config.space, len(CLASSES))
    genotype = sample(space, random.Random(3))
    torch.manual_seed(0)
    network = build_network(space.decode(genotype))
    images = scan(folder / "images", "val")
    loader = EvalLoader(images, size=space.input_size, crop_ratio=config.images.crop_ratio, batch_size=8)
    batch = next(iter(loader))
    for _ in range(3):
        network(batch.images)
    nn.init.normal_(network.classifier.weight, std=2.0)
    run = begun_run(folder / "run", {})
    interval = [0.2, 0.6]
    metrics = {"name": "1", "role": "winner", "seed": 0, "search/score": 0.5, "settings": {}}
    metrics |= {"test/accuracy": 0.4, "test/n": 12, "test/interval_95": interval}
    handed = image_handover(network.eval(), config, space, genotype, CLASSES, batch, metrics, run)
    write_winner(run.winner("1"), handed)
    return Made(run.winner("1").root, folder / "images", folder / "images" / "val", images)


@pytest.fixture(scope="session")
def made_clicks(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A CTR network of random weights and tables, over a prepared synthetic log with vocabularies."""
    folder = tmp_path_factory.mktemp("made-clicks")
    raw = write_synthetic_log(folder / "raw.tsv", 3000, 0)
    prepare_clicks("criteo", raw, folder / "prepared", PrepareOptions(protocol="autoctr"))
    data = ClickData(open_clicks(folder / "prepared"))
    space = CLICK_SPACES["nasrec-full"](len(data.dense_fields), len(data.fields), 3)
    genotype = space.canonical(space.draw(random.Random(2), connections="uniform"))
    network = build_nasrec(space.decode(genotype), torch.Generator().manual_seed(0), True)
    cap = 40
    tables = build_tables(data.fields, TablesConfig(max_rows=cap), 0, World(0, 1, torch.device("cpu")))
    run = begun_run(folder / "run", data.fingerprint())
    metrics = {"name": "1", "role": "winner", "search/score": None, "settings": {}}
    metrics["test/n"] = 300  # type: ignore[assignment]
    metrics["test/log_loss"] = {"value": 0.5, "low": 0.4, "high": 0.6}  # type: ignore[assignment]
    (batch,) = islice(ClickEvalLoader(data.split("test"), batch_size=16, max_rows_per_table=cap), 1)
    handed = click_handover(network, tables, space, genotype, data, cap, True, batch, metrics, run)
    write_winner(run.winner("1"), handed)
    return Made(run.winner("1").root, folder / "prepared", raw)


@pytest.fixture
def image_copy(made_images: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_images.winner, tmp_path / "winner"))


@pytest.fixture
def click_copy(made_clicks: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_clicks.winner, tmp_path / "winner"))


@pytest.fixture
def linked(tmp_path: Path) -> Callable[[Path], Path]:
    """linked(winner): a copy that shares its files until they are written anew; the copy before is gone."""

    def copy(winner: Path) -> Path:
        shutil.rmtree(tmp_path / "winner", ignore_errors=True)
        return Path(shutil.copytree(winner, tmp_path / "winner", copy_function=os.link))

    return copy


@pytest.fixture(scope="session")
def reason_of() -> Callable[[Path], str]:
    """reason_of(folder): why a winner's folder is refused; fails where it is not, or where anything but one sentence
    comes of it."""

    def reason(folder: Path) -> str:
        with pytest.raises(ValueError, match=r"\S") as caught:
            for _ in check_winner(folder):
                pass
        words = str(caught.value)
        assert str(folder) in words and "\n" not in words and len(words) < 700
        return words

    return reason


Tau = tuple[float, float, float]
RankingOf = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def ranking_of() -> RankingOf:
    """Writes a ranking.json's content with the taus (value, low, high) that are asked for; None: undefined."""

    def estimate(value: float, low: float, high: float) -> dict[str, float]:
        return {"value": value, "low": low, "high": high}

    def row(kind: str, tau: Tau | None) -> dict[str, Any]:
        statistics = ("kendall", "spearman", "ndcg", "top_k_recall", "regret")
        if tau is None:
            return {"kind": kind, "undefined": 0, **dict.fromkeys(statistics)}
        rho = (tau[0] / 2 + 0.01, tau[1] / 2 - 0.02, tau[2] / 2 + 0.03)
        rest = {"ndcg": (0.7, 0.5, 0.9), "top_k_recall": (0.33, 0.0, 1.0), "regret": (0.02, 0.0, 0.05)}
        found = {"kendall": tau, "spearman": rho, **rest}
        return {"kind": kind, "undefined": 0, **{name: estimate(*values) for name, values in found.items()}}

    def content(
        score: Tau | None,
        counts: dict[str, Tau],
        proxies: dict[str, Tau] | None = None,
        differences: dict[str, tuple[float, float]] | None = None,
        retrain: int | None = 7,
        **changed: Any,
    ) -> dict[str, Any]:
        networks = changed.get("networks", 12)
        metric = changed.get("metric", "test/accuracy")
        scores = {"score": row("score", score)}
        scores |= {name: row("count", tau) for name, tau in counts.items()}
        scores |= {name: row("proxy", tau) for name, tau in (proxies or {}).items()}
        between = differences or dict.fromkeys(counts, (-0.3, 0.4))
        known: dict[str, Any] = {
            "schema_version": 2,
            "networks": 12,
            "seeds": 2,
            "diverged": 0,
            "metric": metric,
            "looked_at": "Looked at something.",
            "seed_kendall": 0.66,
            "recall_of": 3,
            "scores": scores,
            "beside_counts": {name: {"low": low, "high": high} for name, (low, high) in between.items()},
            "confidence": {"level": 0.9, "retrain": retrain, "of": networks, "place_of_best": 4},
            "regret_of_first": None if score is None else {**estimate(0.021, 0.0, 0.05), "expected": 0.034},
            "sample": [
                {
                    "network": f"sampled-{place}",
                    "genotype": [place],
                    "score": 1.0 - 0.1 * place,
                    metric: [0.5 + 0.01 * place, None],
                    "costs": {"params": 10, "macs": 20},
                    "others": {},
                }
                for place in range(networks)
            ],
        }
        return known | changed

    return content
