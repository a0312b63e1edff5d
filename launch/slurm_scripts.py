"""The batch scripts of a run, as text: search, scoring shares, retrainings, for CTR what follows these, and the
trainings that judge the score with what adds them up.

They are meant to be read, and changed, before they are submitted; whatever stands in them was known on submission. A
script asks launch/status.py how its job ended, because the exit status of torchrun says 1 after a good stop too.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from subshot.launch.manifest import LEAST_SAMPLE, MOST_SAMPLE
from subshot.launch.options import at_least
from subshot.train.run_dir import RunDir

SEARCH, SCORE, RETRAIN, REST = "search", "score", "retrain", "retrain-rest"
CORRELATE, CORRELATE_REST = "correlate", "correlate-rest"
TIME = re.compile(r"(\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2})")


@dataclass(frozen=True)
class SlurmConfig:
    """What the cluster is asked for. An element is one training, or one share of the scores, of an array."""

    partition: str = ""
    """Empty: the cluster's default."""
    account: str = ""
    nodes: int = 1
    """Of the search."""
    processes_per_node: int = 0
    """0: one a GPU, without GPUs one."""
    gpus_per_node: int = 0
    gpus_per_element: int = -1
    """-1: one where the search has GPUs. More than one only for images."""
    cpus_per_task: int = 0
    """Of a node's processes together; 0: as many as their threads. An element gets its share of them."""
    time: str = "24:00:00"
    """D-HH:MM:SS or HH:MM:SS. A job that is stopped at its limit goes on in the queue."""
    element_time: str = ""
    """Of an element; empty: as `time`."""
    memory: str = ""
    """A node, as SLURM writes it (32G); empty: the cluster's default."""
    grace_seconds: int = 300
    """Notice before the time limit: SIGUSR1 so long before it, for the last checkpoint."""
    at_once: int = 8
    """Elements that run at the same time."""
    top: int | None = None
    """As launch/retrain.py's --top; so are the next two."""
    controls: int | None = None
    seeds: int | None = None
    population: int = 0
    """Random networks that are scored after the warm-up, by launch/score.py; 0: none."""
    shares: int = 8
    """Elements that they are dealt to."""
    correlate: int = 0
    """Networks, 8 to 30, that launch/correlate.py trains from scratch to judge the score; 0: none."""
    correlate_seeds: int = 1
    """Trainings of each of them."""
    max_requeues: int = 20
    """A job that was begun again so often gives up."""
    extra: str = ""
    """More options of sbatch, for all jobs: "--qos=long --constraint=a100"."""
    setup: str = ""
    """A line of bash before the work, for all jobs: "module load cuda"."""

    def __post_init__(self) -> None:
        least = {"nodes": 1, "processes_per_node": 0, "gpus_per_node": 0, "gpus_per_element": -1, "cpus_per_task": 0}
        least |= {"grace_seconds": 1, "at_once": 1, "top": 1, "controls": 0, "seeds": 1, "population": 0, "shares": 1}
        at_least("--slurm.", self, **least, max_requeues=0, correlate=0, correlate_seeds=1)
        if self.correlate and not LEAST_SAMPLE <= self.correlate <= MOST_SAMPLE:
            raise ValueError(
                f"{option('correlate')} is {self.correlate}; it must be 0, or {LEAST_SAMPLE} to {MOST_SAMPLE}"
            )
        for name in ("time", "element_time"):
            given = getattr(self, name)
            if (given or name == "time") and not TIME.fullmatch(given):
                raise ValueError(f"{option(name)} is {given!r}; write it as HH:MM:SS or D-HH:MM:SS")
        for name in ("partition", "account", "memory", "extra", "setup"):
            if "\n" in getattr(self, name):
                raise ValueError(f"{option(name)} has several lines; it must be one")

    @property
    def processes(self) -> int:
        """Of a node."""
        return self.processes_per_node or max(1, self.gpus_per_node)

    @property
    def element_gpus(self) -> int:
        return min(1, self.gpus_per_node) if self.gpus_per_element < 0 else self.gpus_per_element


def option(name: str) -> str:
    return f"--slurm.{name.replace('_', '-')}"


@dataclass(frozen=True)
class Plan:
    """All that the scripts depend on. Paths are absolute: a script is submitted from anywhere."""

    run: Path
    here: Path
    """Where the jobs work: relative paths of the search's options are meant from here."""
    code: Path
    """The repository."""
    python: str
    search: tuple[str, ...]
    """Arguments of launch/search.py without --run-dir and --resume."""
    slurm: SlurmConfig
    elements: int
    """How many retrainings there are at most."""
    has_rest: bool
    """Whether something is left to do after the array: for CTR the tuning, the tests and the winner."""
    threads: int
    """torch threads a process."""
    cpus: int
    """Threads a process, readers of images included."""

    @property
    def folder(self) -> RunDir:
        return RunDir(self.run)

    def __post_init__(self) -> None:
        for path in (self.run, self.here, self.code):
            if any(character in str(path) for character in '"\\\n'):
                raise ValueError(f"{path} has a quotation mark, a backslash or a new line, which sbatch cannot read")


def scripts(plan: Plan) -> dict[str, str]:
    """Name and text of every script, in the order in which they are submitted."""
    found = {SEARCH: search_script(plan)}
    if plan.slurm.population:
        found[SCORE] = score_script(plan)
    found[RETRAIN] = retrain_script(plan)
    if plan.has_rest:
        found[REST] = rest_script(plan)
    if plan.slurm.correlate:
        found[CORRELATE] = correlate_script(plan)
        found[CORRELATE_REST] = correlate_rest_script(plan)
    return found


def which_networks(slurm: SlurmConfig) -> list[str]:
    """The options of launch/retrain.py that freeze the manifest."""
    given = (("--top", slurm.top), ("--controls", slurm.controls), ("--seeds", slurm.seeds))
    return [word for name, value in given if value is not None for word in (name, str(value))]


def which_sample(slurm: SlurmConfig) -> list[str]:
    """The options of launch/correlate.py that freeze its manifest."""
    return ["--sample", str(slurm.correlate), "--seeds", str(slurm.correlate_seeds)]


def search_script(plan: Plan) -> str:
    command = ["launch/search.py", *plan.search, "--run-dir", str(plan.run), "--resume"]
    freeze = shlex.join(["--freeze", *which_networks(plan.slurm)])
    sample = shlex.join(["--freeze", *which_sample(plan.slurm)])
    judging = [f'"$python" "$code/launch/correlate.py" "$run" {sample} || exit 1'] if plan.slurm.correlate else []
    return "\n".join(
        [
            *header(plan, SEARCH, "Warm-up and search; then the list of retrainings is frozen."),
            *settings(plan, "search"),
            *on_all_nodes(plan, command),
            *ending(plan),
            "",
            "# From now on element I of retrain.sbatch is line I of manifest.json.",
            f'"$python" "$code/launch/retrain.py" "$run" {freeze} || exit 1',
            *judging,
            "",
        ]
    )


def rest_script(plan: Plan) -> str:
    command = ["launch/retrain.py", str(plan.run), *which_networks(plan.slurm)]
    return "\n".join(
        [
            *header(plan, REST, "What depends on the array's results: tuning, tests, and the winner's folder."),
            *settings(plan, "retrain"),
            *on_all_nodes(plan, command),
            *ending(plan),
            "",
        ]
    )


def retrain_script(plan: Plan) -> str:
    array = f"--array=0-{plan.elements - 1}%{plan.slurm.at_once}"
    return "\n".join(
        [
            *header(plan, RETRAIN, "One retraining an element; a finished one is left as it is.", array),
            *settings(plan, "retrain-$SLURM_ARRAY_TASK_ID", past_the_end=True),
            *in_one_place(plan, ["launch/retrain.py", str(plan.run), "--index"]),
            *ending(plan),
            "",
        ]
    )


def correlate_script(plan: Plan) -> str:
    slurm = plan.slurm
    array = f"--array=0-{slurm.correlate * slurm.correlate_seeds - 1}%{slurm.at_once}"
    return "\n".join(
        [
            *header(plan, CORRELATE, "One training an element, to judge the score; a finished one is left.", array),
            *settings(plan, "correlate-$SLURM_ARRAY_TASK_ID"),
            *in_one_place(plan, ["launch/correlate.py", str(plan.run), "--index"]),
            *ending(plan),
            "",
        ]
    )


def correlate_rest_script(plan: Plan) -> str:
    return "\n".join(
        [
            *header(plan, CORRELATE_REST, "Adds the array's results up: whether the score ranks.", in_one_place=True),
            *settings(plan, "correlate"),
            *in_one_place(plan, ["launch/correlate.py", str(plan.run), *which_sample(plan.slurm)], indexed=False),
            *ending(plan),
            "",
        ]
    )


def score_script(plan: Plan) -> str:
    slurm = plan.slurm
    population = ["--population", str(slurm.population), "--of", str(slurm.shares)]
    array = f"--array=0-{slurm.shares - 1}%{slurm.at_once}"
    return "\n".join(
        [
            *header(plan, SCORE, f"Scores of {slurm.population} random networks, a share an element.", array),
            *settings(plan, "score-$SLURM_ARRAY_TASK_ID"),
            *in_one_place(plan, ["launch/score.py", str(plan.run), *population, "--index"]),
            *ending(plan),
            "",
        ]
    )


def header(plan: Plan, name: str, what: str, array: str = "", in_one_place: bool = False) -> list[str]:
    """sbatch's options. Without an array: one task a node, which is torchrun; in one place: as big as an element."""
    slurm = plan.slurm
    small = bool(array) or in_one_place
    log = f"{plan.folder.batch_logs}/".replace("%", "%%") + f"{name}-{'%A_%a' if array else '%j'}.log"
    gpus = slurm.element_gpus if small else slurm.gpus_per_node
    lines = [
        f"--job-name={name}",
        f'--output="{log}"',
        f'--chdir="{plan.here}"',
        array or f"--nodes={1 if small else slurm.nodes}",
        "--ntasks=1" if small else "--ntasks-per-node=1",
        f"--cpus-per-task={cpus(plan, small)}",
        f"--gres=gpu:{gpus}" if gpus else "",
        f"--mem={slurm.memory}" if slurm.memory else "",
        f"--time={(slurm.element_time if small else '') or slurm.time}",
        f"--partition={slurm.partition}" if slurm.partition else "",
        f"--account={slurm.account}" if slurm.account else "",
        slurm.extra,
        f"--requeue --open-mode=append --signal=USR1@{slurm.grace_seconds}",
    ]
    written = "# Written by launch/slurm.py; submit it again by hand whenever you like."
    return ["#!/bin/bash", f"# {what}", written, *(f"#SBATCH {line}" for line in lines if line)]


def cpus(plan: Plan, is_element: bool) -> int:
    """Of the one task on a node."""
    slurm = plan.slurm
    processes = max(1, slurm.element_gpus) if is_element else slurm.processes
    if slurm.cpus_per_task:
        return max(1, slurm.cpus_per_task * processes // slurm.processes)
    return plan.cpus * processes


def settings(plan: Plan, job: str, past_the_end: bool = False) -> list[str]:
    """Variables, the user's own line, and how far the job was before. past_the_end: elements that the manifest does
    not have end at once."""
    is_element = job.endswith("$SLURM_ARRAY_TASK_ID")
    lines = [
        "set -u",
        f"run={shlex.quote(str(plan.run))}",
        f"code={shlex.quote(str(plan.code))}",
        f"python={shlex.quote(plan.python)}",
        f"job={job}",
        "id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if is_element else "id=$SLURM_JOB_ID",
        'status() { "$python" "$code/launch/status.py" "$run" "$@"; }',
        *([plan.slurm.setup] if plan.slurm.setup else []),
        f"export OMP_NUM_THREADS={plan.threads}",
        "",
    ]
    if past_the_end:
        lines += [
            "elements=$(status --elements) || exit 2",
            "if (( SLURM_ARRAY_TASK_ID >= elements )); then",
            '  echo "element $SLURM_ARRAY_TASK_ID: the manifest has only $elements, so there is nothing to do"',
            "  exit 0",
            "fi",
        ]
    return [*lines, 'mark=$(status --job "$job" --mark) || exit 2']


def on_all_nodes(plan: Plan, command: list[str]) -> list[str]:
    """One torchrun a node; they meet at the first node, at a port that no other job of the user has."""
    slurm = plan.slurm
    script, *arguments = command
    return [
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        'if [[ -z "$head" ]]; then',
        '  echo "scontrol names no host of this job, so its processes cannot meet" >&2',
        "  exit 2",
        "fi",
        "port=$((10000 + SLURM_JOB_ID % 20000))",
        "",
        "# --wait: a node that is lost ends the others too, when they have had time to save.",
        'srun --nodes="$SLURM_NNODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \\',
        f"  --kill-on-bad-exit=0 --wait={slurm.grace_seconds} \\",
        f'  "$python" -m torch.distributed.run --nnodes "$SLURM_NNODES" --nproc-per-node {slurm.processes} \\',
        '  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:$port" \\',
        f"  --signals-to-handle SIGTERM,SIGINT,SIGUSR1 --shutdown-timeout {slurm.grace_seconds} \\",
        f'  "$code/{script}" {shlex.join(arguments)}',
        "",
    ]


def in_one_place(plan: Plan, command: list[str], indexed: bool = True) -> list[str]:
    """An element's command, its number at the end where it is of an array; torchrun where it has several GPUs."""
    script, *arguments = command
    number = ' "$SLURM_ARRAY_TASK_ID"' if indexed else ""
    several = plan.slurm.element_gpus
    launcher = [
        f'  -m torch.distributed.run --standalone --nproc-per-node "{several}" \\',
        f"  --signals-to-handle SIGTERM,SIGINT,SIGUSR1 --shutdown-timeout {plan.slurm.grace_seconds} \\",
    ]
    return [
        "",
        "# srun: the notice before the time limit goes to its tasks.",
        'srun --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" "$python" \\',
        *(launcher if several > 1 else []),
        f'  "$code/{script}" {shlex.join(arguments)}{number}',
        "",
    ]


def ending(plan: Plan) -> list[str]:
    """Done, once more from the queue, or given up. status.py says which, and in a sentence why."""
    most = plan.slurm.max_requeues
    return [
        "# How it ended stands in the job's record: torchrun's exit status is 1 after a good stop too.",
        "preempted=$(scontrol show job \"$id\" | grep -o 'PreemptTime=[0-9]')",
        'case $(status --job "$job" --verdict "$mark" ${preempted:+--preempted}) in',
        "finished) ;;",
        "requeue)",
        f"  if (( ${{SLURM_RESTART_COUNT:-0}} >= {most} )); then",
        f'    echo "$job: begun again {most} times, which is the limit (--slurm.max-requeues)" >&2',
        "    exit 1",
        "  fi",
        '  scontrol requeue "$id" || exit 1',
        "  exit 0 ;;",
        "*) exit 1 ;;",
        "esac",
    ]
