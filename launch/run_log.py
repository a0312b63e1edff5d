"""A run's story: lines that a terminal and a file can read, numbers for metrics.jsonl and TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TypeVar

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from subshot.train.run_dir import RunDir, append_jsonl

T = TypeVar("T")


class RunLog:
    """Tells one run's story: lines to the terminal and logs/log.txt, numbers to metrics.jsonl and TensorBoard.

    Only the main process writes; the others' calls do nothing. A context manager: leaving it closes the files.
    """

    def __init__(self, run: RunDir, is_main: bool) -> None:
        self.run = run
        self.is_main = is_main
        self.began = time.perf_counter()
        self.writer: SummaryWriter | None = None
        if is_main:
            run.log.parent.mkdir(parents=True, exist_ok=True)
            self.writer = SummaryWriter(str(run.tensorboard))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            if error is not None:
                self.line(f"ended by {type(error).__name__}: {error}")
            self.writer.close()

    def line(self, text: str) -> None:
        """One line, with the seconds since the command began."""
        if not self.is_main:
            return
        stamped = f"[{time.perf_counter() - self.began:7.1f} s] {text}"
        tqdm.write(stamped, file=sys.stderr)
        with self.run.log.open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")

    def numbers(self, stage: str, step: int, values: Mapping[str, float | int]) -> None:
        """One row of metrics.jsonl and one TensorBoard scalar each, under `stage`."""
        if self.writer is None:
            return
        append_jsonl(self.run.metrics_jsonl, [{"stage": stage, "step": step, **values}])
        for name, value in values.items():
            self.writer.add_scalar(f"{stage}/{name}", value, step)

    def progress(self, items: Iterable[T], total: int, text: str, initial: int = 0) -> Iterator[T]:
        """`items` behind a progress bar with rate and time left, where the main process has a terminal."""
        hidden = not (self.is_main and sys.stderr.isatty())
        yield from tqdm(items, total=total, initial=initial, desc=text, disable=hidden, leave=False, file=sys.stderr)
