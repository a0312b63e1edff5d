"""The only file that knows the paths inside a run, and how its files are written.

Whole files are written beside their place, synced and renamed, so a reader never sees half of one. JSONL files grow
by whole lines; a line that a crash tore off is dropped by the reader.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from subshot.train.winner_dir import WinnerDir

FULL_BYTES = 2**20
"""A disk with less than this is full to a library that writes in blocks."""


@dataclass(frozen=True)
class RunDir:
    """Every path of a run, below `root`."""

    root: Path

    @property
    def config_json(self) -> Path:
        return self.root / "config.json"

    @property
    def environment_json(self) -> Path:
        return self.root / "environment.json"

    @property
    def state_json(self) -> Path:
        return self.root / "state.json"

    @property
    def summary_json(self) -> Path:
        return self.root / "summary.json"

    @property
    def history_jsonl(self) -> Path:
        return self.root / "history.jsonl"

    @property
    def metrics_jsonl(self) -> Path:
        return self.root / "metrics.jsonl"

    def part_metrics_jsonl(self, part: str) -> Path:
        """Of one element of an array, which shares no file with others."""
        return self.root / "metrics" / f"{part}.jsonl"

    @property
    def paths_jsonl(self) -> Path:
        """The path and the loss of every warm-up step."""
        return self.root / "paths.jsonl"

    @property
    def data_json(self) -> Path:
        """What a run's clicks were at its start."""
        return self.root / "data.json"

    @property
    def latency_table_json(self) -> Path:
        """A copy of the latency table that a search was begun with, and of what it says of its measuring."""
        return self.root / "latency_table.json"

    @property
    def ranking_json(self) -> Path:
        """How well scores rank networks trained from scratch; launch/correlate.py writes it."""
        return self.root / "ranking.json"

    @property
    def correlation(self) -> RunDir:
        """What launch/correlate.py trains to judge the score: a manifest, trials, checkpoints and logs of their own."""
        return RunDir(self.root / "correlation")

    @property
    def measured_json(self) -> Path:
        """Proxies and other scores of the networks of a correlation."""
        return self.root / "measured.json"

    @property
    def score_json(self) -> Path:
        """What a score was standardised with."""
        return self.root / "score.json"

    @property
    def indicators_json(self) -> Path:
        return self.root / "indicators.json"

    @property
    def spectrum_json(self) -> Path:
        return self.root / "spectrum.json"

    @property
    def supernet(self) -> Path:
        return self.root / "supernet.safetensors"

    @property
    def checkpoints(self) -> Path:
        """The warm-up's, and those of trainings; see train/checkpoint.py."""
        return self.root / "checkpoints"

    def job_json(self, job: str) -> Path:
        """What a job says of itself; see train/job_record.py."""
        return self.root / "jobs" / f"{job}.json"

    def heartbeat_json(self, job: str, rank: int) -> Path:
        return self.root / "heartbeats" / f"{job}-rank{rank}.json"

    def claim_json(self, what: str) -> Path:
        """Who works on a part of the run; see train/claim.py."""
        return self.root / "claims" / f"{what}.json"

    def scores_jsonl(self, job: str, rank: int) -> Path:
        """Scores that one process of a job gave, each written down before the next is begun."""
        return self.root / "scores" / f"{job}-rank{rank}.jsonl"

    def all_scores(self, job: str) -> list[Path]:
        """What `scores_jsonl` named for any process of a job, so far."""
        return sorted((self.root / "scores").glob(f"{job}-rank*.jsonl"))

    @property
    def slurm(self) -> Path:
        """Batch scripts, and what SLURM's jobs printed."""
        return self.root / "slurm"

    def batch_script(self, name: str) -> Path:
        """What SLURM is given; see launch/slurm_scripts.py."""
        return self.slurm / f"{name}.sbatch"

    @property
    def batch_logs(self) -> Path:
        return self.slurm / "logs"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def log(self) -> Path:
        return self.root / "logs" / "log.txt"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def manifest_json(self) -> Path:
        return self.root / "manifest.json"

    def trial_json(self, name: str) -> Path:
        """One training of a network of a CTR run: its settings and its metrics on validation, and on test if it was
        tested."""
        return self.root / "trials" / f"{name}.json"

    def trial_logits(self, name: str) -> Path:
        """Test logits of a trial, for paired comparisons."""
        return self.root / "trials" / f"{name}.npz"

    @property
    def comparison_json(self) -> Path:
        """The tested networks of a CTR run beside one another."""
        return self.root / "comparison.json"

    @property
    def winners(self) -> Path:
        return self.root / "winners"

    def winner(self, name: str) -> WinnerDir:
        return WinnerDir(self.winners / name)

    def winner_names(self) -> list[str]:
        """Finished winner folders, in order of name (1, 2, ..., random-1, ...)."""
        if not self.winners.is_dir():
            return []
        folders = [folder for folder in self.winners.iterdir() if not folder.name.startswith(".")]
        names = [folder.name for folder in folders if WinnerDir(folder).metrics_json.is_file()]
        return sorted(names, key=lambda name: (not name.isdigit(), len(name), name))


def temporary_beside(path: Path) -> Path:
    """Where a process writes what shall stand at `path` when it is whole."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def put_in_place(temporary: Path, path: Path, durable: bool = True) -> None:
    """Renames a whole file to its place. durable: its bytes and its name are on the disk before this returns; without
    it a crash of the machine may lose them."""
    if durable:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        _sync_folder(path.parent)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends without an error."""
    temporary = temporary_beside(path)
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            put_in_place(temporary, path, durable)
    finally:
        temporary.unlink(missing_ok=True)


def require_replaceable(path: Path) -> None:
    """Raises NotADirectoryError where a file lies at a folder's place; it is not ours to delete."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file lies where a folder has to be", str(path))


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` to fill; it takes the place of `path` when the block ends without an error.

    Whoever is killed inside leaves `path` as it was; after a kill between the two renames the next call puts back what
    was to be replaced. Only one process at a time may replace a folder.
    """
    for left in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        ours = re.fullmatch(rf"\.{re.escape(path.name)}\.[^.]+-[0-9]+(-before)?\.tmp", left.name)
        if ours and left.is_dir():
            if ours[1] and not path.exists():
                left.rename(path)  # whoever wanted to replace it was killed between the two renames
            else:
                shutil.rmtree(left)
    require_replaceable(path)
    new = temporary_beside(path)
    old = new.with_name(f"{new.name.removesuffix('.tmp')}-before.tmp")
    try:
        with naming(path):
            new.mkdir(parents=True)
            yield new
            for file in new.rglob("*"):
                if file.is_dir():
                    _sync_folder(file)
                    continue
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            _sync_folder(new)
            if path.exists():
                path.rename(old)
            new.rename(path)
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of writing `path` inside name it, and are OSErrors also where a library raises its own on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else FULL_BYTES
        if free < FULL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def remove_abandoned(folder: Path) -> None:
    """Deletes what killed processes were writing in a folder. Only who is alone in writing there may call this."""
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    with replacing(path, durable) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Raises ValueError with the path and the place where the text is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON (line {error.lineno}: {error.msg}); restore it or delete the run"
        ) from error


def json_line(row: Mapping[str, Any]) -> str:
    """One row as it stands in a JSONL file, without the newline: compact, keys in the order given."""
    return json.dumps(row, separators=(",", ":"), allow_nan=False)


def append_jsonl(path: Path, rows: list[dict[str, Any]], durable: bool = True) -> None:
    """Adds whole lines; a last line that a crash tore off is cut away first. durable: as in `put_in_place`."""
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("ab+") as file:
        _cut_torn_line(file)
        file.write("".join(json_line(row) + "\n" for row in rows).encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())


def _cut_torn_line(file: BinaryIO) -> None:
    length = end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - 4096)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            end = begin + newline + 1
            break
        end = begin
    if end < length:
        file.truncate(end)
    file.seek(0, os.SEEK_END)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole lines; [] where there is no file. A last line without its newline is torn and left out.

    Raises ValueError with file and line for a whole line that is not JSON.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error.msg}); restore the file or delete the run"
            ) from error
    return rows


def whole_rows(path: Path, complain: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rows before the first damaged line, of which `complain` is told; what follows it is to be made again."""
    rows: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            complain(f"{path}, line {number} of {len(lines)} is damaged ({error.msg}); going on from those before it")
            break
    return rows


def truncate_jsonl(path: Path, lines: int) -> None:
    """Keeps the first `lines` whole lines: what a checkpoint knew of; later ones are written again on resuming."""
    if path.is_file():
        kept = path.read_text(encoding="utf-8").split("\n")[:-1][:lines]
        with replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
