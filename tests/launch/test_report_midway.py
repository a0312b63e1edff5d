"""Reports of runs that are cut off anywhere: each file absent, whole or torn in the middle, as a kill leaves them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from subshot.launch.config import to_json
from subshot.launch.presets import PRESETS
from subshot.launch.report import write_comparison, write_report
from subshot.train.run_dir import RunDir, write_json


def page_of(run: RunDir) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_that_has_only_its_settings_has_a_page(preset: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    write_json(run.config_json, to_json(PRESETS[preset]()))
    html = page_of(run)
    assert "The search is not over: 0 candidates scored, no network retrained." in html
    assert "There is no winner yet" in html and "No candidate has been scored yet." in html
    assert "before candidates are scored" in html and "does not tell yet" in html


def test_half_a_warm_up(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    write_json(run.config_json, to_json(PRESETS["digits"]()))
    run.metrics_jsonl.write_text('{"stage":"warmup","step":1,"epoch":0,"train/loss":2.5}\n{"stage":"warmup","st')
    run.log.parent.mkdir()
    run.log.write_text("[    1.0 s] images: 10 to train on\n[    5.0 s] warm-up: 2 epochs\n[    9.0 s] epo")
    write_json(run.job_json("search"), {"job": "search", "state": "running", "processes": 1})
    html = page_of(run)
    assert "Warm-up: training loss, 2.5 at the end" in html and "The job search: running." in html


@pytest.mark.parametrize("bytes_kept", [0.02, 0.3, 0.55, 0.97])
def test_half_a_search(noisy_run: RunDir, tmp_path: Path, bytes_kept: float) -> None:
    """Cut anywhere: evolution alone, or random search begun; the last line torn."""
    run = RunDir(shutil.copytree(noisy_run.root, tmp_path / "run"))
    run.summary_json.unlink()
    text = run.history_jsonl.read_bytes()
    run.history_jsonl.write_bytes(text[: int(len(text) * bytes_kept)])
    whole = run.history_jsonl.read_bytes().count(b"\n")
    assert f"The search is not over: {whole} candidates scored" in page_of(run)
    assert "2 runs side by side" in write_comparison([run, noisy_run], out=tmp_path / "both.html").read_text()


def test_the_first_candidate_and_the_first_without_a_score(noisy_run: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(noisy_run.root, tmp_path / "run"))
    run.summary_json.unlink()
    first = run.history_jsonl.read_text().splitlines(keepends=True)[0]
    run.history_jsonl.write_text(first)
    assert "All candidates cost the same, so there is no front." in page_of(run)
    row = json.loads(first) | {"score": None, "infeasible": "the loss is nan"}
    run.history_jsonl.write_text(json.dumps(row) + "\n")
    assert "No candidate has been scored yet." in page_of(run)


def test_half_a_retraining(noisy_run: RunDir, tmp_path: Path) -> None:
    """A winner's folder without metrics is no finished winner."""
    run = RunDir(shutil.copytree(noisy_run.root, tmp_path / "run"))
    (run.winner("1").root / "checkpoints").mkdir(parents=True)
    part = run.part_metrics_jsonl("retrain-1")
    part.parent.mkdir()
    part.write_text('{"stage":"retrain/1","step":1,"epoch":1,"train/loss":2.0}\n{"stage":"retr')
    html = page_of(run)
    assert "It has not been retrained" in html and "Retraining: training loss, 2 at the end" in html


def test_bytes_that_are_no_text_in_a_log_are_no_error(noisy_run: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(noisy_run.root, tmp_path / "run"))
    with run.log.open("ab") as file:
        file.write(b"[    9.0 s] \xff\xfe\x00")
    assert "Time and money" in page_of(run)
