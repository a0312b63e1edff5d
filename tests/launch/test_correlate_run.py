"""The command that asks whether a run's score ranks, on tiny runs of every domain: alone, stopped, killed, as an array,
under torchrun, beside what retraining did already, and on what cannot be.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subshot.launch import correlate, retrain, search
from subshot.launch.manifest import CORRELATION, read_manifest
from subshot.train.job_record import read_job
from subshot.train.run_dir import RunDir, read_json, read_jsonl

IMAGES = [
    "digits",
    "--data=images",
    "--space.width=0.125",
    "--images.batch-size=32",
    "--warmup.recipe.epochs=1",
    "--score.kind=indicator",
    "--evolution.budget=16",
    "--evolution.population=8",
    "--evolution.sample=4",
    "--limits.max-macs=1.5e6",
    "--retrain.recipe.epochs=2",
    "--retrain.batch-size=32",
]
CLICKS = [
    "nasrec-full-criteo",
    "--data=prepared",
    "--space.blocks=3",
    "--space.max-dense-dim=32",
    "--space.max-sparse-dim=16",
    "--warmup.fraction=0.1",
    "--warmup.recipe.learning-rate=0.05",
    "--batches.batch-size=64",
    "--score.population=8",
    "--evolution.budget=16",
    "--evolution.population=8",
    "--evolution.sample=4",
    "--evolution.children=4",
    "--retrain.layer-norm",
    "--retrain.recipe.learning-rate=0.05",
    "--retrain.learning-rates=0.05",
]
TRAINING_FREE = [
    "nasbench201-cifar10",
    "--data=images",
    "--space.input-size=8",
    "--limits.max-macs=4e6",
    "--evolution.budget=16",
    "--evolution.population=8",
    "--evolution.sample=3",
    "--score.proxies=naswot",
    "--score.batch-size=4",
    "--retrain.recipe.epochs=1",
    "--retrain.batch-size=64",
]
SAMPLE = ["--sample", "8", "--resamples", "50"]


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory, few_digits: Callable[..., Path], prepared_clicks: Callable[..., Path]
) -> Path:
    """A folder with images/, some of the handwritten digits, and prepared/, 2,000 synthetic clicks."""
    folder = tmp_path_factory.mktemp("correlate")
    few_digits(folder / "images", train=16)
    prepared_clicks(folder / "prepared", rows=2000, max_rows=100)
    return folder


@pytest.fixture(scope="module")
def searched(work: Path, status_of: Callable[..., int]) -> Callable[[str, list[str]], RunDir]:
    """searched(name, settings): a finished search."""

    def run(name: str, settings: list[str]) -> RunDir:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(work)
            assert status_of(search, *settings, f"--run-dir={name}") == 0
        return RunDir(work / name)

    return run


@pytest.fixture(scope="module")
def images(searched: Callable[[str, list[str]], RunDir]) -> RunDir:
    """A finished search on images; to be copied."""
    return searched("images-run", IMAGES)


@pytest.fixture(scope="module")
def clicks(searched: Callable[[str, list[str]], RunDir]) -> RunDir:
    """A finished search on clicks; to be copied."""
    return searched("clicks-run", CLICKS)


def copy_of(run: RunDir, name: str) -> RunDir:
    return RunDir(Path(shutil.copytree(run.root, run.root.with_name(name))))


@pytest.fixture(scope="module")
def ranked(work: Path, images: RunDir, status_of: Callable[..., int]) -> RunDir:
    """Judged by one undisturbed process; to be read, not changed."""
    run = copy_of(images, "ranked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        assert status_of(correlate, run.root, *SAMPLE, "--proxies", "naswot,zico") == 0
    return run


@pytest.fixture(autouse=True)
def _inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data folders are given relative to this one."""
    monkeypatch.chdir(work)


def records(run: RunDir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.correlation.root / "trials").iterdir()}


def test_the_ranking_is_of_the_whole_range(ranked: RunDir) -> None:
    found = read_json(ranked.ranking_json)
    assert (found["networks"], found["seeds"], found["metric"]) == (8, 1, "test/accuracy")
    assert list(found["scores"]) == ["score", "params", "macs", "naswot", "zico"]
    scores = [network["score"] for network in found["sample"]]
    assert scores == sorted(scores, reverse=True)
    best = read_json(ranked.summary_json)["best"][0]
    assert found["sample"][0]["genotype"] == best["genotype"], "the first of the search is in it"
    drawn = [row["score"] for row in read_jsonl(ranked.history_jsonl) if row["method"] == "random"]
    assert scores[-1] <= sorted(drawn)[len(drawn) // 7], "and one of the lowest part"
    assert len({tuple(network["genotype"]) for network in found["sample"]}) == 8
    for network in found["sample"]:
        record = read_json(ranked.correlation.trial_json(f"{network['network']}-seed0"))
        assert network["test/accuracy"] == [record["test/accuracy"]]
        assert record["settings"]["genotype"] == network["genotype"]
    page = ranked.report_html.read_text()
    assert "see Does the score rank?" in page and "The job" not in page


def test_no_weights_are_kept_and_the_run_is_as_it_was(ranked: RunDir, images: RunDir) -> None:
    assert not [path for path in ranked.correlation.root.rglob("*") if path.suffix in (".safetensors", ".pt")]
    assert not ranked.winners.exists()
    for name in ("history.jsonl", "summary.json", "metrics.jsonl", "config.json"):
        assert (ranked.root / name).read_bytes() == (images.root / name).read_bytes()
    assert not any(part.name.startswith("correlate") for part in (ranked.root / "metrics").glob("*"))


def test_given_again_it_trains_nothing_and_keeps_proxies(
    ranked: RunDir, status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = records(ranked), read_json(ranked.ranking_json)
    assert status_of(correlate, ranked.root, "--resamples", "50") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(ranked.ranking_json)
    assert (records(ranked), read_json(ranked.ranking_json)) == before


def test_a_stop_and_a_kill_lose_nothing_and_two_processes_go_on(
    images: RunDir,
    ranked: RunDir,
    status_of: Callable[..., int],
    once: Callable[..., Any],
    started: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """To the bytes of the undisturbed one."""
    run = copy_of(images, "stopped")

    def in_the_middle() -> bool:
        return len(list(run.correlation.root.glob("trials/*.json"))) > 1 and any(run.correlation.root.rglob("*.pt"))

    sender = once(in_the_middle, lambda: os.kill(os.getpid(), signal.SIGTERM))
    often = ["--checkpoint-minutes", "0.00001"]
    assert status_of(correlate, run.root, *SAMPLE, *often, "--proxies", "naswot,zico") == 75
    sender.join()
    assert "go on with: python launch/correlate.py" in capfd.readouterr().err.splitlines()[-1]
    job = read_job(run, "correlate")
    assert job is not None and job.state == "preempted"
    assert 2 <= len(records(run)) < 8 and not run.ranking_json.exists()
    first, second = started("correlate", run.root, *SAMPLE, "--proxies", "naswot,zico", ranks=2)
    said = first.communicate(timeout=200)[1]
    assert (first.returncode, second.wait(timeout=100)) == (0, 0), said
    assert "continues after step" in said
    assert records(run) == records(ranked)
    assert read_json(run.ranking_json) == read_json(ranked.ranking_json)


def test_elements_of_an_array_and_what_adds_them_up(
    images: RunDir, ranked: RunDir, status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(images, "array")
    assert status_of(correlate, run.root, "--index", "0") == 2
    assert f"write it with: launch/correlate.py {run.root} --freeze" in capsys.readouterr().err
    assert status_of(correlate, run.root, *SAMPLE, "--freeze") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "8"
    elements = read_manifest(run, CORRELATION).elements
    assert not (run.correlation.root / "trials").exists()
    assert status_of(correlate, run.root, "--index", "5") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run.root / elements[5].result)
    assert list(records(run)) == [Path(elements[5].result).name]
    job = read_job(run, "correlate-5")
    assert job is not None and job.state == "finished"
    for name, content in records(ranked).items():  # what the other elements leave
        (run.correlation.root / "trials" / name).write_bytes(content)
    assert status_of(correlate, run.root, "--index", "2") == 0
    assert "trained already" in capsys.readouterr().err
    assert status_of(correlate, run.root, "--resamples", "50", "--proxies", "naswot,zico") == 0
    assert read_json(run.ranking_json) == read_json(ranked.ranking_json)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sample", "7"], "--sample is 7; it must be 8 to 30"),
        (["--seeds", "0"], "--seeds is 0; it must be 1 or more"),
        (["--index", "8"], "--index is 8; the manifest has lines 0 to 7"),
        (["--epochs", "5"], "was frozen with other settings or data"),
        (["--proxies", "naswott"], "there is no proxy 'naswott'; did you mean naswot?"),
        (["--data", "no/such"], "no/such does not exist"),
        (["--kinds", "path_los"], "--kinds: there is no kind of score 'path_los'; did you mean path_loss?"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(
    ranked: RunDir, words: list[str], sentence: str, mistake_of: Callable[..., str]
) -> None:
    assert sentence in mistake_of(correlate, ranked.root, *words)


def test_a_finished_sample_grows_and_another_one_does_not(
    ranked: RunDir,
    tmp_path: Path,
    status_of: Callable[..., int],
    mistake_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunDir(Path(shutil.copytree(ranked.root, tmp_path / "run")))
    before = {element.network: element.result for element in read_manifest(run, CORRELATION).elements}
    last = run.root / list(before.values())[-1]
    content = last.read_bytes()
    last.unlink()
    for words in (["--sample", "10"], ["--seeds", "2"]):
        assert "was frozen with 8 networks and 1 seeds; give the same" in mistake_of(correlate, run.root, *words)
    last.write_bytes(content)
    assert status_of(correlate, run.root, "--sample", "10", "--resamples", "50") == 0
    elements = read_manifest(run, CORRELATION).elements
    kept = before.keys() & {element.network for element in elements}
    assert len(kept) >= 6 and capsys.readouterr().err.count("-seed0: trained already") == len(kept)
    assert read_json(run.ranking_json)["networks"] == len(elements) == 10
    assert status_of(correlate, run.root, "--seeds", "2", "--resamples", "50") == 0
    assert {element.network for element in read_manifest(run, CORRELATION).elements} == {e.network for e in elements}
    assert read_json(run.ranking_json)["seeds"] == 2
    for words in (["--sample", "8"], ["--seeds", "1"]):
        assert "was frozen with 10 networks and 2 seeds; give the same" in mistake_of(correlate, run.root, *words)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[:40], "is damaged (not JSON); delete it, and its training is done again"),
        (lambda text: "[]", "is damaged (no test/accuracy, or no settings)"),
        (
            lambda text: text.replace('"test/accuracy": ', '"test/accuracy": null, "was": '),
            "is damaged (no test/accuracy",
        ),
        (lambda text: text.replace('"batch_size": 32', '"batch_size": 64'), "was made with other settings (batch_size"),
    ],
)
def test_a_damaged_record_is_refused(
    ranked: RunDir, change: Any, sentence: str, tmp_path: Path, mistake_of: Callable[..., str]
) -> None:
    run = RunDir(Path(shutil.copytree(ranked.root, tmp_path / "run")))
    path = run.root / read_manifest(run, CORRELATION).elements[3].result
    path.write_text(change(path.read_text()))
    assert f"{path} {sentence}" in mistake_of(correlate, run.root)


def test_a_run_that_is_not_searched_or_too_small_is_refused(images: RunDir, mistake_of: Callable[..., str]) -> None:
    assert "random search scored only 1" in mistake_of(correlate, images.root, "--sample", "30")
    assert not images.correlation.root.exists()
    run = copy_of(images, "unfinished")
    run.summary_json.unlink()
    assert "holds no finished search" in mistake_of(correlate, run.root)
    for words in (["nowhere"], ["images", "--sample", "8"]):
        told = mistake_of(correlate, *words)
        assert f"there is no benchmark '{words[0]}'; there are nasbench201 (nor is it a run" in told


def test_other_kinds_of_score_of_the_same_supernet(
    ranked: RunDir, tmp_path: Path, status_of: Callable[..., int], mistake_of: Callable[..., str]
) -> None:
    run = RunDir(Path(shutil.copytree(ranked.root, tmp_path / "run")))
    assert status_of(correlate, run.root, "--kinds", "one_shot,indicator", "--resamples", "50") == 0
    scores = read_json(run.ranking_json)["scores"]
    assert list(scores) == ["score", "params", "macs", "naswot", "zico", "kind one_shot"], "indicator drove the search"
    assert all(0.0 <= n["others"]["kind one_shot"] <= 1.0 for n in read_json(run.ranking_json)["sample"])
    assert "one shot, same supernet" in run.report_html.read_text()
    assert "the score path_loss has to tell" in mistake_of(correlate, run.root, "--kinds", "path_loss")


def test_clicks_look_at_validation_and_take_what_retraining_did(
    clicks: RunDir, status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(clicks, "clicks-ranked")
    assert status_of(retrain, run.root, "--index", "0") == 0
    (theirs,) = (read_json(path) for path in (run.root / "trials").iterdir())
    words = ["--seeds", "2", "--proxies", "zico,naswot", "--kinds", "sigeo,zico"]
    assert status_of(correlate, run.root, *SAMPLE, *words) == 0
    found = read_json(run.ranking_json)
    assert (found["networks"], found["seeds"], found["metric"]) == (8, 2, "val/log_loss")
    terms = ["term zico", "term fisher_rao", "term loss"]
    assert list(found["scores"]) == ["score", "params", "macs", "num_modules", *terms, "zico", "naswot", "kind zico"]
    raw = [network["others"] for network in found["sample"]]
    assert found["scores"]["kind zico"]["kendall"] == found["scores"]["term zico"]["kendall"], "the same, standardised"
    assert [row["zico"] for row in raw] != [row["term zico"] for row in raw], "before the warm-up, and after it"
    assert (run.score_json.read_bytes()) == clicks.score_json.read_bytes()
    assert found["scores"]["naswot"]["kendall"] is None and found["scores"]["naswot"]["undefined"] == 8
    assert found["seed_kendall"] is not None
    assert len(records(run)) == 16 and len(list((run.root / "trials").iterdir())) == 1
    kept = [json.loads(text) for text in records(run).values()]
    assert not any("test/log_loss" in record or record["settings"]["tested"] for record in kept)
    (copied,) = (record for record in kept if "copy_of" in record)
    assert copied["copy_of"] == theirs["name"] and copied["val/log_loss"] == theirs["val/log_loss"]
    page = run.report_html.read_text()
    assert "The test split was not looked at." in page and "trials of" not in page
    assert "retraining did this training already" in capsys.readouterr().err


def test_clicks_are_shared_and_go_on_after_a_kill(
    clicks: RunDir, status_of: Callable[..., int], started: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    """Two processes share the trainings, are killed without notice, and one goes on to the same records."""
    run, other = copy_of(clicks, "clicks-killed"), copy_of(clicks, "clicks-alone")
    processes = started("correlate", run.root, *SAMPLE, ranks=2)
    wait_for(lambda: len(list(run.correlation.root.glob("trials/*.json"))) >= 2, processes)
    for process in processes:
        process.kill()
        process.communicate()
    assert 2 <= len(records(run)) < 8
    for folder in (run, other):
        assert status_of(correlate, folder.root, *SAMPLE) == 0
    assert records(run) == records(other)
    assert read_json(run.ranking_json) == read_json(other.ranking_json)


def test_without_training_a_proxy_that_drove_ranks_as_the_score_does(
    searched: Callable[[str, list[str]], RunDir], status_of: Callable[..., int]
) -> None:
    run = searched("training-free-run", TRAINING_FREE)
    assert status_of(correlate, run.root, *SAMPLE, "--proxies", "naswot") == 0
    found = read_json(run.ranking_json)
    assert found["scores"]["naswot"]["kendall"] == found["scores"]["score"]["kendall"]
    for network in found["sample"]:
        assert network["others"]["naswot"] == network["score"]
    assert status_of(correlate, run.root, "--kinds", "one_shot") == 2
    assert "Does the score rank?" in run.report_html.read_text()
