"""What the elements of a run's arrays have given: metrics over seeds, what is missing or failed, and the command that
submits it again. Reads files alone, and needs no torch.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from subshot.launch.manifest import CORRELATION, RETRAINING, Array, Element, read_manifest
from subshot.train.job_record import read_heartbeats, read_job, read_jobs
from subshot.train.run_dir import RunDir, read_json, read_jsonl

SILENT_SECONDS = 60.0
SHOWN_SCORES = 5
Progress = Literal["finished", "diverged", "failed", "running", "queued", "stopped", "missing"]


@dataclass(frozen=True)
class Outcome:
    """Of an element. value: of the manifest's metric. why: of failed and unfinished ones."""

    element: Element
    progress: Progress
    value: float | None = None
    why: str = ""


def outcomes(run: RunDir, array: Array = RETRAINING) -> list[Outcome]:
    manifest = read_manifest(run, array)
    queued = queued_elements(run.batch_script(array.name))
    return [outcome(run, array, element, manifest.metric, queued) for element in manifest.elements]


def outcome(run: RunDir, array: Array, element: Element, metric: str, queued: set[int]) -> Outcome:
    path = run.root / element.result
    if path.is_file():
        result = read_json(path)
        found = result.get(metric)
        if found is None:
            return Outcome(element, "diverged", why=str(result.get("diverged") or f"{path} has no {metric}"))
        return Outcome(element, "finished", float(found["value"] if isinstance(found, dict) else found))
    job = f"{array.name}-{element.index}"
    record = read_job(run, job)
    beats = [beat.beat_unix for beat in read_heartbeats(run, job)]
    if record is None or record.state == "finished":  # an earlier list's element of this number, or its result is gone
        return Outcome(element, "queued" if element.index in queued else "missing", why="not begun")
    silent = time.time() - max([record.begun_unix, *beats])
    if record.state == "running" and silent < SILENT_SECONDS:
        return Outcome(element, "running", why=f"on {record.host}, heard of {silent:.0f} s ago")
    if element.index in queued:
        return Outcome(element, "queued", why="waits, or starts again")
    if record.state == "failed":
        return Outcome(element, "failed", why=first_line(record.message))
    if record.state == "running":
        return Outcome(element, "missing", why=f"killed without notice: silent for {silent:.0f} s")
    return Outcome(element, "stopped", why=first_line(record.message) or record.state)


def queued_elements(path: Path) -> set[int]:
    """Of the array that a script was submitted as, those that SLURM still has; none where it cannot be asked."""
    return {int(job.partition("_")[2]) for job in queued_jobs(path) if job.partition("_")[2].isdigit()}


def queued_jobs(path: Path) -> list[str]:
    """SLURM's ids of the user's jobs that wait or run and were submitted as this script."""
    if shutil.which("squeue") is None or not path.is_file():
        return []
    asked = ["squeue", "--me", "--noheader", "--array", "--format=%i|%o"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return []
    rows = [line.partition("|") for line in done.stdout.splitlines()]
    return [job for job, _, command in rows if Path(command) == path.resolve()]


def table(found: list[Outcome], metric: str) -> list[str]:
    """A line a network: mean and standard deviation over its seeds."""
    networks = list(dict.fromkeys(outcome.element.network for outcome in found))
    width = max(7, *(len(network) for network in networks)) if networks else 7
    lines = [f"{'network':{width}}  {'n':>7}  {metric:>20}  {'sd':>8}"]
    for network in networks:
        mine = [outcome for outcome in found if outcome.element.network == network]
        values = [outcome.value for outcome in mine if outcome.value is not None]
        mean = f"{statistics.fmean(values):.4f}" if values else "-"
        spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "-"
        lines.append(f"{network:{width}}  {f'{len(values)} of {len(mine)}':>7}  {mean:>20}  {spread:>8}")
    return lines


def unfinished(found: list[Outcome]) -> list[str]:
    """A line for each element that is not done, or diverged."""
    return [
        f"{outcome.progress}: element {outcome.element.index} ({outcome.element.name}): {outcome.why}"
        for outcome in found
        if outcome.progress != "finished"
    ]


def to_submit(found: list[Outcome]) -> list[int]:
    """Indices of those that nobody works on, and that no queue holds."""
    return [outcome.element.index for outcome in found if outcome.progress in ("failed", "stopped", "missing")]


def resubmission(run: RunDir, indices: list[int], name: str = "retrain") -> str:
    """The command that runs these elements, and what waits for them, if anything; without batch scripts one line
    each."""
    path = run.batch_script(name).resolve()
    if not path.is_file():
        folder = shlex.quote(str(run.root))
        return "\n".join(f"python launch/{name}.py {folder} --index {index}" for index in indices)
    array = f"--array={','.join(map(str, indices))}%{at_once(path)}"
    again = f"sbatch {array} {shlex.quote(str(path))}"
    rest = run.batch_script(f"{name}-rest").resolve()
    if not rest.is_file():
        return again
    waiting = f'--dependency=afterok:"$(sbatch --parsable {array} {shlex.quote(str(path))})"'
    return f"sbatch --kill-on-invalid-dep=yes {waiting} {shlex.quote(str(rest))}"


def at_once(path: Path) -> int:
    """As the script's array says."""
    found = re.search(r"^#SBATCH --array=\S*%(\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) if found else 1


def shares(path: Path) -> int:
    """How many elements the script's array has."""
    found = re.search(r"^#SBATCH --array=0-(\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) + 1 if found else 0


def scored(run: RunDir) -> list[dict[str, Any]]:
    """Rows of all shares, every network once, best first; undefined scores last."""
    rows: dict[tuple[int, ...], dict[str, Any]] = {}
    for path in sorted(run.scores_jsonl("x", 0).parent.glob("score-*-rank*.jsonl")):
        for row in read_jsonl(path):
            rows.setdefault(tuple(row["genotype"]), row)
    return sorted(rows.values(), key=lambda row: -row["score"] if row["score"] is not None else float("inf"))


def missing_shares(run: RunDir) -> list[int]:
    """Those whose job did not finish and is not in the queue."""
    path = run.batch_script("score")
    if not path.is_file():
        return []
    finished = {job.job for job in read_jobs(run) if job.state == "finished"}
    queued = queued_elements(path)
    return [index for index in range(shares(path)) if f"score-{index}" not in finished and index not in queued]


def score_lines(run: RunDir) -> tuple[list[str], bool]:
    """What a scored population gave, if there is one, and whether it is complete."""
    rows, missing = scored(run), missing_shares(run)
    path = run.batch_script("score")
    if not rows and not path.is_file():
        return [], True
    given = [row for row in rows if row["score"] is not None]
    lines = [f"scores: {len(rows)} networks, {len(rows) - len(given)} of them without a score"]
    lines += [f"  {row['score']:.6g}  {' '.join(map(str, row['genotype']))}" for row in given[:SHOWN_SCORES]]
    if missing:
        lines += [f"missing shares: {', '.join(map(str, missing))}; submit them again:"]
        lines += [resubmission(run, missing, "score")]
    return [*lines, ""], not missing


def rest_lines(run: RunDir, elements_done: bool) -> tuple[list[str], bool]:
    """Of what depends on the array (CTR): its table, or the command that submits it; and whether it is finished."""
    path = run.batch_script("retrain-rest")
    record = read_job(run, "retrain")
    if not path.is_file() or (record is not None and record.state == "finished"):
        return ["", *tested(read_json(run.comparison_json))] if run.comparison_json.is_file() else [], True
    state = "not begun" if record is None else f"{record.state} {first_line(record.message)}".strip()
    lines = ["", f"the rest (tuning, tests, the winner's folder): {state}"]
    if elements_done and not queued_jobs(path):
        lines.append(f"sbatch {shlex.quote(str(path.resolve()))}")
    return lines, False


def array_lines(run: RunDir, array: Array) -> tuple[list[str], bool]:
    """What the elements of an array gave, the command for those that are missing, and whether all are done. Raises
    ValueError where there is no manifest."""
    found = outcomes(run, array)
    lines = [*table(found, read_manifest(run, array).metric), *unfinished(found)]
    again = to_submit(found)
    if again:
        command = resubmission(run, again, array.name)
        lines += ["", f"{len(again)} to run again, when what failed is mended:", command]
    return lines, all(outcome.progress in ("finished", "diverged") for outcome in found)


def judging_lines(run: RunDir) -> tuple[list[str], bool]:
    """Of the trainings that judge the score, if there are any: what they gave, and whether they are added up."""
    if not CORRELATION.manifest_json(run).is_file():
        return [], True
    lines, elements_done = array_lines(run, CORRELATION)
    lines = ["to judge the score, and to choose nothing by:", *lines]
    if elements_done and is_ranked(run):
        return [*lines, f"whether it ranks: {run.ranking_json}, and the report", ""], True
    path = run.batch_script("correlate-rest")
    if elements_done and not queued_jobs(path):
        command = f"sbatch {shlex.quote(str(path.resolve()))}" if path.is_file() else ""
        lines.append(f"to add them up: {command or f'python launch/correlate.py {shlex.quote(str(run.root))}'}")
    return [*lines, ""], False


def is_ranked(run: RunDir) -> bool:
    """Whether ranking.json is of the networks of the manifest, and not of an earlier sample."""
    if not run.ranking_json.is_file():
        return False
    ranked = [network["network"] for network in read_json(run.ranking_json).get("sample", [])]
    return set(ranked) == {element.network for element in read_manifest(run, CORRELATION).elements}


def tested(comparison: dict[str, Any]) -> list[str]:
    """The networks that a CTR run tested: mean and standard deviation of the log loss over trainings."""
    lines = [f"{'tested network':24}{'n':>3}{'test/log_loss':>16}{'sd':>10}"]
    for row in comparison["networks"]:
        loss = row["test/log_loss"]
        spread = "-" if loss.get("sd") is None else f"{loss['sd']:.5f}"
        lines.append(f"{row['name']:24}{row['trainings']:>3}{loss['mean']:>16.5f}{spread:>10}")
    return lines


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def collect(run: RunDir) -> tuple[list[str], bool]:
    """What there is to say, and whether all is done. Raises ValueError where there is no manifest."""
    if not run.root.is_dir():
        raise ValueError(f"there is no folder {run.root}; name the run folder, as --run-dir did")
    os.listdir(run.root)  # NFS looks again
    lines, scores_done = score_lines(run)
    judging, judging_done = judging_lines(run)
    lines += judging
    if judging and not run.manifest_json.is_file():
        return lines, scores_done and judging_done
    try:
        retraining, elements_done = array_lines(run, RETRAINING)
    except ValueError as error:
        if lines and not run.manifest_json.is_file():
            raise ValueError("\n".join([*lines, str(error)])) from error
        raise
    rest, rest_done = rest_lines(run, elements_done)
    return [*lines, *retraining, *rest], elements_done and scores_done and judging_done and rest_done
