"""The batch scripts: what stands in them, what is refused before any is written, and how they act on a job's end. Here
bash runs them with stand-ins for SLURM's commands; tests/slurm runs them in a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from subshot.launch import slurm
from subshot.launch.manifest import Element, Manifest, freeze
from subshot.launch.slurm_scripts import Plan, SlurmConfig, scripts
from subshot.train.run_dir import RunDir

REPOSITORY = Path(__file__).resolve().parents[2]


def plan_of(tmp_path: Path, settings: SlurmConfig | None = None, has_rest: bool = False) -> Plan:
    return Plan(
        run=tmp_path / "a run",
        here=tmp_path,
        code=REPOSITORY,
        python=sys.executable,
        search=("digits", "--space.width=0.125"),
        slurm=settings or SlurmConfig(),
        elements=6,
        has_rest=has_rest,
        threads=2,
        cpus=3,
    )


EVERYTHING = SlurmConfig(
    partition="long",
    account="us",
    nodes=2,
    gpus_per_node=4,
    gpus_per_element=2,
    memory="32G",
    time="1-00:00:00",
    element_time="02:00:00",
    population=1000,
    shares=20,
    correlate=12,
    correlate_seeds=2,
    extra="--qos=x --exclusive",
    setup="module load cuda",
    seeds=3,
)


@pytest.mark.parametrize("settings", [SlurmConfig(), EVERYTHING], ids=["default", "everything"])
def test_every_script_is_bash(tmp_path: Path, settings: SlurmConfig) -> None:
    found = scripts(plan_of(tmp_path, settings, has_rest=True))
    judging = ["correlate", "correlate-rest"] if settings.correlate else []
    assert list(found) == ["search", *(["score"] if settings.population else []), "retrain", "retrain-rest", *judging]
    for name, text in found.items():
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{name}: {checked.stderr}"
        directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
        assert text.splitlines().index(directives[-1]) < text.splitlines().index("set -u")
        assert "#SBATCH --requeue --open-mode=append --signal=USR1@300" in directives
        assert f'--output="{tmp_path}/a run/slurm/logs/{name}-' in text


def test_search_is_one_torchrun_a_node(tmp_path: Path) -> None:
    text = scripts(plan_of(tmp_path, EVERYTHING))["search"]
    for part in (
        "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n#SBATCH --cpus-per-task=12\n#SBATCH --gres=gpu:4\n",
        "#SBATCH --mem=32G\n#SBATCH --time=1-00:00:00\n#SBATCH --partition=long\n#SBATCH --account=us\n",
        "#SBATCH --qos=x --exclusive\n",
        "\nmodule load cuda\n",
        '--nnodes "$SLURM_NNODES" --nproc-per-node 4',
        '--rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:$port"',
        "--signals-to-handle SIGTERM,SIGINT,SIGUSR1 --shutdown-timeout 300",
        "launch/search.py\" digits --space.width=0.125 --run-dir '",
        "a run' --resume\n",
        "--freeze --seeds 3",
        '"$code/launch/correlate.py" "$run" --freeze --sample 12 --seeds 2 || exit 1',
        "export OMP_NUM_THREADS=2",
    ):
        assert part in text, part


def test_arrays_name_their_elements(tmp_path: Path) -> None:
    found = scripts(plan_of(tmp_path, EVERYTHING))
    assert (
        "#SBATCH --array=0-5%8\n#SBATCH --ntasks=1\n#SBATCH --cpus-per-task=6\n#SBATCH --gres=gpu:2" in found["retrain"]
    )
    assert "#SBATCH --time=02:00:00" in found["retrain"]
    assert '--standalone --nproc-per-node "2"' in found["retrain"]
    assert "#SBATCH --array=0-19%8\n" in found["score"]
    assert '--population 1000 --of 20 --index "$SLURM_ARRAY_TASK_ID"' in found["score"]
    assert "#SBATCH --array=0-23%8\n" in found["correlate"] and "elements=$(" not in found["correlate"]
    assert '--index "$SLURM_ARRAY_TASK_ID"' in found["correlate"]


def test_the_ranking_is_added_up_in_one_place(tmp_path: Path) -> None:
    text = scripts(plan_of(tmp_path, EVERYTHING))["correlate-rest"]
    assert "#SBATCH --nodes=1\n#SBATCH --ntasks=1\n#SBATCH --cpus-per-task=6\n#SBATCH --gres=gpu:2" in text
    assert "a run' --sample 12 --seeds 2\n" in text and "SLURM_ARRAY" not in text
    assert "correlate" not in "".join(scripts(plan_of(tmp_path)).values())


def test_a_path_that_sbatch_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="quotation mark"):
        replace(plan_of(tmp_path), run=tmp_path / 'a "run"')


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digit"], "there is no preset 'digit'"),
        (["digits", "--space.wide", "3"], "--space.wide"),
        (["digits", "--slurm.node", "3"], "--slurm.node"),
        (["digits", "--slurm.nodes", "0"], "--slurm.nodes is 0; it must be 1 or more"),
        (["digits", "--slurm.correlate", "5"], "--slurm.correlate is 5; it must be 0, or 8 to 30"),
        (["digits", "--slurm.time", "tomorrow"], "--slurm.time is 'tomorrow'; write it as"),
        (["digits", "--slurm.nodes", "5"], "--images.num-shards is 4; it must be at least the number of processes"),
        (["clicks", "--slurm.nodes", "4"], "must be a multiple of the number of processes, which is 4"),
        (["clicks", "--slurm.gpus-per-element", "2"], "a retraining on clicks runs in one process"),
        (["mobilenetv2-imagenette"], "add --data PATH"),
        (["digits", "--data", "no/such"], "the data folder no/such does not exist"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    mistake_of: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = ["--run-dir", "mistake"] if len(arguments) > 1 else []
    assert sentence in mistake_of(slurm, *arguments, *extra)
    assert not list(tmp_path.iterdir())


def test_print_shows_all_and_writes_nothing(
    tmp_path: Path, status_of: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["clicks", "--run-dir", "a run", "--resume", "--slurm.extra", "--qos=x", "--seed", "3", "--print"]
    assert status_of(slurm, *given) == 0
    shown = capsys.readouterr().out
    assert "#SBATCH --qos=x\n" in shown
    assert f"launch/search.py\" clicks --seed 3 --run-dir '{tmp_path}/a run' --resume\n" in shown
    # Three networks of the search, three of random search, three controls, three baselines at two rates.
    assert "#SBATCH --array=0-14%8\n" in shown
    assert "--dependency=afterok:<retrain>" in shown.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_without_sbatch_the_scripts_are_left_to_be_looked_at(
    tmp_path: Path, mistake_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch here; the scripts are in" in mistake_of(slurm, "digits", "--run-dir", "run")
    assert sorted(path.name for path in (tmp_path / "run/slurm").glob("*.sbatch")) == [
        "retrain.sbatch",
        "search.sbatch",
    ]


STAND_INS = {
    "scontrol": """case "$1 $2" in
"show hostnames") echo "$HOST" ;;
"show job") echo "   AccrueTime=2026-01-01 PreemptTime=$PREEMPT_TIME" ;;
*) echo "$@" >> scontrol.txt ;;
esac""",
    "srun": f'echo "$@" >> srun.txt; exec {sys.executable} end.py',
    "python": f'case "$*" in *retrain.py*) echo "$@" >> freeze.txt ;; *) exec {sys.executable} "$@" ;; esac',
}
END = """
import sys
from pathlib import Path
from subshot.train.job_record import begin_job, end_job, Pulse
from subshot.train.run_dir import RunDir
run, state = RunDir(Path("a run")), {state!r}
if state != "never begun":
    record = begin_job(run, {job!r}, ["again"], 1)
    Pulse(run, {job!r}, 0, 1).beat("warm-up", {done}, 100)
    if state != "running":
        end_job(run, record, state, "a reason", "warm-up {done}")
sys.exit(1)
"""


def run_script(
    tmp_path: Path,
    name: str,
    state: str,
    done: int = 3,
    host: str = "node1",
    restarts: int = 0,
    elements: int = 1,
    preempted: str = "None",
) -> int:
    """The exit status of a script whose job ends as told, at step `done`. preempted: SLURM's word on when."""
    programs = tmp_path / "programs"
    for program, text in STAND_INS.items():
        programs.mkdir(exist_ok=True)
        (programs / program).write_text(f"#!/bin/bash\n{text}\n")
        (programs / program).chmod(0o755)
    plan = replace(plan_of(tmp_path, SlurmConfig(max_requeues=5)), python=str(programs / "python"))
    slurm.write(plan)
    element = Element(0, "1", "1", "winner", None, "0", 0, None, None, "winners/1/metrics.json")
    freeze(RunDir(plan.run), Manifest("0", "test/accuracy", (element,) * elements))
    job = "search" if name == "search" else f"{name}-0"
    (tmp_path / "end.py").write_text(END.format(state=state, job=job, done=done))
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOST": host, "SLURM_RESTART_COUNT": str(restarts)}
    environment |= {"SLURM_JOB_ID": "70001", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2"}
    environment |= {
        "PREEMPT_TIME": preempted,
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_ARRAY_JOB_ID": "70000",
        "SLURM_ARRAY_TASK_ID": "0",
    }
    text = plan.folder.batch_script(name).read_text().replace("--verdict", "--settle-seconds 0 --verdict")
    done_now = subprocess.run(["bash", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
    (tmp_path / "said.txt").write_text(done_now.stdout + done_now.stderr)
    return done_now.returncode


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_finished_search_freezes_the_manifest(tmp_path: Path) -> None:
    assert run_script(tmp_path, "search", "finished") == 0
    assert "--rdzv-endpoint node1:20001" in lines(tmp_path / "srun.txt")[0]
    assert lines(tmp_path / "freeze.txt")[0].endswith("a run --freeze")
    assert not lines(tmp_path / "scontrol.txt")


def test_a_stopped_or_killed_search_goes_back_to_the_queue(tmp_path: Path) -> None:
    assert run_script(tmp_path, "search", "preempted", done=3) == 0
    assert run_script(tmp_path, "search", "running", done=5) == 0
    assert lines(tmp_path / "scontrol.txt") == ["requeue 70001"] * 2
    assert not lines(tmp_path / "freeze.txt")


@pytest.mark.parametrize(
    ("state", "restarts", "sentence"),
    [
        ("failed", 0, "search failed: a reason"),
        ("never begun", 0, "did not get as far as to begin"),
        ("preempted", 5, "begun again 5 times, which is the limit"),
    ],
)
def test_a_search_that_cannot_go_on_ends_with_a_reason(
    tmp_path: Path, state: str, restarts: int, sentence: str
) -> None:
    assert run_script(tmp_path, "search", state, restarts=restarts) == 1
    assert sentence in (tmp_path / "said.txt").read_text()
    assert not lines(tmp_path / "scontrol.txt")


def test_a_search_without_headway_is_not_begun_for_ever(tmp_path: Path) -> None:
    assert run_script(tmp_path, "search", "running", done=3) == 0
    assert run_script(tmp_path, "search", "running", done=3) == 1
    assert "without any headway" in (tmp_path / "said.txt").read_text()
    assert len(lines(tmp_path / "scontrol.txt")) == 1


def test_a_job_that_is_preempted_before_it_begins_goes_back_to_the_queue(tmp_path: Path) -> None:
    assert run_script(tmp_path, "search", "never begun", preempted="2026-01-02T03:04:05") == 0
    assert lines(tmp_path / "scontrol.txt") == ["requeue 70001"]


def test_no_host_no_rendezvous(tmp_path: Path) -> None:
    assert run_script(tmp_path, "search", "finished", host="") == 2
    assert "names no host" in (tmp_path / "said.txt").read_text()
    assert not lines(tmp_path / "srun.txt")


def test_an_element_is_requeued_alone(tmp_path: Path) -> None:
    assert run_script(tmp_path, "retrain", "preempted") == 0
    assert lines(tmp_path / "srun.txt")[0].endswith("a run --index 0")
    assert lines(tmp_path / "scontrol.txt") == ["requeue 70000_0"]


def test_an_element_past_the_end_of_the_manifest_has_nothing_to_do(tmp_path: Path) -> None:
    assert run_script(tmp_path, "retrain", "finished", elements=0) == 0
    assert "the manifest has only 0, so there is nothing to do" in (tmp_path / "said.txt").read_text()
    assert not lines(tmp_path / "srun.txt")
