"""A run's story: lines that a terminal and a file can read, numbers for metrics.jsonl and TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from subshot.train.job_record import Pulse
from subshot.train.run_dir import RunDir, append_jsonl, naming

T = TypeVar("T")


class RunLog:
    """Tells one run's story: lines to the terminal and logs/log.txt, numbers to metrics.jsonl and TensorBoard.

    Only the main process writes; the others' calls do nothing, but for the heartbeats of their own progress. A context
    manager: leaving it closes TensorBoard's file; a line can still follow.
    """

    def __init__(self, run: RunDir, is_main: bool, pulse: Pulse | None = None, part: str | None = None) -> None:
        """part: the element of an array that this is of; it has files of its own, and no TensorBoard."""
        self.log_path = run.log if part is None else run.log.with_name(f"{part}.txt")
        self.metrics_path = run.metrics_jsonl if part is None else run.part_metrics_jsonl(part)
        self.is_main = is_main
        self.pulse = pulse
        self.began = time.perf_counter()
        self.writer: SummaryWriter | None = None
        if is_main:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if is_main and part is None:
            self.writer = SummaryWriter(str(run.tensorboard))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(OSError):  # the disk may be what is wrong, and `error` says so
                self.line(f"ended by {type(error).__name__}: {error}")
        if self.writer is not None:
            self.writer.close()

    def line(self, text: str) -> None:
        """One line, with the seconds since the command began."""
        if not self.is_main:
            return
        stamped = f"[{time.perf_counter() - self.began:7.1f} s] {text}"
        tqdm.write(stamped, file=sys.stderr)
        with naming(self.log_path), self.log_path.open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")

    def numbers(self, stage: str, step: int, values: Mapping[str, float | int]) -> None:
        """One row of metrics.jsonl and one TensorBoard scalar each, under `stage`."""
        if self.is_main:
            append_jsonl(self.metrics_path, [{"stage": stage, "step": step, **values}])
        if self.writer is None:
            return
        for name, value in values.items():
            self.writer.add_scalar(f"{stage}/{name}", value, step)

    def progress(self, items: Iterable[T], total: int, text: str, initial: int = 0) -> Iterator[T]:
        """`items` with a heartbeat each, behind a progress bar with rate and time left where the main process has a
        terminal."""
        hidden = not (self.is_main and sys.stderr.isatty())
        shown = tqdm(items, total=total, initial=initial, desc=text, disable=hidden, leave=False, file=sys.stderr)
        done = initial
        for done, item in enumerate(shown, start=initial):
            self.beat(text, done, total)
            yield item
        self.beat(text, total if done + 1 >= total else done, total)

    def beating(self, items: Sequence[T], stage: str) -> Iterator[T]:
        """`items` with a heartbeat each and no bar: a loop inside another's progress."""
        for done, item in enumerate(items):
            self.beat(stage, done, len(items))
            yield item

    def beat(self, stage: str, done: int, total: int) -> None:
        """A sign of life of this process."""
        if self.pulse is not None:
            self.pulse.beat(stage, done, total)
