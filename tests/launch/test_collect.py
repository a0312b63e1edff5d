"""What `launch/slurm.py collect` makes of the files that array elements left."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from subshot.launch import slurm
from subshot.launch.collect import collect, outcomes, queued_elements
from subshot.launch.manifest import CORRELATION, Element, Manifest, freeze, read_manifest
from subshot.train.job_record import State, begin_job, end_job, read_job
from subshot.train.run_dir import RunDir, append_jsonl, write_json


def element(index: int, network: str, seed: int) -> Element:
    name = f"{network}-seed{seed}"
    return Element(index, name, network, "winner", None, "0", seed, None, None, f"winners/{name}/metrics.json")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two networks, three seeds each; an array that was submitted four at a time."""
    found = RunDir(tmp_path / "a run")
    elements = [element(3 * i + seed, name, seed) for i, name in enumerate(("1", "random-1")) for seed in range(3)]
    freeze(found, Manifest("0", "test/accuracy", tuple(elements)))
    found.slurm.mkdir()
    (found.slurm / "retrain.sbatch").write_text("#!/bin/bash\n#SBATCH --array=0-5%4\n")
    return found


def finish(run: RunDir, name: str, value: Any) -> None:
    write_json(run.root / f"winners/{name}/metrics.json", {"test/accuracy": value})


def job(run: RunDir, name: str, state: State, message: str = "", seconds_ago: float = 0.0) -> None:
    record = begin_job(run, name, ["python"], 1)
    if state != "running":
        end_job(run, record, state, message, "epoch 1")
    written = read_job(run, name)
    assert written is not None
    write_json(run.job_json(name), vars(replace(written, begun_unix=time.time() - seconds_ago)))


def test_means_over_seeds_and_the_command_for_the_rest(run: RunDir) -> None:
    for seed, value in enumerate((0.90, 0.92, 0.94)):
        finish(run, f"1-seed{seed}", value)
    finish(run, "random-1-seed0", {"value": 0.80, "low": 0.7})
    job(run, "retrain-4", "failed", "OSError: disk full\nmore")
    found, complete = collect(run)
    assert not complete
    assert found[1].split() == ["1", "3", "of", "3", "0.9200", "0.0200"]
    assert found[2].split() == ["random-1", "1", "of", "3", "0.8000", "-"]
    assert found[3] == "failed: element 4 (random-1-seed1): OSError: disk full"
    assert found[4] == "missing: element 5 (random-1-seed2): not begun"
    assert found[-1] == f"sbatch --array=4,5%4 '{run.slurm.resolve()}/retrain.sbatch'"


def test_who_is_at_work_is_not_submitted_again(run: RunDir) -> None:
    job(run, "retrain-0", "running")
    job(run, "retrain-1", "running", seconds_ago=1000)
    job(run, "retrain-2", "preempted", "SIGTERM", seconds_ago=1000)
    found, _ = collect(run)
    assert found[3].startswith("running: element 0 (1-seed0): on ")
    assert found[4] == "missing: element 1 (1-seed1): killed without notice: silent for 1000 s"
    assert found[5] == "stopped: element 2 (1-seed2): SIGTERM"
    assert "--array=1,2,3,4,5%4" in found[-1]


def test_who_waits_in_the_queue_is_not_submitted_again(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = run.root / "programs/squeue"
    squeue.parent.mkdir()
    script = run.slurm.resolve() / "retrain.sbatch"
    squeue.write_text(f"#!/bin/bash\necho '7_3|{script}'\necho '7_4|{script}'\necho '8_5|/other/retrain.sbatch'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    assert queued_elements(script) == {3, 4}
    found, _ = collect(run)
    assert "queued: element 3 (random-1-seed0): not begun" in found
    assert "--array=0,1,2,5%4" in found[-1]


def test_all_finished(run: RunDir) -> None:
    for network in ("1", "random-1"):
        for seed in range(3):
            finish(run, f"{network}-seed{seed}", 0.5)
    found, complete = collect(run)
    assert complete and len(found) == 3


def test_clicks_have_an_interval_may_diverge_and_go_on_after_the_array(run: RunDir) -> None:
    rows = [element(i, network, i % 2) for i, network in enumerate(("fm-lr0.1", "fm-lr0.1", "fm-lr0.3"))]
    run.manifest_json.unlink()
    freeze(run, Manifest("0", "val/log_loss", tuple(rows)))
    for row, value in zip(rows[:2], (0.4, 0.6), strict=True):
        write_json(run.root / row.result, {"val/log_loss": {"value": value}, "diverged": None})
    write_json(run.root / rows[2].result, {"diverged": "step 3: not finite"})
    (run.slurm / "retrain-rest.sbatch").write_text("#!/bin/bash\n")
    found, complete = collect(run)
    assert [line.split() for line in found[1:3]] == [
        ["fm-lr0.1", "2", "of", "2", "0.5000", "0.1414"],
        ["fm-lr0.3", "0", "of", "1", "-", "-"],
    ]
    assert found[3] == "diverged: element 2 (fm-lr0.3-seed0): step 3: not finite"
    assert not complete, "what depends on the array is left"
    assert found[-1] == f"sbatch '{run.slurm.resolve()}/retrain-rest.sbatch'"
    job(run, "retrain", "finished")
    loss = {"n": 2, "mean": 0.41, "sd": 0.01}
    write_json(run.comparison_json, {"networks": [{"name": "fm", "trainings": 2, "test/log_loss": loss}]})
    found, complete = collect(run)
    assert complete and found[-1].split() == ["fm", "2", "0.41000", "0.01000"]


def test_what_depends_on_the_array_is_submitted_with_it(run: RunDir) -> None:
    (run.slurm / "retrain-rest.sbatch").write_text("#!/bin/bash\n")
    folder = run.slurm.resolve()
    again = next(line for line in collect(run)[0] if line.startswith("sbatch"))
    array = f"sbatch --parsable --array=0,1,2,3,4,5%4 '{folder}/retrain.sbatch'"
    assert again == (
        f"sbatch --kill-on-invalid-dep=yes --dependency=afterok:\"$({array})\" '{folder}/retrain-rest.sbatch'"
    )


def test_scores_are_merged_best_first(run: RunDir) -> None:
    (run.slurm / "score.sbatch").write_text("#!/bin/bash\n#SBATCH --array=0-2%2\n")
    rows: list[dict[str, Any]] = [{"genotype": [i], "score": float(i), "reason": None} for i in range(7)]
    append_jsonl(run.scores_jsonl("score-0", 0), rows[:4])
    append_jsonl(run.scores_jsonl("score-0", 1), [*rows[3:], {"genotype": [9], "score": None, "reason": "not finite"}])
    with run.scores_jsonl("score-1", 0).open("w") as file:
        file.write('{"genotype": [12], "sc')
    job(run, "score-0", "finished")
    found, complete = collect(run)
    assert found[0] == "scores: 8 networks, 1 of them without a score"
    assert [line.split() for line in found[1:6]] == [[str(i), str(i)] for i in (6, 5, 4, 3, 2)]
    assert found[6] == "missing shares: 1, 2; submit them again:"
    assert found[7] == f"sbatch --array=1,2%2 '{run.slurm.resolve()}/score.sbatch'"
    assert not complete


@pytest.mark.parametrize(("finished", "status"), [(6, 0), (5, 75)])
def test_the_exit_status_says_whether_something_is_left(
    run: RunDir, finished: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{network}-seed{seed}" for network in ("1", "random-1") for seed in range(3)]
    for name in names[:finished]:
        finish(run, name, 0.5)
    monkeypatch.setattr(sys, "argv", ["launch/slurm.py", "collect", str(run.root)])
    assert slurm.main() == status
    run.manifest_json.unlink()
    capsys.readouterr()
    assert slurm.main() == 2
    assert "has no frozen manifest" in capsys.readouterr().err


def test_a_list_is_replaced_when_it_is_trained_by_one_of_the_same_settings(run: RunDir) -> None:
    frozen = read_manifest(run)
    other = Manifest("0", "test/accuracy", (*frozen.elements, element(6, "2", 0)))
    with pytest.raises(ValueError, match=r"was frozen with other trainings or settings; give the same --top"):
        freeze(run, other)
    for each in frozen.elements:
        finish(run, each.name, 0.5)
    with pytest.raises(ValueError, match=r"was frozen with other trainings or settings"):
        freeze(run, replace(other, config_hash="1"))
    assert read_manifest(run) == frozen
    job(run, "retrain-6", "finished")  # of an earlier list
    freeze(run, other)
    assert read_manifest(run) == other
    assert outcomes(run)[6].why == "not begun"


def judged_element(index: int) -> Element:
    name = f"sampled-{index}"
    return Element(
        index, f"{name}-seed0", name, "sampled", (index,), "0", 0, None, 0.5, f"correlation/trials/{name}.json"
    )


def test_trainings_that_judge_the_score_are_collected_too(run: RunDir) -> None:
    """Also before anything is frozen for retraining; a ranking of another sample does not count."""
    run.manifest_json.unlink()
    elements = tuple(map(judged_element, range(3)))
    freeze(run, Manifest("0", "test/accuracy", elements), CORRELATION)
    write_json(run.ranking_json, {"sample": [{"network": "sampled-9"}]})
    write_json(run.root / elements[0].result, {"test/accuracy": 0.5, "diverged": None})
    write_json(run.root / elements[1].result, {"diverged": "the loss is nan"})
    job(run, "correlate-2", "failed", "OSError: disk full")
    found, complete = collect(run)
    assert not complete and found[0].startswith("to judge the score")
    assert "diverged: element 1 (sampled-1-seed0): the loss is nan" in found
    assert "failed: element 2 (sampled-2-seed0): OSError: disk full" in found
    assert f"python launch/correlate.py '{run.root}' --index 2" in found
    (run.slurm / "correlate.sbatch").write_text("#!/bin/bash\n#SBATCH --array=0-2%4\n")
    (run.slurm / "correlate-rest.sbatch").write_text("#!/bin/bash\n")
    found, _ = collect(run)
    assert any(
        line.startswith("sbatch") and "correlate-rest.sbatch" in line and "--array=2%4" in line for line in found
    )
    write_json(run.root / elements[2].result, {"test/accuracy": 0.7, "diverged": None})
    found, complete = collect(run)
    assert not complete and found[-2] == f"to add them up: sbatch '{run.slurm.resolve()}/correlate-rest.sbatch'"
    write_json(run.ranking_json, {"sample": [{"network": element.network} for element in elements]})
    found, complete = collect(run)
    assert complete and found[-2].startswith("whether it ranks: ")
    freeze(run, Manifest("0", "test/accuracy", tuple(element(i, "1", i) for i in range(2))))
    found, complete = collect(run)
    assert not complete and "missing: element 1 (1-seed1): not begun" in found
