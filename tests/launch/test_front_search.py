"""A search by NSGA-II with a latency table, from its command line to its front; and its promises when it is stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from subshot.launch import retrain, search
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.contenders import searched
from subshot.launch.clicks.domain import ClickNetworks
from subshot.launch.config import SpaceConfig, TrainingFreeConfig
from subshot.launch.domain import Networks, read_config, require_costs
from subshot.launch.explore import replayed
from subshot.launch.front import Found, front_summary
from subshot.launch.latency_tables.table import table_record
from subshot.launch.presets import PRESETS
from subshot.launch.reports.record import stage_seconds
from subshot.launch.training_free.space import BenchmarkNetworks
from subshot.launch.vision.build import make_space
from subshot.launch.vision.domain import VisionNetworks
from subshot.search.evolution import EvolutionConfig, State, init
from subshot.search.front import front_of
from subshot.search.history import Candidate, History
from subshot.search.methods import method_of
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.space import Additive
from subshot.train.run_dir import RunDir, file_digest, read_json, read_jsonl

QUICK = [
    "digits",
    "--data=images",
    "--space.width=0.125",
    "--images.batch-size=32",
    "--images.search-fraction=0.2",
    "--warmup.recipe.epochs=0",
    "--score.kind=one_shot",
    "--score.calibration-images=32",
    "--limits.max-macs=1.5e6",
    "--limits.max-latency-ms=6",
    "--limits.latency-table=latency.json",
    "--evolution.method=nsga2",
    "--evolution.costs=latency_ms",
    "--evolution.budget=32",
    "--evolution.population=8",
    "--evolution.sample=4",
    "--evolution.best=4",
]
SPACE = nasbench_macro(32, 10, 0.125)
LATENCY = Additive(1.0, ((0.1, 1.0, 2.0), *((0.0 if i in (1, 3, 4, 6, 7) else 0.2, 0.9, 1.5) for i in range(1, 8))))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, few_digits: Callable[..., Path]) -> Path:
    """A folder with images/, some of the handwritten digits, and latency.json."""
    folder = tmp_path_factory.mktemp("front")
    few_digits(folder / "images")
    (folder / "latency.json").write_text(json.dumps(table_record(SPACE, LATENCY, {})))
    return folder


@pytest.fixture(scope="module")
def alone(work: Path, status_of: Callable[..., int]) -> RunDir:
    """An undisturbed run of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        assert status_of(search, *QUICK, "--run-dir=alone") == 0
    return RunDir(work / "alone")


def points_of(networks: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(network["score"], network["costs"]["latency_ms"]) for network in networks]


def test_rows_have_their_latency_and_meet_the_limits(alone: RunDir) -> None:
    rows = read_jsonl(alone.history_jsonl)
    assert [row["method"] for row in rows] == ["nsga2"] * 32 + ["random"] * 32
    for row in rows:
        assert row["costs"]["latency_ms"] == LATENCY(tuple(row["genotype"])) <= 6.0
        assert row["costs"]["macs"] == SPACE.cost(tuple(row["genotype"])).macs <= 1.5e6
    children = [row for row in rows if row["parents"]]
    assert children and {row["method"] for row in children} == {"nsga2"}


def test_whoever_reads_of_the_run_reads_of_nsga2(alone: RunDir) -> None:
    """History, state, summary, log and report; `evolution` alone is the name of another method."""
    found, log = read_json(alone.summary_json), alone.log.read_text()
    assert set(read_json(alone.state_json)) == set(found["best_of"]) == set(found["digests"]) == {"nsga2", "random"}
    assert f"winner, by {found['best'][0]['method']}: " in log
    assert "nsga2: best score" in log and "evolution: " not in log and "by evolution:" not in log
    words = re.sub(r"<(svg|style).*?</\1>|<[^>]+>", "", alone.report_html.read_text(), flags=re.DOTALL)
    assert "NSGA-II: 32 candidates" in words and "After 32 candidates each, NSGA-II" in words
    assert "The search beside random search is NSGA-II" in words
    assert "evolution" not in re.sub(r"evolution[.]\w+", "", words)  # but in the names of settings
    assert stage_seconds(["[    0.0 s] begun", "[    2.0 s] nsga2: best score 1"]) == {"NSGA-II": 2.0}


def test_validation_of_clicks_chooses_among_the_front(alone: RunDir) -> None:
    summary = read_json(alone.summary_json)
    first, second, _ = searched(summary, top=2, controls=1)
    for found, method in ((first, "nsga2"), (second, "random")):
        wanted = [tuple(network["genotype"]) for network in summary["best_of"][method][:2]]
        assert [contender.genotype for contender in found] == wanted


def test_the_latency_table_is_kept_for_the_report(work: Path, alone: RunDir) -> None:
    assert read_json(alone.latency_table_json) == read_json(work / "latency.json")
    assert "Latencies are sums over a table that does not say on what" in alone.report_html.read_text()


def test_the_front_is_that_of_everything_scored(alone: RunDir) -> None:
    rows, found = read_jsonl(alone.history_jsonl), read_json(alone.summary_json)
    points = points_of(rows)
    wanted = [tuple(rows[i]["genotype"]) for i in front_of(points)]
    assert [tuple(network["genotype"]) for network in found["front"]] == wanted and len(wanted) > 3
    assert found["front_costs"] == ["latency_ms"]
    assert set(found["front"][0]) == {"method", "genotype", "choices", "hash", "score", "costs"}
    assert all(0.0 <= share <= 1.0 for share in found["front_shares"].values())
    assert set(found["front_shares"]) == {"nsga2", "random"}


def test_the_winner_has_the_best_score_and_the_next_are_spread_over_the_front(alone: RunDir) -> None:
    found = read_json(alone.summary_json)
    assert found["best"][0] == found["front"][0] and found["best"][1] == found["front"][-1]
    assert len(found["best"]) == 4 and all(network in found["front"] for network in found["best"])
    assert found["best"][0]["score"] == max(row["score"] for row in read_jsonl(alone.history_jsonl))
    for method, networks in found["best_of"].items():
        assert {network["method"] for network in networks} == {method} and 1 <= len(networks) <= 4


def test_what_is_retrained_is_the_best_list(
    work: Path, alone: RunDir, status_of: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    assert status_of(retrain, "alone", "--top=3", "--controls=1", "--freeze") == 0
    elements = read_json(alone.manifest_json)["elements"]
    best = read_json(alone.summary_json)["best"]
    assert [element["genotype"] for element in elements][:3] == [network["genotype"] for network in best[:3]]
    assert [element["role"] for element in elements] == ["winner"] * 3 + ["control"]


def test_two_processes_give_the_same_bytes(work: Path, alone: RunDir, launched: Callable[..., Any]) -> None:
    done = launched("search", *QUICK, "--run-dir=two", folder=work, processes=2)
    assert done.returncode == 0, done.stderr
    two = RunDir(work / "two")
    assert two.history_jsonl.read_bytes() == alone.history_jsonl.read_bytes()
    assert done.stdout.split()[-1] == file_digest(alone.history_jsonl)
    theirs, ours = read_json(two.summary_json), read_json(alone.summary_json)
    assert (theirs["front"], theirs["digests"]) == (ours["front"], ours["digests"])


@pytest.mark.parametrize("state", ["saved", "damaged", "of an earlier version"])
def test_it_goes_on_where_it_was(
    state: str,
    work: Path,
    alone: RunDir,
    tmp_path: Path,
    status_of: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After two of four generations and a torn line, with the state of then, or with one that is no JSON. Earlier
    versions filed every method as evolution; a run that one of them began goes on so."""
    monkeypatch.chdir(work)
    copy = RunDir(tmp_path / "copy")
    copy.root.mkdir()
    for path in alone.root.iterdir():
        if path.is_file() and path not in (alone.summary_json, alone.report_html, alone.manifest_json):
            (copy.root / path.name).write_bytes(path.read_bytes())
    lines = alone.history_jsonl.read_text().splitlines(keepends=True)
    rows = read_jsonl(alone.history_jsonl)
    config: Any = read_config(alone)
    networks = VisionNetworks(config, 10)
    method = method_of(config.evolution, networks.sampler(), networks.costs)
    half = replayed(method, init(config.seed), [Candidate.from_json(row) for row in rows[:16]])
    assert half.evaluated == 16 and half.generation == 2
    name = "evolution" if state == "of an earlier version" else "nsga2"
    copy.history_jsonl.write_text(("".join(lines[:16]) + lines[16][:20]).replace("nsga2", name))
    copy.state_json.write_text("{" if state == "damaged" else json.dumps({name: half.to_json()}))
    assert status_of(search, *QUICK, f"--run-dir={copy.root}", "--resume") == 0
    assert copy.history_jsonl.read_text() == alone.history_jsonl.read_text().replace("nsga2", name)
    assert copy.summary_json.read_text() == alone.summary_json.read_text().replace("nsga2", name)


def test_another_table_is_another_run(
    work: Path, alone: RunDir, mistake_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    (work / "latency.json").rename(work / "kept.json")
    try:
        slower = Additive(2.0, LATENCY.table)
        (work / "latency.json").write_text(json.dumps(table_record(SPACE, slower, {})))
        assert "--accept data.latency_table" in mistake_of(search, *QUICK, "--run-dir=alone", "--resume")
    finally:
        (work / "kept.json").rename(work / "latency.json")


def test_a_cost_that_is_not_known_is_refused_before_the_run(
    work: Path, mistake_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    without = [word for word in QUICK if "latency" not in word]
    said = mistake_of(search, *without, "--evolution.costs=latency_ms", "--run-dir=refused")
    assert "evolution.costs has latency_ms" in said and "add --limits.latency-table FILE" in said
    assert not (work / "refused").exists()


def test_the_plan_says_what_is_searched(
    work: Path, status_of: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    assert status_of(search, *QUICK, "--run-dir=planned", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "32 candidates each for NSGA-II (score up, latency_ms down) and the random control" in said
    assert "max_latency_ms 6" in said and not (work / "planned").exists()


def test_the_optimum_may_lead_the_front_and_shares_are_of_the_joint_one() -> None:
    """Three candidates of each method, and a network that nobody scored; costs and scores stand in the genotype."""

    def state(*points: tuple[int, int]) -> State:
        return State(0, history=History(Candidate(i, 0, p, (), float(p[0])) for i, p in enumerate(points)))

    states = {"evolution": state((8, 6), (4, 2), (3, 3)), "random": state((8, 6), (4, 4), (0, 0))}
    front = front_summary(("macs",), states, [Found("optimum", (10, 10), 10.0)], lambda g: {"macs": float(g[1])})
    assert [(one.method, one.genotype) for one in front.networks] == [
        ("optimum", (10, 10)),
        ("evolution", (8, 6)),
        ("evolution", (4, 2)),
        ("random", (0, 0)),
    ]
    assert [one.genotype for one in front.chosen["best"][:2]] == [(10, 10), (0, 0)]
    assert [one.genotype for one in front.chosen["random"]] == [(8, 6), (0, 0), (4, 4)]
    whole = 11 * 1 + 9 * 4 + 5 * 4 + 1 * 2  # down to score -1, up to cost 11, in strips between the costs
    assert front.shares["evolution"] == pytest.approx((9 * 5 + 5 * 4) / whole)
    assert front.shares["random"] == pytest.approx((9 * 5 + 5 * 2 + 1 * 4) / whole)


@pytest.mark.parametrize("kind", ["training_free", "clicks"])
def test_other_domains_search_fronts_of_the_costs_that_they_know(kind: str) -> None:
    """Their costs are no sums over decisions, and their samplers reject or walk."""
    evolution = EvolutionConfig(method="nsga2", costs=("params", "macs"), budget=24, population=8, sample=1)
    networks: Networks
    if kind == "clicks":
        clicks = PRESETS["nasrec-small-criteo"]()
        assert isinstance(clicks, ClickConfig)
        clicks = replace(clicks, evolution=evolution, space=replace(clicks.space, blocks=3))
        config, networks = clicks, ClickNetworks(clicks, 13, 26)
    else:
        free = PRESETS["zennas-cifar"]()
        assert isinstance(free, TrainingFreeConfig)
        free = replace(free, evolution=evolution)
        config, networks = free, BenchmarkNetworks(free, 10)
    require_costs(config, networks)
    sampler = networks.sampler()
    method, state = method_of(evolution, sampler, networks.costs), init(0)
    while proposals := method.ask(state):
        state = method.tell(state, proposals, [float(sum(proposal.genotype)) for proposal in proposals])
    assert len({c.genotype for c in state.history}) == 24 and all(sampler.is_legal(c.genotype) for c in state.history)
    assert any(c.parents for c in state.history)
    slow = replace(config, evolution=replace(evolution, costs=("latency_ms",)))
    with pytest.raises(ValueError, match="has latency_ms, which is not known of these networks; choose from macs, par"):
        require_costs(slow, networks)


def test_the_table_is_of_the_space_that_is_searched() -> None:
    assert make_space(SpaceConfig("nasbench-macro", 32, 0.125), 10) == SPACE
