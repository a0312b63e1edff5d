"""The report of a run whose search, spectra and indicators come from the real code; retraining's are made up."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from subshot.launch.config import LimitsConfig, SpaceConfig, SupernetConfig, to_json
from subshot.launch.domain import Scorer
from subshot.launch.explore import explore
from subshot.launch.presets import PRESETS
from subshot.launch.report import write_report
from subshot.launch.reports.findings import methods
from subshot.launch.reports.page import table, text
from subshot.launch.reports.record import read_record, stage_seconds
from subshot.launch.run_log import RunLog
from subshot.launch.vision.build import make_space, make_supernet
from subshot.launch.vision.domain import VisionNetworks, indicators_record
from subshot.launch.vision.report import SECTIONS
from subshot.launch.vision.spectra import measure_spectra
from subshot.search.evaluator import AdditiveEvaluator
from subshot.search.evolution import EvolutionConfig
from subshot.supernet import spectrum
from subshot.supernet.indicators import indicator_score, read_indicators
from subshot.train.dist import World
from subshot.train.run_dir import RunDir, read_json, read_jsonl, write_json

VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunDir:
    """A run on the NAS-Bench-Macro space by the indicator, its supernet's scales drawn instead of trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrum, "MEASURED_ELEMENTS", 5_000)  # less exact, and quick
        return make_run(tmp_path_factory)


def make_run(tmp_path_factory) -> RunDir:
    run = RunDir(tmp_path_factory.mktemp("runs") / "macro")
    config = PRESETS["macro-cifar10"]()
    config = replace(
        config,
        space=SpaceConfig("nasbench-macro", input_size=8, width=0.125),
        score=replace(config.score, kind="indicator"),
        limits=LimitsConfig(max_macs=1.3e5),
        supernet=SupernetConfig("kaiming"),
        evolution=EvolutionConfig(budget=40, population=12, sample=4, children=7),
    )
    world = World(0, 1, torch.device("cpu"))
    space = make_space(config.space, 10)
    supernet = make_supernet(config.supernet, space, config.seed, world.device)
    write_json(run.config_json, to_json(config))
    write_json(run.environment_json, {"python": "3.11", "packages": {"torch": "2.13.0"}, "processes": 1})
    spectra = {"initial": measure_spectra(supernet, 0)}
    generator = torch.Generator().manual_seed(0)
    for module in supernet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.mul_(1 + 0.3 * torch.rand(module.weight.shape, generator=generator))
    write_json(run.spectrum_json, spectra | {"trained": measure_spectra(supernet, 0)})
    write_json(run.indicators_json, indicators_record(config, supernet))
    additive = indicator_score(read_indicators(supernet), "block_sum")
    scorer = Scorer("block_sum of mean_abs gamma", AdditiveEvaluator(additive), additive)
    with RunLog(run, True) as log:
        log.line(
            "images: 1082 to train on, 360 held out of train to score subnets, 355 untouched for the test; 10 classes"
        )
        for step in (1, 2, 3):
            log.numbers("warmup", step, {"epoch": 0, "train/loss": 2.5 / step, "gamma_movement": 0.1 * step})
            log.numbers("retrain/1", step, {"epoch": step, "train/loss": 2.0 / step})
            log.numbers("retrain/random-1", step, {"epoch": step, "train/loss": 2.2 / step})
        explore(config, VisionNetworks(config, 10), scorer, world, run, log)
    with run.log.open("a") as file:
        file.write("[    9.0 s] report: whose time is drawn, however quick this machine is\n")
    return run


def retrained_copy(finished: RunDir, folder: Path) -> RunDir:
    run = RunDir(shutil.copytree(finished.root, folder / "macro"))
    for name, role, accuracy in (("1", "winner", 0.9), ("random-1", "control", 0.8), ("random-2", "control", 0.88)):
        interval = [accuracy - 0.03, accuracy + 0.03]
        figures = {"test/accuracy": accuracy, "test/n": 355, "test/interval_95": interval}
        write_json(run.winner(name).metrics_json, {"name": name, "role": role, "epochs": 3, **figures})
    return run


@pytest.fixture(scope="module")
def retrained(finished: RunDir, tmp_path_factory) -> RunDir:
    """To be read, not changed."""
    return retrained_copy(finished, tmp_path_factory.mktemp("retrained"))


@pytest.fixture(scope="module")
def page(retrained: RunDir) -> str:
    return page_of(retrained)


def page_of(run: RunDir) -> str:
    return write_report(run).read_text(encoding="utf-8")


class Strict(HTMLParser):
    """Fails on a tag that is closed out of turn; collects attributes, ids and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_every_section_is_there_with_its_pictures(page: str) -> None:
    parsed = Strict(page)
    sections = {part[: part.index('"')]: part for part in page.split('<section id="')[1:]}
    assert list(sections) == [anchor for anchor, _, _ in SECTIONS]
    counts = {anchor: part.count("<svg ") for anchor, part in sections.items()}
    assert counts == {
        "winner": 2,
        "belief": 0,
        "search": 1,
        "ranking": 0,
        "front": 3,
        "effects": 1,
        "indicators": 1,
        "isometry": 4,
        "training": 3,
        "time": 1,
        "run": 0,
    }
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_its_words_are_those_of_the_run(retrained: RunDir, page: str) -> None:
    words = Strict(page).words
    summary = read_json(retrained.summary_json)
    best = {
        method: max(row["score"] for row in read_jsonl(retrained.history_jsonl) if row["method"] == method)
        for method in ("evolution", "random")
    }
    assert f"evolution is {best['evolution'] - best['random']:.3g} above random search" in words
    assert f"The exact optimum under the limits scores {summary['optimum']['score']:.6g}." in words
    assert f"{100 * summary['random_regret']:.3g} % below the exact optimum" in words
    for choice in summary["best"][0]["choices"].split():
        assert choice in words
    assert "6.0 points above the mean of 2 random networks of its cost; 1 of 2 intervals lie apart" in words
    assert "84.0 to 93.0" not in words and "87.0 to 93.0" in words
    assert "The search is over: 80 candidates scored, 3 networks retrained." in words
    assert "1082 to train on, 360 held out" in words
    initial = read_json(retrained.spectrum_json)["initial"]
    inside = sum(0.95 <= row["phi"] <= 1.05 for row in initial)
    assert f"At initialisation, {inside} of {len(initial)} candidates have phi within 1 ± 0.05" in words


def test_nothing_is_fetched_and_nothing_runs(page: str) -> None:
    parsed = Strict(page)
    assert "script" not in parsed.tags and "link" not in parsed.tags and "image" not in parsed.tags
    targets = [value for name, value in parsed.attributes if name in ("href", "src", "xlink:href")]
    assert targets and all(target.startswith("#") for target in targets)
    ids = {value for name, value in parsed.attributes if name == "id"}
    assert {target[1:] for target in targets} <= ids
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert not any(name.startswith("on") for name, _ in parsed.attributes)


def test_the_same_files_give_the_same_bytes(finished: RunDir, retrained: RunDir, page: str, tmp_path: Path) -> None:
    assert page_of(retrained_copy(finished, tmp_path)) == page


def test_a_section_without_its_file_says_so(finished: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(finished.root, tmp_path / "run"))
    for path in (run.indicators_json, run.spectrum_json, run.metrics_jsonl, run.history_jsonl, run.log):
        path.unlink()
    words = Strict(page_of(run)).words
    assert "The indicators are read off the supernet when its training is over; it is not." in words
    assert "No spectrum has been measured yet." in words
    assert "Nothing has been trained yet." in words
    assert "No candidate has been scored yet." in words
    assert "It has not been retrained" in words


def test_a_run_in_mid_search_shows_the_best_so_far(finished: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(finished.root, tmp_path / "run"))
    run.summary_json.unlink()
    lines = run.history_jsonl.read_text().splitlines(keepends=True)[:9]
    run.history_jsonl.write_text("".join(lines) + '{"index": 9, "meth')
    parsed = Strict(page_of(run))
    best = max(row["score"] for row in read_jsonl(run.history_jsonl))
    assert "The search is not over: 9 candidates scored, no network retrained." in parsed.words
    assert "The best so far: " in parsed.words
    assert f"Evolution: 9 candidates, best score {best:.6g}." in parsed.words
    assert "random search have" not in parsed.words


def test_a_folder_with_nothing_in_it_has_a_report_and_a_missing_one_has_not(tmp_path: Path) -> None:
    words = Strict(page_of(RunDir(tmp_path))).words
    assert "There is no winner yet" in words and "no configuration, no environment and no log" in words
    with pytest.raises(ValueError, match="there is no such folder"):
        write_report(RunDir(tmp_path / "gone"))


def test_a_candidate_without_a_score_is_counted(finished: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(finished.root, tmp_path / "run"))
    text = run.history_jsonl.read_text()
    first = text.splitlines()[0]
    row = re.sub(r'"score":[^,]+', '"score":null,"infeasible":"the loss is nan"', first)
    run.history_jsonl.write_text(text.replace(first, row))
    assert "1 candidate could not be scored; history.jsonl has the reasons." in methods(read_record(run))


def test_text_from_files_cannot_become_markup(finished: RunDir, tmp_path: Path) -> None:
    run = retrained_copy(finished, tmp_path)
    hostile = '<script>alert("x")</script> & $\\alpha$'
    config = read_json(run.config_json)
    write_json(run.config_json, config | {"preset": hostile})
    write_json(run.environment_json, {"<b>python": hostile})
    write_json(run.summary_json, read_json(run.summary_json) | {"score": hostile})
    metrics = read_json(run.winner("random-1").metrics_json)
    write_json(run.winner("random-1").metrics_json, metrics | {"name": hostile})
    parsed = Strict(page_of(run))
    assert "script" not in parsed.tags and "b" in parsed.tags
    assert parsed.words.count(hostile) >= 5
    assert "<b>python" in parsed.words


def test_the_pieces_escape() -> None:
    assert text("<&\"'>") == "&lt;&amp;&quot;&#x27;&gt;"
    assert "<td>&lt;i&gt;</td>" in table(("<i>",), [("<i>",)])


def test_seconds_are_told_apart_by_stage_and_by_command() -> None:
    lines = [
        "[    1.0 s] images: 10 to train on",
        "[    3.0 s] warm-up: 2 epochs of 8 steps",
        "[    5.0 s] epoch 1: loss 2.5",
        "[    9.0 s] epoch 2: loss 2.4",
        "a line that is no part of the log",
        "[    2.0 s] images: 10 to train on",
        "[    4.0 s] evolution: best score 1; the budget is spent",
    ]
    assert stage_seconds(lines) == {
        "opening the images": 3.0,
        "building and measuring the supernet": 2.0,
        "warm-up": 6.0,
        "evolution": 2.0,
    }
    assert np.isclose(sum(stage_seconds(lines[:4]).values()), 9.0)
