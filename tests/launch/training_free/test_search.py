"""A search without a supernet, from its command line to the winner's folder and the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from subshot.data.digits import write_digits
from subshot.launch import retrain, search
from subshot.launch.config import NetworkLimitsConfig, ReadImagesConfig, to_json
from subshot.launch.presets import PRESETS
from subshot.launch.training_free.space import (
    BenchmarkNetworks,
    benchmark_builder,
    initialised,
    published_form,
)
from subshot.search.objectives import ImpossibleLimit
from subshot.supernet import BENCHMARK_SPACES
from subshot.supernet.darts import DARTS_V2, DartsSpace
from subshot.supernet.nasbench101 import NasBench101Space
from subshot.supernet.nasbench201 import NasBench201Space, from_string
from subshot.supernet.space import from_named_choices
from subshot.supernet.zennas import ZENNETS, ZenSpace, from_structure
from subshot.train.run_dir import RunDir, read_json, read_jsonl

TRAINING_FREE = ("zennas-cifar", "nasbench201-cifar10", "nasbench101-cifar10", "darts-cifar10")
QUICK = [
    "nasbench201-cifar10",
    "--data=digits",
    "--space.input-size=8",
    "--limits.max-macs=8e6",
    "--evolution.budget=12",
    "--evolution.population=8",
    "--evolution.sample=3",
    "--evolution.children=2",
    "--evolution.controls=1",
    "--score.population=8",
    "--score.batch-size=4",
    "--retrain.recipe.epochs=1",
    "--retrain.batch-size=64",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training-free")
    write_digits(folder / "digits")
    return folder


@pytest.fixture(scope="module")
def alone(work: Path, status_of: Callable[..., int]) -> RunDir:
    """A finished run of one process, its winner retrained."""
    run = RunDir(work / "alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        assert status_of(search, *QUICK, "--run-dir=alone") == 0
        assert status_of(retrain, "alone", "--controls", "0") == 0
    return run


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_bytes(
    work: Path, alone: RunDir, launched: Callable[..., Any], processes: int
) -> None:
    done = launched("search", *QUICK, f"--run-dir=by-{processes}", folder=work, processes=processes)
    assert done.returncode == 0, done.stderr
    other = RunDir(work / f"by-{processes}")
    assert other.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()
    assert other.score_json.read_bytes() == alone.score_json.read_bytes()


def test_history_holds_terms_and_costs_within_the_limit(alone: RunDir) -> None:
    rows = read_jsonl(alone.history_jsonl)
    assert len(rows) == 24
    assert all(row["costs"]["macs"] <= 8e6 for row in rows)
    for row in rows:
        if row["score"] is None:
            assert row["infeasible"].startswith("az_")
        else:
            assert row["score"] <= 0.5 and set(row["terms"]) == set(PRESETS["nasbench201-cifar10"]().score.proxies)
            assert row["terms"]["macs"] == row["costs"]["macs"]
    pool = read_json(alone.score_json)
    assert len(pool["genotypes"]) == len(pool["macs"]) == 8


def test_a_stopped_search_goes_on_to_the_same_history(
    work: Path, alone: RunDir, status_of: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the files lie after a stop in the middle of the random control; what was measured once is read."""
    monkeypatch.chdir(work)
    text, copy = alone.history_jsonl.read_text(), RunDir(work / "stopped")
    copy.root.mkdir()
    for path in (alone.config_json, alone.data_json, alone.score_json):
        (copy.root / path.name).write_bytes(path.read_bytes())
    copy.history_jsonl.write_text(text[: len(text) * 3 // 4])
    copy.state_json.write_text(json.dumps({"evolution": read_json(alone.state_json)["evolution"]}))
    assert status_of(search, *QUICK, "--run-dir=stopped", "--resume") == 0
    assert copy.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()
    assert "measuring" not in copy.log.read_text()


def test_the_winners_folder_rebuilds_the_network(alone: RunDir) -> None:
    winner = alone.winner("1")
    architecture = read_json(winner.architecture_json)
    space = BENCHMARK_SPACES[architecture["space"]["name"]](
        architecture["space"]["input_size"], architecture["space"]["classes"]
    )
    genotype = from_named_choices(space, architecture["choices"])
    assert list(genotype) == architecture["genotype"]
    assert space.cost(genotype).params == architecture["costs"]["params"]
    network = space.build(genotype).eval()
    network.load_state_dict(load_file(winner.weights()))
    golden = np.load(winner.golden, allow_pickle=False)
    with torch.no_grad():
        outputs = network(torch.from_numpy(golden["images"])).numpy()
    assert np.abs(outputs - golden["logits"]).max() < 1e-4
    session = onnxruntime.InferenceSession(str(winner.onnx), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": golden["images"][:3]})
    assert np.abs(logits - golden["logits"][:3]).max() < 1e-3
    assert read_json(winner.metrics_json)["test/n"] == 355


def test_the_report_has_no_section_that_needs_a_supernet(alone: RunDir) -> None:
    page = alone.report_html.read_text()
    sections = [part[: part.index('"')] for part in page.split('<section id="')[1:]]
    order = ["winner", "belief", "search", "front", "effects", "score", "ranking", "training", "time", "run"]
    assert sections == order
    assert "24 candidates scored, 1 network retrained" in page
    assert "nor_conv" in page and "~0|+|" in page
    assert "az_trainability" in page and "of initial weights" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--score.proxies", "naswott"], "there is no proxy 'naswott'; did you mean naswot?"),
        (["--score.aggregation", "log_rank"], "there is no aggregation 'log_rank'; did you mean log_rank_sum?"),
        (["--limits.max-macs", "1000"], "no network was found that meets every limit; of the nearest one macs is"),
        (["--score.batch-size", "2000"], "the score reads 1 x 2000 training images, and there are 1442"),
        (["--space.input-size", "30"], "input_size is 30; it must be a positive multiple of 4"),
        (["--retrain.construction", "blend"], "can only begin with 'torch'"),
        (["--retrain.recipe.dropout", "0.2"], "networks of nasbench201 have none"),
        (["--seed", "-1"], "seed is -1"),
        (["--data", "nowhere"], "the data folder nowhere does not exist"),
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
    assert sentence in mistake_of(search, *QUICK, *arguments, "--run-dir=mistake")
    assert not (work / "mistake").exists()


def test_one_proxy_is_the_score_itself(
    work: Path, status_of: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    assert status_of(search, *QUICK, "--score.proxies", "naswot", "--run-dir=one") == 0
    rows = [row for row in read_jsonl(RunDir(work / "one").history_jsonl) if row["score"] is not None]
    assert rows and all(row["score"] == row["terms"]["naswot"] for row in rows)
    assert not RunDir(work / "one").score_json.exists()


def test_initial_weights_are_a_function_of_seed_and_genotype() -> None:
    space = NasBench201Space(8, 10)
    genotype = from_string("|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|skip_connect~1|none~2|")
    before = torch.get_rng_state()
    first, again, other = (initialised(space, genotype, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


def test_dead_edges_are_not_trained() -> None:
    """Edge 0>1 leads to a node that nothing reads: its weights get no gradient, which a training step would refuse."""
    space = NasBench201Space(8, 10)
    genotype = from_string("|nor_conv_1x1~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    network = benchmark_builder(space)(genotype, 0)
    assert network.training
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen and all(".edge01." in name for name in frozen)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    torch.autograd.grad(network(torch.randn(2, 3, 8, 8)).sum(), trained)


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_presets_draw_networks_under_their_limits(name: str) -> None:
    networks = BenchmarkNetworks(PRESETS[name](), 10)
    drawn = networks.sampler().draw(np.random.default_rng(0), 5)
    assert all(networks.sampler().is_legal(genotype) for genotype in drawn)
    if name == "zennas-cifar":
        assert all(networks.costs(genotype)["params"] <= 1e6 for genotype in drawn)


def test_every_limit_is_kept() -> None:
    limits = NetworkLimitsConfig(max_macs=4e7, min_macs=1e7, max_params=3e5, max_activation_mib=4.0)
    networks = BenchmarkNetworks(replace(PRESETS["nasbench201-cifar10"](), limits=limits), 10)
    for costs in map(networks.costs, networks.sampler().draw(np.random.default_rng(0), 40)):
        assert 1e7 <= costs["macs"] <= 4e7 and costs["params"] <= 3e5
        assert costs["activation_elements"] * 4 / 2**20 <= 4.0
    with pytest.raises(ImpossibleLimit):
        BenchmarkNetworks(replace(PRESETS["nasbench201-cifar10"](), limits=NetworkLimitsConfig(max_params=10)), 10)


def test_networks_are_written_as_their_authors_write_them() -> None:
    string = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert published_form(NasBench201Space(), from_string(string)) == string
    zen = ZenSpace()
    assert published_form(zen, from_structure(zen, ZENNETS["zennet-1M"])) == ZENNETS["zennet-1M"]
    darts = DartsSpace()
    genotype = darts.from_genotype(*DARTS_V2)
    fields = eval(published_form(darts, genotype), {"Genotype": dict})  # as the authors' code reads it
    assert darts.from_genotype(fields["normal"], fields["reduce"]) == genotype
    assert fields["normal_concat"] == fields["reduce_concat"] == [2, 3, 4, 5]
    nb101 = NasBench101Space()
    genotype = nb101.from_matrix([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "maxpool3x3", "output"])
    wanted = "ModelSpec(matrix=[[0, 1, 0], [0, 0, 1], [0, 0, 0]], ops=['input', 'maxpool3x3', 'output'])"
    assert published_form(nb101, genotype) == wanted


def test_images_are_shown_as_in_evaluation_alone() -> None:
    """Settings of a supernet's training are no settings here: they would be ignored."""
    names = set(to_json(ReadImagesConfig()))
    assert names == {"crop_ratio", "eval_batch_size", "on_bad_image", "num_threads"}
