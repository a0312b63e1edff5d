"""A network as network.json lists it: the calls of torch's operations that torch.export found, by name.

    {"inputs": ["images"], "output": "linear", "parameters": ["stem.0.conv.weight", ...], "joined": [],
     "calls": [["conv2d", "conv2d.default", ["%images", "@stem.0.conv.weight", null, [2, 2], [1, 1]], ["images"]], ...]}

launch/winners/copied/load.py runs it, and says what a call's parts are. It is the same network for every space, so a
folder with it needs no builder of ours; torch.export keeps names of weights, dynamic batches, and BatchNorms whole.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from subshot.launch.winners.copied.load import OPERATIONS, Network

MAX_BATCH = 2**20
_LEFT_OUT = ("device", "pin_memory", "dtype", "layout")
"""Of operations that make tensors: their results follow the inputs."""


def exported(network: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """The network as torch.export sees it, in the mode that it is in, for batches of 1 to 2^20."""
    batch = Dim("batch", min=1, max=MAX_BATCH)
    shapes: Any = tuple({0: batch} for _ in inputs)
    if isinstance(network, Network):  # takes any number of inputs, which torch.export sees as one tuple
        shapes = (shapes,)
    program = torch.export.export(network, tuple(inputs), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the machine that exported
    return program


def as_program(found: ExportedProgram, inputs: Sequence[str]) -> dict[str, Any]:
    """inputs: their names, in order. Raises ValueError for an operation that load.py does not know."""
    names: dict[str, str] = {}
    given = iter(inputs)
    parameters = []
    for spec in found.graph_signature.input_specs:
        assert spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.USER_INPUT), f"{spec.kind} in {spec.arg}"
        if spec.kind == InputKind.USER_INPUT:
            names[spec.arg.name] = f"%{next(given)}"
            continue
        assert spec.target is not None
        names[spec.arg.name] = f"@{spec.target}"
        if spec.kind == InputKind.PARAMETER:
            parameters.append(spec.target)
    calls: list[list[Any]] = []
    for node in found.graph.nodes:
        if node.op == "call_function":
            names[node.name] = f"%{node.name}"
            calls.append([node.name, _operation(node), [_argument(each, names) for each in _arguments(node)], []])
    (output,) = (node for node in found.graph.nodes if node.op == "output")
    result = names[output.args[0][0].name].removeprefix("%")
    return {
        "inputs": list(inputs),
        "output": result,
        "parameters": parameters,
        "joined": [],
        "calls": _live(calls, result),
    }


def _live(calls: Sequence[list[Any]], result: str) -> list[list[Any]]:
    """The calls that the result depends on, each with the names that nothing reads after it."""
    kept: list[list[Any]] = []
    seen = {result}
    for name, operation, arguments, _ in reversed(calls):
        if name in seen:
            last = sorted(set(names_in(arguments, "%")) - seen)
            kept.append([name, operation, arguments, last])
            seen.update(last)
    return kept[::-1]


def names_in(argument: Any, mark: str) -> Iterator[str]:
    """What stands behind the mark in a call's arguments: "@" weights, "%" other calls and inputs."""
    if isinstance(argument, list):
        for each in argument:
            yield from names_in(each, mark)
    elif isinstance(argument, str) and argument.startswith(mark):
        yield argument[1:]


def _operation(node: Node) -> str:
    target: Any = node.target
    name = "getitem" if target is operator.getitem else str(target).removeprefix("aten.")
    if name not in OPERATIONS:
        raise ValueError(f"the network calls {target}, which a winner's load.py does not know; add it to ALLOWED there")
    return name


def _arguments(node: Node) -> list[Any]:
    """By position; what is given by keyword must be one of those that are left out."""
    unknown = [name for name in node.kwargs if name not in _LEFT_OUT]
    assert not unknown, f"{node.target} is given {unknown} by keyword"
    return list(node.args)


def _argument(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, Node):
        return names[value.name]
    if isinstance(value, list | tuple):
        return [_argument(each, names) for each in value]
    assert value is None or isinstance(value, bool | int | float), f"an argument {value!r}"
    return value


def as_text(program: dict[str, Any]) -> str:
    """JSON with a line a call."""
    head = "".join(f' "{name}": {json.dumps(value)},\n' for name, value in program.items() if name != "calls")
    lines = ",\n".join(f"  {json.dumps(call)}" for call in program["calls"])
    return f'{{\n{head} "calls": [\n{lines}\n ]\n}}\n'


def count_macs(program: dict[str, Any], shapes: Mapping[str, Sequence[int]], inputs: Sequence[Tensor]) -> int:
    """Multiply-accumulates of convolutions and matrix products for one sample, by torch's counter, nothing computed.

    shapes: of all weights. inputs: of which shapes and types are read, but for the batch.
    """
    weights = {name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}
    network = Network(program, weights).eval()
    counter: Any = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mv: _mv_flops})
    with counter:
        network(*(torch.empty((1, *each.shape[1:]), dtype=each.dtype, device="meta") for each in inputs))
    return int(counter.get_total_flops()) // 2


def _mv_flops(matrix: Sequence[int], vector: Sequence[int], *_: Any, out_shape: Any = None, **__: Any) -> int:
    """torch's counter takes a matrix times a vector for nothing."""
    return 2 * matrix[0] * matrix[1]
