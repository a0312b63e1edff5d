"""Milliseconds of modules: each made a program of one runtime, all of them timed in turns in one process.

A turn calls a program once without looking at the clock, and then times each of some calls; every round takes all
programs, in an order of its own. So whatever the machine does meanwhile (another job, a falling clock) meets all of
them alike, and does not pass for a difference between them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import onnxruntime
import torch
from torch import nn

from subshot.launch.environment import processor_name
from subshot.launch.options import at_least
from subshot.launch.winners.programs import open_onnx, quiet_exporter

Program = Callable[[], None]
"""One forward pass of one batch, over when it returns."""
Turns = list[list[float]]
Key = TypeVar("Key")


@dataclass(frozen=True)
class MeasureConfig:
    """How latencies are measured."""

    runtime: Literal["onnxruntime", "torch"] = "onnxruntime"
    """onnxruntime: what a winner's model.onnx runs on, on the CPU."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What it runs on; cuda with --runtime torch alone."""
    batch_size: int = 1
    """Images of one forward pass; latencies are of the whole batch."""
    threads: int = 1
    """Of the runtime, inside one forward pass."""
    rounds: int = 30
    """Turns of every program, 2 or more."""
    calls: int = 5
    """Timed calls of a program in one of its turns."""

    def __post_init__(self) -> None:
        at_least("--", self, batch_size=1, threads=1, rounds=2, calls=1)
        if self.device == "cuda" and self.runtime != "torch":
            raise ValueError("onnxruntime is measured on the CPU alone; for a GPU add --runtime torch")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device is cuda, and torch finds no GPU here; run launch/doctor.py")


def make_program(module: nn.Module, shape: tuple[int, int, int], config: MeasureConfig) -> Program:
    """The module, in evaluation mode, on a batch of noise; shape: (channels, height, width) of one image or map."""
    inputs = torch.randn(config.batch_size, *shape, generator=torch.Generator().manual_seed(0))
    module = module.eval()
    if config.runtime == "onnxruntime":
        return _onnx_program(module, inputs, config.threads)
    device = torch.device(config.device)
    nn.utils.convert_conv2d_weight_memory_format(module.to(device), torch.channels_last)
    inputs = inputs.to(device, memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            module(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def _onnx_program(module: nn.Module, inputs: torch.Tensor, threads: int) -> Program:
    with quiet_exporter():
        exported = torch.onnx.export(module, (inputs,), dynamo=True, input_names=["x"], output_names=["y"])
    assert exported is not None
    session = open_onnx(exported.model_proto.SerializeToString(), threads)
    fed = {"x": inputs.numpy()}

    def run() -> None:
        session.run(["y"], fed)

    return run


def measured(
    programs: Mapping[Key, Program], config: MeasureConfig, seed: int
) -> Iterator[dict[Key, list[list[float]]]]:
    """Milliseconds of all timed calls so far, turn by turn, after each round."""
    order, rng = list(programs), random.Random(seed)
    times: dict[Key, Turns] = {key: [] for key in order}
    for _ in range(config.rounds):
        rng.shuffle(order)
        for key in order:
            times[key].append(_turn(programs[key], config.calls))
        yield times


def _turn(run: Program, calls: int) -> list[float]:
    run()
    found = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        run()
        found.append((time.perf_counter_ns() - began) / 1e6)
    return found


def device_name(config: MeasureConfig) -> str:
    """The GPU's or the processor's, as it calls itself."""
    if config.device == "cuda":
        return torch.cuda.get_device_name()
    return processor_name()


def runtime_version(config: MeasureConfig) -> str:
    return str(onnxruntime.__version__ if config.runtime == "onnxruntime" else torch.__version__)
