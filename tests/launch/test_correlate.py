"""The command that judges scores: what it measures, that it goes on on any number of ranks, and what it prints."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import shutil
import signal
import xml.etree.ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from subshot.data.nasbench import read_nasbench201
from subshot.launch import correlate
from subshot.launch.correlate import chosen_proxies
from subshot.launch.correlation.benchmark_published import TABLES, published
from subshot.launch.correlation.benchmark_report import JudgingSettings, as_json, as_text, judge, picture
from subshot.launch.correlation.benchmark_scores import (
    MEAN,
    STD,
    Benchmark,
    CorrelationDir,
    balanced_batches,
    drawn,
    initialised,
    open_nasbench201,
    read_batches,
)
from subshot.proxies import PROXIES
from subshot.search.aggregation import ENSEMBLES, log_rank_sum
from subshot.search.ranking import kendall, ndcg, partial_kendall, spearman
from subshot.train.run_dir import read_jsonl

SAMPLE = 6
NAMES = ("naswot", "jacob_cov")
QUICK = ("--proxies", ",".join(NAMES), "--sample", str(SAMPLE), "--set", "filtered", "--batch-size", "8")


@pytest.fixture(scope="module")
def run(status_of: Callable[..., int]) -> Callable[..., int]:
    """run(*words): the command's exit status."""
    return partial(status_of, correlate)


@pytest.fixture(scope="module")
def benchmark(shared_data: Path) -> Benchmark:
    return open_nasbench201(shared_data)


@pytest.fixture(scope="module")
def finished(run: Callable[..., int], shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> CorrelationDir:
    """What one process measured."""
    folder = CorrelationDir(tmp_path_factory.mktemp("correlate") / "alone")
    assert run("nasbench201", "--data", shared_data, *QUICK, "--out", folder.root) == 0
    return folder


def scores_of(folder: CorrelationDir) -> pl.DataFrame:
    return pl.read_csv(io.BytesIO(gzip.decompress(folder.scores_csv.read_bytes())))


def test_scores_are_those_of_freshly_initialised_networks(
    finished: CorrelationDir, benchmark: Benchmark, shared_data: Path
) -> None:
    frame = scores_of(finished)
    assert frame.columns == ["index", "arch", "params", "macs", *NAMES] and len(frame) == SAMPLE
    assert frame["index"].to_list() == sorted(frame["index"].to_list())
    rows = benchmark.rows_of(frame["index"].to_list())
    assert benchmark.sets["filtered"][rows].all()
    assert frame["params"].to_list() == benchmark.costs["params"][rows].tolist()
    settings = correlate.ScoringSettings("nasbench201", "filtered", SAMPLE, 0, NAMES, 8, 1)
    batches = read_batches(shared_data, settings, torch.device("cpu"))
    assert len(batches) == 1 and batches[0][0].shape == (8, 3, 32, 32)
    for place in (0, 3):
        model = initialised(benchmark, int(rows[place]), seed=0)
        assert frame["naswot"][place] == PROXIES["naswot"](model, batches, seed=0)
    first, again, other = (initialised(benchmark, int(rows[0]), seed) for seed in (0, 0, 1))
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_the_table_has_the_statistics_of_the_scores(finished: CorrelationDir, benchmark: Benchmark) -> None:
    frame = scores_of(finished)
    table = json.loads(finished.table_json.read_text())
    rows = benchmark.rows_of(frame["index"].to_list())
    truth = benchmark.accuracies["c10_test_200"][rows]
    assert [row["name"] for row in table["rows"]] == ["params", "macs", *NAMES]
    assert (table["size"], table["set_size"]) == (SAMPLE, 9445) and table["best_accuracy"] == truth.max()
    row = table["rows"][2]
    naswot = frame["naswot"].to_numpy()
    assert row["tau"] == kendall(truth, naswot) and row["rho"] == spearman(truth, naswot)
    assert row["ndcg"] == ndcg(truth, naswot) and row["selected"] == truth[np.argmax(naswot)]
    assert row["regret"] == truth.max() - row["selected"]
    assert row["partial_tau"] == partial_kendall(truth, naswot, frame["params"].to_numpy())
    assert table["rows"][0]["partial_tau"] is None
    assert [one["published"]["source"] for one in row["published"]] == ["VKDNW, Table 1"]
    root = xml.etree.ElementTree.fromstring(finished.picture.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "var(--" not in finished.picture.read_text()


def test_a_torn_run_goes_on_to_the_same_scores(
    run: Callable[..., int],
    finished: CorrelationDir,
    shared_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = CorrelationDir(tmp_path / "torn")
    folder.part(0).parent.mkdir(parents=True)
    shutil.copy(finished.manifest_json, folder.manifest_json)
    whole = finished.part(0).read_text().splitlines(keepends=True)
    folder.part(0).write_text("".join(whole[:4]) + whole[4][:50])
    assert run("nasbench201", "--data", shared_data, *QUICK, "--out", folder.root) == 0
    assert folder.part(0).read_text().splitlines(keepends=True)[:4] == whole[:4]
    assert len(read_jsonl(folder.part(0))) == SAMPLE
    assert folder.scores_csv.read_bytes() == finished.scores_csv.read_bytes()
    assert folder.table_json.read_bytes() == finished.table_json.read_bytes()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "nasbench201, set filtered of 9,445 networks: 6 of them, drawn with seed 0"
    assert "undefined scores rank last" in printed[1]
    assert printed[-1] == str(folder.table_json)


def test_a_signal_stops_between_two_networks(
    run: Callable[..., int],
    once: Callable[..., Any],
    finished: CorrelationDir,
    shared_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    part = CorrelationDir(tmp_path / "stopped").part(0)
    sender = once(
        lambda: part.is_file() and part.read_bytes().count(b"\n") >= 2, lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    words = ("nasbench201", "--data", shared_data, *QUICK, "--out", tmp_path / "stopped")
    assert run(*words) == 75
    sender.join()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("stopped: SIGTERM, ") and "go on with: python launch/correlate.py nasbench201" in said
    kept = part.read_bytes()
    assert 2 <= kept.count(b"\n") < SAMPLE
    assert run(*words) == 0
    assert part.read_bytes().startswith(kept)
    assert (tmp_path / "stopped" / "scores.csv.gz").read_bytes() == finished.scores_csv.read_bytes()


def test_two_ranks_go_on_with_what_one_began(
    finished: CorrelationDir, shared_data: Path, tmp_path: Path, launched: Callable[..., Any]
) -> None:
    folder = CorrelationDir(tmp_path / "two")
    folder.part(7).parent.mkdir(parents=True)
    shutil.copy(finished.manifest_json, folder.manifest_json)
    folder.part(7).write_text(finished.part(0).read_text().split("\n")[0] + "\n")
    words = ("nasbench201", "--data", shared_data, *QUICK, "--out", folder.root)
    done = launched("correlate", *words, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(folder.table_json)
    assert [len(read_jsonl(part)) for part in folder.parts()] == [3, 2, 1]
    assert folder.scores_csv.read_bytes() == finished.scores_csv.read_bytes()
    assert folder.table_json.read_bytes() == finished.table_json.read_bytes()
    assert folder.picture.read_bytes() == finished.picture.read_bytes()


def test_other_settings_are_refused_by_name(
    run: Callable[..., int], finished: CorrelationDir, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = finished.part(0).read_bytes()
    changed = ["--seed", "1", "--batch-size", "16"]
    assert run("nasbench201", "--data", shared_data, *QUICK, *changed, "--out", finished.root) == 2
    told = capsys.readouterr().err
    assert "begun with other settings" in told and "seed: 0 in the run, 1 now" in told
    assert "batch_size: 8 in the run, 16 now" in told and len(told.splitlines()) == 1
    assert finished.part(0).read_bytes() == before
    other = ["--accuracy", "c10_valid_12", "--undefined", "left_out"]  # of the judging alone
    assert run("nasbench201", "--data", shared_data, *QUICK, *other, "--out", finished.root) == 0
    assert "accuracy: c10_valid_12" in capsys.readouterr().out
    assert run("nasbench201", "--data", shared_data, *QUICK, "--out", finished.root) == 0
    assert finished.part(0).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--proxies", "nawsot"), "there is no proxy 'nawsot'; did you mean naswot?"),
        (("--proxies", "qqq"), "there is no proxy 'qqq'; there are "),
        ((), "--proxies a,b, or all"),
        (("--proxies", "naswot", "--sample", "10000", "--set", "filtered"), "the set has 9,445 networks"),
        (("--proxies", "naswot", "--sample", "2", "--warmup", "0.001"), "one batch of 64 images needs 0.0064 or more"),
        (("--proxies", "naswot", "--sample", "2", "--seed", str(2**63)), "it must be below 2^63"),
        (("--proxies", "naswot", "--accuracy", "c10_test_20"), "did you mean c10_test_200?"),
        (("--proxies", "naswot", "--batch-size", "20000", "--sample", "1"), "with 1 batches it is from 1 to 10000"),
        (("--proxies", "naswot", "--resamples", "0"), "--resamples is 0; it must be 1 or more"),
        (("--scores", "nothing.csv"), "nothing.csv is missing"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(
    run: Callable[..., int],
    words: tuple[str, ...],
    sentence: str,
    shared_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("nasbench201", "--data", shared_data, *words, "--out", tmp_path / "out") == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and sentence in told.err and len(told.err.splitlines()) == 1
    assert not (tmp_path / "out").exists() and told.out == ""


def test_a_missing_folder_or_benchmark_is_named(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("nasbench201", "--data", tmp_path / "no", "--proxies", "naswot") == 2
    assert f"the data folder {tmp_path / 'no'} does not exist" in capsys.readouterr().err
    assert run("nasbench20", "--data", tmp_path, "--proxies", "naswot") == 2
    assert "there is no benchmark 'nasbench20'; did you mean nasbench201?" in capsys.readouterr().err
    assert run("nasbench201", "--data", tmp_path, "--proxies", "naswot") == 2
    assert "nasbench201.csv.gz is missing" in capsys.readouterr().err


def test_a_given_table_is_judged_without_measuring(
    run: Callable[..., int], shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FreeREA's and NASLib's published scores of all networks."""
    given = ["--scores", str(shared_data / "nasbench201_proxies.csv.gz"), "--resamples", "20"]
    common = ["nasbench201", "--data", str(shared_data), *given, "--proxies", "c10_naswot,c10_zen"]
    assert run(*common, "--out", tmp_path / "all") == 0
    table = json.loads((tmp_path / "all" / "table.json").read_text())
    rows = {row["name"]: row for row in table["rows"]}
    assert table["size"] == table["set_size"] == 15_625 and table["recall_top"] == 1562 and table["ndcg_top"] == 1000
    assert rows["c10_naswot"]["undefined"] == 201 and rows["c10_naswot"]["rho"] == pytest.approx(0.793, abs=0.001)
    assert rows["macs"]["tau"] == pytest.approx(0.578, abs=0.0005)  # VKDNW's own figure
    assert rows["macs"]["published"][0]["inside"] is True
    assert "0.578 in (VKDNW, all networks)" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["table.json", "tau.svg"]
    assert run(*common, "--set", "filtered", "--sample", "500", "--top", "50", "--out", tmp_path / "some") == 0
    table = json.loads((tmp_path / "some" / "table.json").read_text())
    assert (table["size"], table["set_size"], table["recall_top"]) == (500, 9445, 50)
    assert run(*common, "c10_x", "--out", tmp_path / "x") == 2


def test_a_table_that_is_none_is_refused(
    run: Callable[..., int], benchmark: Benchmark, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scores.csv"
    dead = int(benchmark.index[np.flatnonzero(~benchmark.sets["filtered"])[0]])
    for text, sentence in (
        ("index,a\n1,2\n1,3\n", "each once"),
        ("arch,a\nx,2\n", "needs a column index"),
        ("index,arch\n1,x\n", "has no column of scores"),
        ("index,a\n99999,2\n", "nasbench201 has no network 99999"),
        (f"index,a\n{dead},2\n", "has no network of the set filtered"),
        ("", "is no whole CSV table"),
        ("index,a\n,2\n", "needs a column index"),
        ("index,a,a\n1,2,3\n", "has the column a twice"),
        ("index,a\n1,2\n3,hello\n", "line 3, column a: 'hello' is no number"),
    ):
        path.write_text(text)
        words = ["--scores", path, "--set", "filtered", "--out", tmp_path / "out"]
        assert run("nasbench201", "--data", shared_data, *words) == 2
        assert sentence in capsys.readouterr().err


def test_a_cut_table_and_an_empty_column(
    run: Callable[..., int], shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is named; a score that no network has is reported as undefined."""
    cut, empty = tmp_path / "cut.csv.gz", tmp_path / "empty.csv"
    whole = gzip.compress(b"index,a\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(3000)))
    cut.write_bytes(whole[: len(whole) // 2])
    assert run("nasbench201", "--data", shared_data, "--scores", cut, "--out", tmp_path / "out") == 2
    assert "cut.csv.gz is no whole CSV table" in capsys.readouterr().err
    empty.write_text("index,words,naswot\n" + "".join(f"{n},x,\n" for n in range(40)))
    assert run("nasbench201", "--data", shared_data, "--scores", empty, "--out", tmp_path / "out") == 0
    (row,) = (r for r in json.loads((tmp_path / "out" / "table.json").read_text())["rows"] if r["name"] == "naswot")
    assert row["undefined"] == 40


def fake(size: int = 30) -> Benchmark:
    rng = np.random.default_rng(0)
    params = rng.permutation(size) * 1000.0
    accuracy = 80 + params / 3000 + rng.normal(size=size)
    return Benchmark(
        name="nasbench201",
        index=np.arange(0, 2 * size, 2),
        archs=tuple(f"network{row}" for row in range(size)),
        accuracies={"c10_test_200": accuracy},
        costs={"params": params, "macs": params * 7},
        sets={"all": np.ones(size, dtype=np.bool_)},
        build=lambda row: torch.nn.Linear(row + 1, 1),
    )


SETTINGS = JudgingSettings("c10_test_200", "all", 0, 0, 5, 30, "last")


def test_undefined_scores_are_counted_and_rank_last(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = fake()
    truth = bench.accuracies["c10_test_200"]
    scores = truth.copy()
    scores[np.argsort(truth)[-4:]] = math.nan
    columns = {"good": scores, "never": np.full(30, math.nan), "same": np.ones(30)}
    lines = [{"reasons": {"good": "no gradient"}}] * 4
    report = judge(bench, range(30), columns, SETTINGS, lines)
    rows = {row.name: row for row in report.rows}
    settled = np.where(np.isnan(scores), -1.0, scores)
    assert rows["good"].undefined == 4 and rows["good"].tau == pytest.approx(kendall(truth, settled))
    assert rows["good"].selected == np.sort(truth)[-5] and rows["good"].regret == pytest.approx(
        truth.max() - np.sort(truth)[-5]
    )
    assert rows["never"].undefined == 30 and rows["never"].tau is None and rows["never"].selected is None
    assert rows["same"].tau is None and rows["same"].selected == pytest.approx(truth.mean())
    assert report.reasons == {"good": {"no gradient": 4}} and report.recall_top == 5
    text = as_text(report)
    assert "undefined scores rank last" in text and "all of them" in text and len(text.splitlines()) >= 8
    assert json.loads(json.dumps(as_json(report), allow_nan=False))["rows"][2]["undefined"] == 4
    out = JudgingSettings("c10_test_200", "all", 0, 0, 5, 30, "left_out")
    (left,) = (row for row in judge(bench, range(30), {"good": scores}, out).rows if row.name == "good")
    assert left.tau == pytest.approx(1.0) and left.undefined == 4 and left.regret == rows["good"].regret
    assert picture(report) == picture(report)


def test_scores_are_turned_and_ensembles_joined() -> None:
    bench = fake()
    truth = bench.accuracies["c10_test_200"]
    lower = next((name for name, proxy in PROXIES.items() if not proxy.maximize), None)
    members = ("az_expressivity", "az_progressivity", "az_trainability_nasbench201")
    rng = np.random.default_rng(1)
    columns = {name: truth + rng.normal(size=30) for name in members}
    if lower is not None:
        columns[lower] = -truth
    rows = {row.name: row for row in judge(bench, range(30), columns, SETTINGS).rows}
    joined = log_rank_sum(np.stack([*(columns[name] for name in members), bench.costs["macs"]], axis=1))
    assert rows["az_nas"].kind == "ensemble" and rows["az_nas"].tau == pytest.approx(kendall(truth, joined))
    assert "vkdnw_agg" not in rows
    if lower is not None:
        assert rows[lower].tau == pytest.approx(1.0)


def test_the_distinct_set_has_each_class_once_and_without_dead_edges_where_it_can(
    benchmark: Benchmark, shared_data: Path
) -> None:
    classes = np.array(read_nasbench201(shared_data).unique_str)
    distinct, filtered = benchmark.sets["distinct"], benchmark.sets["filtered"]
    assert sorted(classes[distinct]) == sorted(set(classes)) and distinct.sum() == 6466
    assert set(classes[distinct & ~filtered]).isdisjoint(classes[filtered])


def test_samples_nest_and_batches_are_balanced() -> None:
    candidates = np.arange(5, 105)
    small, large = drawn(candidates, 10, 3), drawn(candidates, 40, 3)
    assert set(small) <= set(large) and small == sorted(small) and len(set(large)) == 40
    assert drawn(candidates, 0, 3) == candidates.tolist() and drawn(candidates, 10, 4) != small
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10, dtype=np.uint8), 20))
    images = np.zeros((200, 4, 4, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(200)
    batches = balanced_batches(images, labels, 64, 3, seed=0)
    seen = []
    for pixels, targets in batches:
        assert pixels.shape == (64, 3, 4, 4) and pixels.dtype == torch.float32 and targets.dtype == torch.int64
        counts = torch.bincount(targets, minlength=10)
        assert counts.min() >= 6 and counts.max() <= 7
        first = (pixels[:, 0, 0, 0] * STD[0] + MEAN[0]) * 255
        numbers = first.round().int().tolist()
        assert [int(labels[number]) for number in numbers] == targets.tolist()
        assert pixels[:, 2, 1, 1].tolist() == pytest.approx([-MEAN[2] / STD[2]] * 64)
        seen += numbers
    assert len(set(seen)) == 192
    with pytest.raises(ValueError, match="from 1 to 66"):
        balanced_batches(images, labels, 67, 3, seed=0)


def test_names_of_proxies() -> None:
    assert chosen_proxies(" naswot,,zico, naswot,params") == ("naswot", "zico")
    assert chosen_proxies("all") == tuple(name for name in PROXIES if name not in ("params", "macs"))


def test_published_values_belong_to_a_set_and_an_accuracy() -> None:
    (table1,) = published("zico", "filtered", "c100_test_200")
    assert (table1.source, table1.tau, table1.rho, table1.ndcg) == ("VKDNW, Table 1", 0.614, 0.809, 0.607)
    assert [one.tau for one in published("log_synflow", "all", "in16_test_200")] == [0.555, 0.561, 0.56]
    assert published("zico", "filtered", "c10_valid_200") == [] and published("nothing", "all", "c10_test_200") == []
    known = {*PROXIES, *ENSEMBLES}
    assert {name for table in TABLES for name in table.rows} <= known
    assert {member for ensemble in ENSEMBLES.values() for member in ensemble.members} <= known
