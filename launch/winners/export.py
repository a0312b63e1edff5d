"""A winner's folder written again from its own network.json and weights: with programs of the installed versions, with
smaller weight files, or with its tables in 8 bits."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from subshot.launch.winners.content import check_hashes, golden_output, read_golden, read_records, read_weights, told
from subshot.launch.winners.copied.load import Network
from subshot.launch.winners.handover import Handover
from subshot.launch.winners.raw import read_raw
from subshot.launch.winners.raw_check import check_raw, raw_by_itself
from subshot.launch.winners.served_clicks import Int8Table
from subshot.train.winner_dir import RAW, WinnerDir

Call = list[Any]


def read_handover(folder: WinnerDir) -> Handover:
    """What the folder holds, its network in evaluation mode. Raises ValueError where it is not whole.

    A folder of an earlier version, which has no raw inputs, gets some, and what its own preprocessing makes of them.
    """
    check_hashes(folder)
    records = read_records(folder)
    program = records["network.json"]
    network = Network(program, read_weights(folder, program)).eval()
    golden = {name: torch.from_numpy(value) for name, value in read_golden(folder, records).items()}
    output = golden_output(records)
    if (folder.root / RAW).exists():
        raw = read_raw(folder, records)
        check_raw(folder, records, raw)
    else:
        raw = told(lambda: raw_by_itself(folder, records), f"{folder.preprocess_json} cannot be followed")
    return Handover(
        network=network,
        inputs={name: golden[name] for name in program["inputs"]},
        output=output,
        expected=golden[output],
        raw=raw,
        architecture=records["architecture.json"],
        preprocess=records["preprocess.json"],
        labels=records["labels.json"],
        metrics=records["metrics.json"],
        provenance=_exported_again(records["provenance.json"]),
        vocabulary=records.get("vocabulary.json", {}),
    )


def _exported_again(provenance: dict[str, Any]) -> dict[str, Any]:
    command = shlex.join(["launch/export.py", *sys.argv[1:]])
    return provenance | {"subshot": version("subshot"), "commands": [*provenance["commands"], command]}


def with_int8_tables(network: Network) -> Network:
    """The same network with every table tables.<field>.weight as codes, scales and biases (see Int8Table)."""
    weights = dict(network.state_dict())
    calls: list[Call] = []
    for call in network.program["calls"]:
        name, operation, arguments, dead = call
        if operation != "embedding.default" or not str(arguments[0]).startswith("@tables."):
            calls.append(call)
            continue
        table = arguments[0].removeprefix("@").removesuffix(".weight")
        quantised = Int8Table(weights.pop(f"{table}.weight"))
        weights |= {f"{table}.codes": quantised.codes, f"{table}.scale_bias": quantised.scale_bias}
        calls += _int8_lookup(name, table, arguments[1], dead)
    parameters = [name for name in network.program["parameters"] if name in weights]
    return Network(network.program | {"calls": calls, "parameters": parameters}, weights).eval()


def _int8_lookup(name: str, table: str, ids: str, dead: list[str]) -> list[Call]:
    """code * scale + bias of a field's ids, as calls; the last has the name of the lookup that they replace."""
    codes, pair, scale, bias, scaled = (f"{name}_{part}" for part in ("codes", "pair", "scale", "bias", "scaled"))
    return [
        [codes, "embedding.default", [f"@{table}.codes", ids], []],
        [pair, "embedding.default", [f"@{table}.scale_bias", ids], dead],
        [scale, "slice.Tensor", [f"%{pair}", 1, 0, 1], []],
        [bias, "slice.Tensor", [f"%{pair}", 1, 1, 2], [pair]],
        [scaled, "mul.Tensor", [f"%{codes}", f"%{scale}"], [codes, scale]],
        [name, "add.Tensor", [f"%{scaled}", f"%{bias}"], [scaled, bias]],
    ]


def table_mib(network: Network) -> float:
    sizes = [v.numel() * v.element_size() for name, v in network.state_dict().items() if name.startswith("tables.")]
    return sum(sizes) / 2**20


def quantised_handover(given: Handover, data: Path) -> Handover:
    """The handover with int8 tables, its metrics those of the test rows of the prepared log `data`, beside the float
    tables' and torchrec's own int8 tables on the same rows.

    Raises ValueError where the network has no float tables or the data are not those that it was trained on.
    """
    from subshot.launch.winners.click_quantisation import compared  # torchrec, which a plain export does not need

    network = given.network
    assert isinstance(network, Network)
    if not any(name.startswith("tables.") and name.endswith(".weight") for name in network.state_dict()):
        raise ValueError("--tables int8 is for CTR winners with float32 tables, and this one has none")
    quantised = with_int8_tables(network)
    found = compared(network, quantised, given.preprocess, given.provenance, data)
    sizes = {"float32_table_mib": table_mib(network), "int8_table_mib": table_mib(quantised)}
    metrics = {name: value for name, value in given.metrics.items() if not name.startswith("test/")}
    metrics |= {f"test/{name}": value for name, value in asdict(found.metrics).items()}
    metrics["int8"] = found.losses | sizes
    with torch.no_grad():
        expected = quantised(*given.inputs.values())
    return replace(given, network=quantised, expected=expected, metrics=json.loads(json.dumps(metrics)))
