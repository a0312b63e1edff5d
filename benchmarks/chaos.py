"""Kills searches and retrainings without notice at random instants, goes on with them, and compares what comes out.

    python benchmarks/chaos.py [--kills 30] [--ranks 1 2 3] [--stages images clicks training-free] [--kills-a-run 3]

Each stage (a search, or the retraining after one: images-retrained, clicks-retrained) is run once undisturbed, in one
process. Then it is begun again and again: SIGKILL hits all its processes at an instant drawn from the whole of its run,
another number of processes goes on with it, and after some kills it may end. History, supernet and winner, or the
retrained weights and metrics, must be those of the undisturbed run, byte for byte. One line a kill, one a run; the exit
status is the number of runs that differ.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from subshot.data.digits import write_digits
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.synthetic_clicks import write_synthetic_log
from subshot.train.job_record import read_heartbeats, read_job
from subshot.train.run_dir import RunDir, file_digest, read_json

REPOSITORY = Path(__file__).resolve().parents[1]
EVOLUTION = ["--evolution.budget=40", "--evolution.population=10", "--evolution.sample=4", "--evolution.children=10"]
IMAGES = ["digits", "--data=images", "--space.width=0.125", "--images.batch-size=32", "--images.search-fraction=0.2"]
IMAGES += ["--warmup.recipe.epochs=8", "--limits.max-macs=1.5e6", "--score.kind=one_shot"]
IMAGES += ["--score.calibration-images=64", *EVOLUTION]
CLICKS = ["nasrec-full-criteo", "--data=prepared", "--space.blocks=3", "--space.max-dense-dim=64"]
CLICKS += ["--space.max-sparse-dim=32", "--warmup.fraction=0.75", "--warmup.recipe.learning-rate=0.05"]
CLICKS += ["--warmup.checkpoint-steps=5", "--batches.batch-size=60", "--batches.num-shards=6", "--score.population=8"]
CLICKS += [*EVOLUTION, "--evolution.best=2", "--evolution.controls=2", "--retrain.layer-norm"]
CLICKS += ["--retrain.top=2", "--retrain.controls=1", "--retrain.seeds=1", "--retrain.baselines", "dlrm"]
TRAINING_FREE = ["nasbench201-cifar10", "--data=images", "--space.input-size=8", "--score.population=8"]
TRAINING_FREE += ["--score.batch-size=8", *EVOLUTION]
RETRAIN_IMAGES = ["--controls=1", "--epochs=6"]
STAGES = {
    "images": IMAGES,
    "clicks": CLICKS,
    "training-free": TRAINING_FREE,
    "images-retrained": RETRAIN_IMAGES,
    "clicks-retrained": [],
}
Stage = Literal["images", "clicks", "training-free", "images-retrained", "clicks-retrained"]
AFTER = "-retrained"
IMAGES_A_CLASS = 20
EARLY, ONE_ALONE = 0.2, 0.3
"""The shares of kills that hit a run that is being opened, and that hit one process of several."""
PERIODIC = ["--checkpoint-minutes=0.01"]
"""So often that a kill in the warm-up may meet one being written."""


@dataclass(frozen=True)
class Arguments:
    kills: int = 30
    ranks: tuple[int, ...] = (1, 2, 3)
    stages: tuple[Stage, ...] = ("images", "clicks", "training-free", "images-retrained", "clicks-retrained")
    kills_a_run: int = 3
    seed: int = 0
    folder: Path | None = None
    """Where the runs are left; None: a temporary folder."""


def job_of(stage: str) -> str:
    return "retrain" if stage.endswith(AFTER) else "search"


def command(stage: str, run: RunDir, ranks: int) -> list[str]:
    launch = REPOSITORY / "launch"
    script = [str(launch / "search.py"), *STAGES[stage], f"--run-dir={run.root}", "--resume"]
    if stage.endswith(AFTER):
        script = [str(launch / "retrain.py"), str(run.root), *STAGES[stage]]
    script += PERIODIC
    if ranks == 1:
        return [sys.executable, *script]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *script]


def start(stage: str, run: RunDir, ranks: int, folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(stage, run, ranks),
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(stage: str, run: RunDir, ranks: int, folder: Path) -> float:
    """Runs to the end; returns the seconds from the job's own beginning."""
    process = start(stage, run, ranks, folder)
    _, said = process.communicate(timeout=600)
    if process.returncode != 0:
        raise RuntimeError(f"{stage} on {ranks} process(es) ended with {process.returncode}:\n{said}")
    record = read_job(run, job_of(stage))
    assert record is not None
    return record.updated_unix - record.begun_unix


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += map(int, task.read_text().split())
    return [pid, *(found for child in children for found in family(child))]


def kill(process: subprocess.Popen[str], only: random.Random | None = None) -> None:
    """SIGKILL to all processes of a command at once, the launcher first; with `only` to a random one of them, whose
    loss the others have to notice, and to end."""
    hit = family(process.pid)
    for pid in hit if only is None else [only.choice(hit[1:] or hit)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=200)


def begun(job: str, run: RunDir, process: subprocess.Popen[str], since: float) -> bool:
    """Waits until the job says that it runs; False where it ended before."""
    while process.poll() is None:
        record = read_job(run, job)
        if record is not None and record.begun_unix > since:
            return True
        time.sleep(0.01)
    return False


def claimed(stage: str, run: RunDir, process: subprocess.Popen[str]) -> bool:
    """Waits until the run's folder is claimed; False where the command ended before."""
    while process.poll() is None:
        if run.claim_json(job_of(stage)).is_file():
            return True
        time.sleep(0.001)
    return False


def outcome(stage: str, run: RunDir) -> dict[str, str]:
    """What must not depend on how a run came to its end."""
    if stage.endswith(AFTER):
        files = [*run.winners.glob("*/model.safetensors"), *run.winners.glob("*/metrics.json")]
        files += run.trial_json("x").parent.glob("*.json")
        files += [path for path in (run.comparison_json,) if path.is_file()]
        assert files, "something was retrained"
        return {str(path.relative_to(run.root)): file_digest(path) for path in files}
    found = {"history": file_digest(run.history_jsonl), "winner": str(read_json(run.summary_json)["best"][0])}
    for path in (run.supernet, run.paths_jsonl, run.score_json):
        if path.is_file():
            found[path.name] = file_digest(path)
    return found


def fresh(stage: str, name: str, folder: Path) -> RunDir:
    """A run folder in which the stage can begin."""
    run = RunDir(folder / name)
    if stage.endswith(AFTER):
        shutil.copytree(folder / stage.removesuffix(AFTER), run.root)
    return run


def disturbed(
    stage: str, run: RunDir, kills: int, seconds: float, rng: random.Random, world: Arguments, at: Path
) -> int:
    """Begins a run and kills it up to `kills` times, then lets it end; returns how often it was hit."""
    hit = 0
    for _ in range(kills):
        ranks, since = rng.choice(world.ranks), time.time()
        process = start(stage, run, ranks, at)
        early = rng.random() < EARLY  # from the claim on, before the job says that it runs
        if not (claimed(stage, run, process) if early else begun(job_of(stage), run, process, since)):
            process.communicate()
            break
        delay = rng.uniform(0.0, 0.05 if early else seconds)
        time.sleep(delay)
        if process.poll() is not None:
            process.communicate()
            break
        alone = ranks > 1 and rng.random() < ONE_ALONE
        kill(process, rng if alone else None)
        hit += 1
        beats = read_heartbeats(run, job_of(stage))
        where = f"{beats[0].stage} {beats[0].done}" if beats else "nothing yet"
        whom = f"one of {ranks} processes" if alone else f"{ranks} process(es)"
        when = "in opening the run" if early else f"after {delay:5.2f} s, at {where}"
        print(f"  {stage}: killed {whom} {when}", flush=True)
    last = rng.choice(world.ranks)
    finish(stage, run, last, at)
    print(f"  {stage}: ended on {last} process(es)", flush=True)
    return hit


def chaos(arguments: Arguments, folder: Path) -> int:
    rng = random.Random(arguments.seed)
    write_digits(folder / "images")
    for label in folder.glob("images/*/*"):
        for path in sorted(label.iterdir())[IMAGES_A_CLASS:]:
            path.unlink()
    if any(stage.startswith("clicks") for stage in arguments.stages):
        raw = write_synthetic_log(folder / "raw.tsv", 4000, 0)
        prepare_clicks("criteo", raw, folder / "prepared", PrepareOptions(max_rows_per_table=300))
    undisturbed, seconds = {}, {}
    searched = [stage.removesuffix(AFTER) for stage in arguments.stages]
    for stage in dict.fromkeys([*searched, *arguments.stages]):
        run = fresh(stage, stage, folder)
        seconds[stage] = finish(stage, run, 1, folder)
        undisturbed[stage] = outcome(stage, run)
        print(f"{stage}: undisturbed in {seconds[stage]:.1f} s", flush=True)
    kills = runs = differing = 0
    while kills < arguments.kills:
        stage = arguments.stages[runs % len(arguments.stages)]
        run = fresh(stage, f"{stage}-{runs}", folder)
        wanted = min(arguments.kills_a_run, arguments.kills - kills)
        kills += disturbed(stage, run, wanted, seconds[stage], rng, arguments, folder)
        runs += 1
        found = outcome(stage, run)
        wrong = sorted(
            name for name in found.keys() | undisturbed[stage].keys() if found.get(name) != undisturbed[stage].get(name)
        )
        differing += bool(wrong)
        print(f"{stage}: {'DIFFERS in ' + ', '.join(wrong) if wrong else 'the same bytes'}", flush=True)
    print(f"{kills} kills over {runs} runs: {differing} differ")
    return differing


def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        return chaos(arguments, arguments.folder.resolve())
    with tempfile.TemporaryDirectory() as folder:
        return chaos(arguments, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
