"""This folder's network, with torch and safetensors alone.

    python load.py predict FILE...                         images, or raw click logs (- is standard input)

    from load import load
    network = load("this/folder")                          a torch module, in evaluation mode, on the CPU

network.json lists the network's calls of torch's operations, the safetensors files have its weights. No operation but
those named below is ever called, and no other code is run. `network.train()` makes its BatchNorms learn again.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

ALLOWED = """add.Tensor addmm.default alias.default avg_pool2d.default batch_norm.default bmm.default cat.default
contiguous.default conv2d.default embedding.default flatten.using_ints hardtanh.default index_select.default
layer_norm.default linear.default matmul.default max_pool2d.default mean.dim mul.Tensor pad.default permute.default
relu.default reshape.default scaled_dot_product_attention.default select.int sigmoid.default slice.Tensor
square.default squeeze.dim stack.default sub.Tensor sum.dim_IntList sym_size.int t.default tanh.default transpose.int
tril_indices.default unbind.int unflatten.int unsqueeze.default view.default zeros_like.default"""


def _operations() -> dict[str, Any]:
    pairs = [(name, *name.split(".")) for name in ALLOWED.split()]
    known = {name: getattr(getattr(torch.ops.aten, packet), overload) for name, packet, overload in pairs}
    return known | {"getitem": lambda several, place: several[place]}


OPERATIONS = _operations()


class Network(nn.Module):
    """Runs the calls of network.json: [name, operation, arguments, names that nothing reads any more]. In arguments
    "@a.b" is the weight a.b, and "%x" what the input or the call x gave."""

    def __init__(self, program: dict[str, Any], weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.program = program
        for name, value in weights.items():
            *path, last = name.split(".")
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            if name in program["parameters"]:
                place.register_parameter(last, nn.Parameter(value))
            else:
                place.register_buffer(last, value)

    def forward(self, *inputs: Tensor) -> Tensor:
        known: dict[str, Any] = {f"@{name}": value for name, value in self.state_dict(keep_vars=True).items()}
        known |= {f"%{name}": value for name, value in zip(self.program["inputs"], inputs, strict=True)}
        for name, operation, arguments, dead in self.program["calls"]:
            given = [_value(argument, known) for argument in arguments]
            if operation == "batch_norm.default":
                given[5] = self.training
            options = {"device": inputs[0].device} if operation == "tril_indices.default" else {}
            known[f"%{name}"] = OPERATIONS[operation](*given, **options)
            for each in dead:
                del known[f"%{each}"]
        output: Tensor = known[f"%{self.program['output']}"]
        return output


def _value(argument: Any, known: dict[str, Any]) -> Any:
    if isinstance(argument, list):
        return [_value(each, known) for each in argument]
    return known[argument] if isinstance(argument, str) else argument


def load(folder: str | Path = Path(__file__).parent) -> Network:
    """Raises whatever a file that is missing or damaged leads to; `subshot verify` says in a sentence what is wrong."""
    folder = Path(folder)
    program = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    return Network(program, load_weights(folder, program)).eval()


def load_weights(folder: Path, program: dict[str, Any]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    for name in program["joined"]:  # a table that lies in several files, by rows
        parts = [weights.pop(part) for part in sorted(weights) if part.startswith(f"{name}.rows-")]
        weights[name] = torch.cat(parts)
    return weights


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] != "predict":
        print("usage: python load.py predict FILE...", file=sys.stderr)
        return 2
    sys.dont_write_bytecode = True  # the folder holds nothing but what it was given
    sys.path.insert(0, str(Path(__file__).parent))
    from preprocess import outputs, read  # type: ignore[import-not-found]

    status = 0

    def refuse(sentence: str) -> None:
        nonlocal status
        status = 2
        print(f"error: {sentence}", file=sys.stderr)

    try:
        folder = Path(__file__).parent
        network = load(folder)
        for names, inputs in read(arguments[1:], folder, refuse):
            with torch.no_grad():
                found = network(*inputs)
            for line in outputs(names, found, folder):
                print(line)
    except BrokenPipeError:
        return status
    except (
        OSError,
        ImportError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        refuse(str(error))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
