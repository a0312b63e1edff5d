"""The report of a CTR run whose search comes from the real code on random batches; retraining's figures are made up."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from subshot.launch.clicks import findings as click_findings
from subshot.launch.clicks.block_graph import block_graph, dense_reads_in_words, reads, rows_of, wires
from subshot.launch.clicks.domain import ClickNetworks
from subshot.launch.clicks.report import CLICK_ENDINGS, SECTIONS
from subshot.launch.clicks.scoring import Sigeo, measured_population
from subshot.launch.config import to_json
from subshot.launch.domain import Scorer
from subshot.launch.explore import explore
from subshot.launch.presets import PRESETS
from subshot.launch.report import REPORTS, report_for, write_report
from subshot.launch.reports.page import Html
from subshot.launch.reports.record import read_record, stage_seconds
from subshot.launch.run_log import RunLog
from subshot.launch.vision.report import REPORT as VISION_REPORT
from subshot.proxies.base import Probe
from subshot.proxies.sigeo import SigeoWeights, moments_of
from subshot.search.evaluator import Cached, FunctionEvaluator
from subshot.search.evolution import EvolutionConfig
from subshot.search.ranking import kendall
from subshot.supernet.nasrec import nasrec_full, nasrec_small
from subshot.supernet.nasrec_spec import BlockSpec, NasrecSpec, pruned
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.train.dist import World
from subshot.train.run_dir import RunDir, read_json, read_jsonl, write_json

DENSE, FIELDS, BUDGET = 5, 4, 24
DATA = "clicks: SYNTHETIC criteo, protocol nasrec; rows: 160 train, 20 val, 20 test; 5 dense and 4 categorical fields"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished search, nothing retrained."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "clicks")
    config = PRESETS["clicks"]()
    settings = EvolutionConfig(budget=BUDGET, population=8, sample=4, children=4, mutations=2.0, best=3, controls=3)
    space = replace(config.space, blocks=3, max_dense_dim=32, max_sparse_dim=16)
    config = replace(config, space=space, evolution=settings)
    world = World(0, 1, torch.device("cpu"))
    networks = ClickNetworks(config, DENSE, FIELDS)
    generator = torch.Generator().manual_seed(0)
    supernet = NasrecSupernet(networks.space, generator)
    batches = []
    for _ in range(3):
        inputs = (torch.rand(16, DENSE, generator=generator), torch.rand(16, FIELDS, 16, generator=generator))
        batches.append((inputs, torch.randint(0, 2, (16,), generator=generator).float()))
    probe = Probe(tuple(batches), F.binary_cross_entropy_with_logits, 0)
    silent = RunLog(run, is_main=False)
    moments = moments_of(measured_population(supernet, probe, networks.sampler(), 8, 0, world, silent))
    write_json(run.config_json, to_json(config))
    write_json(run.environment_json, {"python": "3.11", "processes": 1})
    write_json(run.score_json, asdict(moments))
    write_json(run.data_json, {"dense_features": DENSE, "sparse_fields": FIELDS})
    scorer = Scorer("sigeo", Cached(FunctionEvaluator(Sigeo(supernet, probe, moments, SigeoWeights()))), None)
    with RunLog(run, True) as log:
        log.line("clicks: 1 process(es) on cpu; run folder runs/clicks")
        log.line(DATA)
        for step in (10, 20):
            values = {"epoch": 0, "train/loss": 6.0 / step, "learning_rate": 0.1, "rows_per_second": 4321.0}
            log.numbers("warmup", step, values)
        explore(config, networks, scorer, world, run, log)
    return run


def estimate(value: float, n: int = 2, half: float = 0.001) -> dict[str, Any]:
    return {"n": n, "mean": value, "sd": half, "low": value - half, "high": value + half}


def row_of(name: str, role: str, loss: float, beside: tuple[float, float, float] | None) -> dict[str, Any]:
    row = {
        "name": name,
        "role": role,
        "learning_rate": 0.1,
        "trainings": 2,
        "params": 4321,
        "macs": 54321 if role != "baseline" else None,
        "val/log_loss": loss,
        "test/log_loss": estimate(loss),
        "test/auc": estimate(1 - loss / 2),
        "test/normalised_entropy": estimate(1.5 * loss),
        "test/ece": estimate(0.0123),
    }
    keys = ("log_loss", "low", "high")
    return row if beside is None else row | {"beside_winner": dict(zip(keys, beside, strict=True))}


def trial(name: str, role: str, genotype: list[int] | None, loss: float | None, tested: bool = False) -> dict[str, Any]:
    split = "test" if tested else "val"
    settings = {"genotype": genotype, "learning_rate": 0.1, "seed": 0, "tested": tested}
    record = {"name": name, "contender": name, "role": role, "settings": settings, "diverged": None}
    if loss is None:
        return record | {"diverged": "step 3: the loss is nan"}
    shares = {"value": loss, "low": loss - 0.01, "high": loss + 0.01}
    return record | {f"{split}/log_loss": shares, f"{split}/auc": shares | {"value": 0.75}}


def retrained_copy(searched: RunDir, folder: Path) -> RunDir:
    """Validation took the second by score."""
    run = RunDir(shutil.copytree(searched.root, folder / "clicks"))
    best = read_json(run.summary_json)["best"]
    chosen = best[1]["genotype"]
    write_json(run.winner("1").metrics_json, trial("rank-2", "winner", chosen, 0.4321, tested=True))
    sizes = {"dense_features": DENSE, "sparse_fields": FIELDS}
    write_json(run.winner("1").architecture_json, {"space": sizes, "genotype": chosen})
    for rank, (found, loss) in enumerate(zip(best[:2], (0.45, 0.44), strict=True), start=1):
        write_json(run.trial_json(f"rank-{rank}"), trial(f"rank-{rank}", "winner", found["genotype"], loss))
    write_json(run.trial_json("random-1"), trial("random-1", "control", chosen, 0.46))
    write_json(run.trial_json("ranked-0"), trial("ranked-0", "control", chosen, 0.46))
    write_json(run.trial_json("fm"), trial("fm", "baseline", None, None))
    networks = [
        row_of("rank-2", "winner", 0.4321, None),
        row_of("random-1", "control", 0.4444, (0.0123, 0.0101, 0.0145)),
        row_of("logistic_regression", "baseline", 0.4242, (-0.0079, -0.0099, -0.0059)),
        row_of("fm", "baseline", 0.4331, (0.001, -0.0011, 0.0031)),
    ]
    known = {"test_rows": 20000, "base_rate": 0.25, "bayes_log_loss": 0.3987, "synthetic": True}
    write_json(run.comparison_json, known | {"networks": networks})
    return run


@pytest.fixture(scope="module")
def retrained(searched: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """To be read, not changed."""
    return retrained_copy(searched, tmp_path_factory.mktemp("retrained"))


@pytest.fixture(scope="module")
def page(retrained: RunDir) -> str:
    return page_of(retrained)


def page_of(run: RunDir) -> str:
    return write_report(run).read_text(encoding="utf-8")


def words_of(html: str) -> str:
    """Text alone, of the body: no markup, no styles, no names of SVG ids."""
    body = re.sub(r"<style.*?</style>", " ", html[html.index("<main>") :], flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body).replace("&#x27;", "'"))


def test_every_section_is_there_with_its_pictures(page: str) -> None:
    sections = {part[: part.index('"')]: part for part in page.split('<section id="')[1:]}
    assert list(sections) == [anchor for anchor, _, _ in SECTIONS]
    counts = {anchor: part.count("<svg ") for anchor, part in sections.items()}
    assert counts == {
        "winner": 1,
        "tested": 2,
        "belief": 0,
        "search": 1,
        "front": 3,
        "effects": 1,
        "terms": 4,
        "ranking": 0,
        "training": 3,
        "time": 1,
        "run": 0,
    }
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_nothing_on_it_is_of_images(page: str) -> None:
    assert "image" not in words_of(page).lower()
    assert "mathdefault" not in page and "nan" not in words_of(page).split()


def test_it_has_the_figures_of_the_comparison(page: str) -> None:
    words = words_of(page)
    for figure in ("0.4321", "0.4444", "0.4242", "0.4331", "0.7840", "0.3987"):
        assert figure in words
    assert "0.4311 to 0.4331" in words
    assert "winner (rank 2 by score)" in words
    assert "Beside random 1: better; the winner's log loss is 0.0123 below its (0.0101 to 0.0145)." in words
    assert "Beside logistic regression: worse; the winner's log loss is 0.0079 above its (0.0059 to 0.0099)." in words
    assert "Beside fm: not told apart; its log loss minus the winner's is −0.0011 to +0.0031." in words
    blind = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    assert f"is {0.3987:.4f}; the winner is {0.4321 - 0.3987:.4f} above it" in words
    assert f"the winner has gone {100 * (blind - 0.4321) / (blind - 0.3987):.1f} %" in words
    assert "SYNTHETIC clicks, drawn from a known model" in words
    assert (
        f"The search is over: {2 * BUDGET} candidates scored, 4 networks retrained. The clicks are SYNTHETIC." in words
    )


def test_it_says_how_the_winner_was_chosen(page: str) -> None:
    words = words_of(page)
    assert "chose the winner among 2 of evolution" in words
    assert "The winner is number 2 of these by score" in words
    assert "only 3 networks of it were trained from scratch" in words
    assert "diverged diverged" in words
    assert "ranked-0" not in words


def test_the_winner_is_the_one_that_was_handed_over(retrained: RunDir, searched: RunDir) -> None:
    record = read_record(retrained)
    assert record.winner is not None and record.winner["genotype"] == record.winners[0]["settings"]["genotype"]
    assert record.winner["score"] == record.summary["best"][1]["score"]
    before = read_record(searched)
    assert before.winner is not None and before.winner["score"] == before.summary["best"][0]["score"]


def test_the_terms_are_correlated_over_random_candidates_alone(searched: RunDir, page: str) -> None:
    rows = [row for row in read_jsonl(searched.history_jsonl) if row["method"] == "random"]
    shown = {quantity.name: quantity for quantity in click_findings.quantities(read_record(searched))}
    assert list(shown) == ["ZiCo", "Fisher-Rao", "loss, negated", "score"]
    moments = read_json(searched.score_json)
    assert shown["Fisher-Rao"].mean == moments["log_fisher_rao"]["mean"]
    words = words_of(page)
    for key in ("params", "macs", "num_modules"):
        wanted = kendall([row["costs"][key] for row in rows], [-row["terms"]["loss"] for row in rows])
        assert click_findings.tau_text(wanted) in words
        assert click_findings.tau(shown["loss, negated"].values, [row["costs"][key] for row in rows]) == wanted


def test_the_same_files_give_the_same_bytes(searched: RunDir, page: str, tmp_path: Path) -> None:
    assert page_of(retrained_copy(searched, tmp_path)) == page


def test_a_search_that_is_not_retrained_says_so(searched: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(searched.root, tmp_path / "run"))
    words = words_of(page_of(run))
    assert "No network has been tested yet" in words
    assert "The best so far, by score" in words
    assert "dense input 5 wide" in words and "4 tokens × 16" in words


@pytest.mark.parametrize(
    "gone",
    [
        ("comparison.json", "summary.json", "winners"),
        ("history.jsonl", "metrics.jsonl", "trials"),
        ("logs", "winners", "score.json"),
        (
            "summary.json",
            "history.jsonl",
            "metrics.jsonl",
            "logs",
            "winners",
            "trials",
            "comparison.json",
            "score.json",
        ),
    ],
)
def test_a_missing_file_is_no_error(searched: RunDir, tmp_path: Path, gone: tuple[str, ...]) -> None:
    run = retrained_copy(searched, tmp_path)
    for name in gone:
        path = run.root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    assert "What to believe" in words_of(page_of(run))


def test_a_run_in_mid_search_has_a_page(searched: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(searched.root, tmp_path / "run"))
    run.summary_json.unlink()
    lines = run.history_jsonl.read_text().splitlines(keepends=True)[:5]
    run.history_jsonl.write_text("".join(lines) + '{"index": 9, "meth')
    words = words_of(page_of(run))
    assert "The search is not over: 5 candidates scored, no network retrained." in words
    assert "Random search has scored fewer than ten candidates" in words


def test_a_ranking_is_shown_where_there_is_one(
    searched: RunDir, tmp_path: Path, ranking_of: Callable[..., dict[str, Any]]
) -> None:
    run = retrained_copy(searched, tmp_path)
    write_json(run.ranking_json, ranking_of((0.41, 0.2, 0.6), {"params": (0.47, 0.25, 0.65)}, metric="val/log_loss"))
    words = words_of(page_of(run))
    assert "12 networks over the whole range of the score were trained from scratch, twice each." in words
    assert "Highest: parameters, tau +0.47" in words
    assert "+0.41 +0.20 to +0.60" in words
    assert "is not known from this run" not in words


def test_a_ranking_of_another_version_is_to_be_measured_anew(searched: RunDir, tmp_path: Path) -> None:
    run = retrained_copy(searched, tmp_path)
    write_json(run.ranking_json, {"networks": 30, "seeds": 2, "scores": {"sigeo": {"kendall": 0.41}}})
    assert "ranking.json is of another version of subshot" in words_of(page_of(run))


def test_a_score_without_terms_has_its_correlations(searched: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(searched.root, tmp_path / "run"))
    run.score_json.unlink()
    rows = [{key: row[key] for key in row if key != "terms"} for row in read_jsonl(run.history_jsonl)]
    run.history_jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "This score has no terms." in words_of(page_of(run))


def test_the_configuration_decides_which_page(searched: RunDir) -> None:
    clicks = read_json(searched.config_json)
    assert report_for(clicks).sections is SECTIONS
    assert report_for({name: clicks[name] for name in clicks if name != "seed"}).sections is SECTIONS
    for preset in PRESETS.values():
        assert report_for(to_json(preset())) is REPORTS[type(preset())]()
    assert report_for({}) is VISION_REPORT


def test_wires_that_pass_one_another_have_lanes_of_their_own() -> None:
    for seed in range(30):
        space = nasrec_full(DENSE, FIELDS)
        spec = space.decode(space.draw(random.Random(seed), "uniform"))
        place = {block: row for row, block in enumerate(rows_of(spec))}
        for side in ("dense", "sparse"):
            found = wires(spec, side)
            for first in found:
                for second in found:
                    apart = place[first.ends[-1]] < place[second.start] or place[second.ends[-1]] < place[first.start]
                    assert first is second or apart or first.lane != second.lane
            drawn = {(wire.start, end) for wire in found for end in wire.ends}
            for block in list(place)[1:]:
                for source in reads(spec.blocks[block - 1], side):
                    assert (source, block) in drawn or place[block] - place[source] == 1


def test_what_the_classifier_does_not_depend_on_is_not_drawn() -> None:
    chain = {"dense_ops": ("fc",), "dense_dim": 16, "sparse_ops": ("efc",), "sparse_dim": 16}
    read = {1: (0,), 2: (1,), 3: (1,)}
    blocks = tuple(BlockSpec(**chain, dense_in=read[k], sparse_in=read[k]) for k in (1, 2, 3))
    spec = pruned(NasrecSpec(DENSE, FIELDS, 16, blocks))
    assert rows_of(spec) == [0, 1, 3]
    svg = block_graph(spec)
    assert svg.count(">FC<") == 2 and svg.count(">EFC<") == 2
    assert f">{16 + 16 * 16} inputs, 1 logit<" in svg


def test_dense_inputs_in_words() -> None:
    assert dense_reads_in_words(BlockSpec(dense_ops=("sum",), left=(0,), right=(2,))) == "0, 2"
    assert dense_reads_in_words(BlockSpec(dense_ops=("fc",), dense_in=(0, 2))) == "0+2"
    assert dense_reads_in_words(BlockSpec(dense_ops=("dot_product",), sparse_in=(0,))) == "nothing"


def test_data_without_dense_features_have_a_graph() -> None:
    space = nasrec_small(0, FIELDS, 3)
    spec = space.decode(space.draw(random.Random(0)))
    assert "dense input" not in block_graph(spec)


def test_seconds_go_to_the_stages_of_a_ctr_run() -> None:
    lines = [
        "[    0.0 s] clicks: 2 process(es) on cpu; run folder runs/clicks",
        "[    1.0 s] clicks: SYNTHETIC criteo, protocol nasrec",
        "[    3.0 s] supernet: 0.3 M weights",
        "[    8.0 s] warm: mean loss 0.9",
        "[   10.0 s] score: sigeo",
        "[   11.0 s] winner, by evolution: fc",
        "[    4.0 s] rank-1-lr0.1-seed0: val log loss 0.3383, AUC 0.8932",
        "[    6.0 s] rank-1-lr0.3-seed0: diverged (step 3: the loss is nan)",
    ]
    assert stage_seconds(lines, CLICK_ENDINGS) == {
        "opening the clicks": 1.0,
        "building the supernet": 2.0,
        "warm-up": 5.0,
        "preparing the score": 2.0,
        "random networks of the winner's cost": 1.0,
        "training from scratch and export": 6.0,
    }


def test_text_from_files_cannot_become_markup(searched: RunDir, tmp_path: Path) -> None:
    run = retrained_copy(searched, tmp_path)
    hostile = "<script>alert(1)</script>"
    comparison = read_json(run.comparison_json)
    comparison["networks"][1]["name"] = hostile
    write_json(run.comparison_json, comparison)
    html = page_of(run)
    assert "<script" not in html and Html("&lt;script&gt;") in html
