"""How long a network takes on this machine's CPU: onnxruntime and torch, batches of 1 and 32, p50 and p95."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from subshot.launch.environment import processor_name
from subshot.launch.winners.programs import fed, open_onnx

BATCHES = (1, 32)
MOST, LEAST, SECONDS = 200, 20, 1.0
"""Calls that are timed: as many as fit into the seconds, but no more and no fewer than these."""
WARM_UP = 5


def measure_latency(network: nn.Module, inputs: Mapping[str, Tensor], onnx: Path, output: str) -> list[dict[str, Any]]:
    """One record for each runtime and batch size; all run on one thread. inputs: repeated to fill a batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        session = open_onnx(onnx, threads=1)
        records = []
        for batch in BATCHES:
            filled = {name: _batch_of(value, batch) for name, value in inputs.items()}
            arrays = fed(session, {name: value.numpy() for name, value in filled.items()})
            runs: dict[str, Callable[[], Any]] = {
                "onnxruntime": lambda arrays=arrays: session.run([output], arrays),  # type: ignore[misc]
                "torch": lambda filled=filled: network(*filled.values()),  # type: ignore[misc]
            }
            for runtime, run in runs.items():
                with torch.no_grad():
                    times = call_milliseconds(run)
                records.append(_record(runtime, batch, times))
        return records
    finally:
        torch.set_num_threads(threads)


def _batch_of(value: Tensor, batch: int) -> Tensor:
    return value.repeat(-(-batch // len(value)), *[1] * (value.dim() - 1))[:batch].contiguous()


def call_milliseconds(run: Callable[[], Any]) -> list[float]:
    """Of single calls, after some that are not timed."""
    for _ in range(WARM_UP):
        run()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < MOST and (len(times) < LEAST or time.perf_counter() - begun < SECONDS):
        before = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - before) / 1e6)
    return times


def _record(runtime: str, batch: int, times: list[float]) -> dict[str, Any]:
    p50, p95 = np.percentile(times, [50, 95]).tolist()
    return {
        "runtime": runtime,
        "version": torch.__version__ if runtime == "torch" else onnxruntime.__version__,
        "device": processor_name(),
        "threads": 1,
        "dtype": "float32",
        "batch": batch,
        "p50_ms": round(p50, 4),
        "p95_ms": round(p95, 4),
        "n": len(times),
    }
