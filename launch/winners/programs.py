"""The network as programs for other runtimes: model.onnx and model.pt2, each run beside torch before it is believed."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

MAX_DIFFERENCE = 1e-3
"""Between the outputs of torch and of another runtime, or the export has failed."""
INSIDE_BYTES = 2**30
"""Weights above this lie in model.onnx.data: an ONNX file itself ends at 2 GiB."""

Arrays = Mapping[str, NDArray[np.generic]]


def write_onnx(program: ExportedProgram, inputs: Sequence[str], output: str, path: Path) -> None:
    """inputs, output: the names that they get. The batch is dynamic."""
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    with quiet_exporter():
        found = torch.onnx.export(program, dynamo=True, input_names=list(inputs), output_names=[output])
        assert found is not None
        found.save(str(path), external_data=size > INSIDE_BYTES)


def write_pt2(program: ExportedProgram, architecture: str, path: Path) -> None:
    """architecture: architecture.json's text, which lies in the archive too."""
    with quiet_exporter():
        torch.export.save(program, path, extra_files={"architecture.json": architecture})


def run_onnx(path: Path, arrays: Arrays, output: str, threads: int = 1) -> NDArray[np.float32]:
    """The output for these inputs; those that the network does not read are left out."""
    session = open_onnx(path, threads)
    (found,) = session.run([output], fed(session, arrays))
    result: NDArray[np.float32] = found
    return result


def open_onnx(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """model: a file, or the content of one. On the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what is wrong comes as an exception
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


def fed(session: onnxruntime.InferenceSession, arrays: Arrays) -> dict[str, NDArray[np.generic]]:
    return {given.name: arrays[given.name] for given in session.get_inputs()}


def run_pt2(path: Path, inputs: Sequence[Tensor]) -> Tensor:
    """The output of the saved program. Only for a file of one's own: torch.export.load may run pickled code."""
    with quiet_exporter(), torch.no_grad():
        output: Tensor = torch.export.load(path).module()(*inputs)
    return output


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """The exporter prints its progress, and warns of packages that these networks do not use."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx._symbolic_trace", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
