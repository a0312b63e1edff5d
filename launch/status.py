"""How a run is getting on: python launch/status.py RUN [--job JOB] [--watch SECONDS]

Reads what the jobs of a run say of themselves, whichever machine they are on; needs neither torch nor numpy, so a login
node answers at once. The other options are for batch scripts.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from subshot.launch.collect import first_line
from subshot.launch.manifest import read_manifest
from subshot.launch.pipe import reader_may_leave
from subshot.launch.started import program
from subshot.launch.verdict import look_again, mark, settled_verdict
from subshot.train.job_record import Heartbeat, JobRecord, read_heartbeats, read_jobs
from subshot.train.run_dir import RunDir

DONE, USER_MISTAKE = 0, 2
LATE_SECONDS = 60.0


def lines(run: RunDir, late_seconds: float, only: str | None = None) -> list[str]:
    """The run, then each job, and below it each of its processes while it runs."""
    found = [f"run {run.root}: {state_of_run(run)}"]
    now = time.time()
    for job in read_jobs(run):
        if only in (None, job.job):
            found += of_job(job, read_heartbeats(run, job.job), now, late_seconds)
    return found


def state_of_run(run: RunDir) -> str:
    """In words, from the files that are there."""
    if run.manifest_json.is_file():
        elements = read_manifest(run).elements
        done = sum((run.root / element.result).is_file() for element in elements)
        return f"{done} of {len(elements)} retrainings finished"
    if run.summary_json.is_file():
        return "searched, nothing retrained yet"
    return "searching" if run.config_json.is_file() else "not begun"


def of_job(job: JobRecord, beats: list[Heartbeat], now: float, late_seconds: float) -> list[str]:
    where = f", SLURM job {job.slurm_job}" if job.slurm_job else ""
    again = f", begun {job.restarts + 1} times" if job.restarts else ""
    message = f": {first_line(job.message)}" if job.message else ""
    silent = job.state == "running" and (not beats or all(now - beat.beat_unix > late_seconds for beat in beats))
    lost = ", or killed without notice" if silent and now - job.begun_unix > late_seconds else ""
    found = [f"{job.job}: {job.state}{lost}{where}{again}{message}"]
    if job.state == "finished":
        return found
    for beat in beats:
        age = now - beat.beat_unix
        is_late = job.state == "running" and age > late_seconds
        note = f", failed: {first_line(beat.failure)}" if beat.failure else ", LATE" if is_late else ""
        found.append(f"  rank {beat.rank} on {beat.host}: {progress(beat)}, {ago(age)}{note}")
    if job.state != "running" and not job.slurm_job:
        found.append(f"  go on with: {shlex.join(job.command)}")
    return found


def progress(beat: Heartbeat) -> str:
    done = f"{beat.done} of {beat.total}" if beat.total else f"{beat.done}"
    rate = f", {beat.rate_per_second:.3g} a second" if beat.rate_per_second > 0 else ""
    left = "" if beat.seconds_left is None else f", {duration(beat.seconds_left)} left"
    return f"{beat.stage} {done}{rate}{left}"


def ago(seconds: float) -> str:
    return f"heard of {duration(max(0.0, seconds))} ago"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def require_run(run: RunDir) -> None:
    """Raises ValueError where the folder is none, or no run's."""
    if not run.root.is_dir():
        raise ValueError(f"there is no folder {run.root}; name the run folder, as --run-dir did")
    known = (run.config_json, run.job_json("x").parent, run.slurm, run.manifest_json)
    if not any(path.exists() for path in known):
        raise ValueError(f"{run.root} is no run folder (it has no {run.config_json.name}); name one, as --run-dir did")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program("status"), description="How a run is getting on.")
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="the run folder")
    add("--job", help="only this job: search, retrain, retrain-3, ...")
    add("--late-seconds", type=float, default=LATE_SECONDS, help="a process that was silent for longer is late (60)")
    add("--watch", type=float, metavar="SECONDS", help="again every so many seconds, until Ctrl-C")
    scripts = parser.add_argument_group("for batch scripts")
    scripts.add_argument("--elements", action="store_true", help="how many lines the manifest has")
    scripts.add_argument("--mark", action="store_true", help="of --job before it is begun: how far it is")
    scripts.add_argument("--verdict", metavar="MARK", help="of --job afterwards: finished, requeue, stuck or failed")
    scripts.add_argument("--preempted", action="store_true", help="SLURM says that it took the nodes away")
    scripts.add_argument("--settle-seconds", type=float, default=10.0, help="how long a file may take to be seen (10)")
    options = parser.parse_args(arguments)
    if (options.mark or options.verdict is not None) and options.job is None:
        parser.error("--mark and --verdict are about one job: add --job")
    return options


def answer(options: argparse.Namespace) -> None:
    run = RunDir(options.run)
    if options.mark:
        print(mark(run, options.job))
        return
    require_run(run)
    if options.elements:
        print(settled_elements(run, options.settle_seconds))
    elif options.verdict is not None:
        seconds = options.settle_seconds
        word, why = settled_verdict(run, options.job, options.verdict, seconds, options.preempted)
        print(why, file=sys.stderr)
        print(word)
    else:
        show(run, options)


def settled_elements(run: RunDir, seconds: float) -> int:
    """How many lines the manifest has, once it is seen here."""
    deadline = time.monotonic() + seconds
    while not run.manifest_json.is_file() and time.monotonic() < deadline:
        look_again(run)
        time.sleep(0.5)
    return len(read_manifest(run).elements)


def show(run: RunDir, options: argparse.Namespace) -> None:
    while True:
        clear = "\033[H\033[2J" if options.watch and sys.stdout.isatty() else ""
        print(clear + "\n".join(lines(run, options.late_seconds, options.job)), flush=True)
        if not options.watch:
            return
        time.sleep(options.watch)


@reader_may_leave
def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 2 with one sentence."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        answer(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print()
    return DONE


if __name__ == "__main__":
    sys.exit(main())
