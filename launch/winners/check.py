"""Whether a winner's folder is what it says: hashes, fields, costs, what preprocessing makes of raw inputs, and the
outputs of torch and onnxruntime.

Nothing in the folder is run: not load.py, whose network this builds with subshot's own copy of it, and not model.pt2,
which torch.export.load may unpickle; only the weights inside that are compared.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from subshot.launch.winners.card import model_card
from subshot.launch.winners.content import (
    Content,
    check_code,
    check_hashes,
    golden_output,
    read_golden,
    read_records,
    read_weights,
    short,
    told,
)
from subshot.launch.winners.copied.load import Network
from subshot.launch.winners.network_program import count_macs
from subshot.launch.winners.programs import MAX_DIFFERENCE, run_onnx
from subshot.launch.winners.provenance import config_digest
from subshot.launch.winners.raw import read_raw
from subshot.launch.winners.raw_check import check_raw
from subshot.launch.winners.served_clicks import table_name
from subshot.launch.winners.space import CLICKS, IMAGES, cost_of, space_of
from subshot.supernet.space import describe, from_named_choices, named_choices, network_hash
from subshot.train.winner_dir import WinnerDir

NEVER_IN_ONNX = {"Loop", "If", "Scan", "SequenceMap"}
"""Operators that no winner has, and that can run for ever."""


def check_winner(root: Path) -> Iterator[str]:
    """A sentence for each check that was passed. Raises ValueError with one sentence at the first that was not."""
    passed = _checks(root)
    while True:
        try:
            sentence = next(passed)
        except StopIteration:
            return
        except ValueError:
            raise
        except Exception as error:  # of a library, on a file that nobody vouches for
            raise ValueError(f"{root} is no whole winner's folder ({type(error).__name__}: {short(error)})") from error
        yield sentence


def _checks(root: Path) -> Iterator[str]:
    folder = WinnerDir(root)
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; name a winner's, such as RUN/winners/1")
    names = check_hashes(folder)
    yield f"{len(names)} files have the sha256 that SHA256SUMS lists, and there are no others"
    records = read_records(folder)
    raw = read_raw(folder, records)
    yield "the fields of every JSON file are what they should be"
    yield check_code(folder, records)
    content = Content(folder, records, read_weights(folder, records["network.json"]), read_golden(folder, records))
    yield f"{len(content.weights)} tensors, all finite; network.json reads no others"
    yield check_words(content)
    yield check_costs(content)
    yield check_interface(content)
    yield check_raw(folder, records, raw)
    yield check_torch(content)
    yield check_onnx(content)
    yield check_pt2(content)


def check_words(content: Content) -> str:
    """What is said in two places is said alike."""
    folder, records = content.folder, content.records
    metrics, provenance = records["metrics.json"], records["provenance.json"]
    if content.architecture["task"] == IMAGES:
        low, high = metrics["test/interval_95"]
        estimates = {"test/accuracy": (low, metrics["test/accuracy"], high)}
    else:
        found = metrics["test/log_loss"]
        estimates = {"test/log_loss": (found["low"], found["value"], found["high"])}
    for name, (low, value, high) in estimates.items():
        if not low <= value <= high:
            raise ValueError(f"{folder.metrics_json}: {name} is {value}, outside its interval, {low} to {high}")
    if config_digest(provenance["config"]) != provenance["config_sha256"]:
        raise ValueError(f"{folder.provenance_json}: config_sha256 is not that of config")
    parts = (content.architecture, records["preprocess.json"], metrics, records["latency.json"], provenance)
    if folder.model_card.read_text(encoding="utf-8") != model_card(*parts):
        raise ValueError(f"{folder.model_card} does not say what the JSON files say")
    return "MODEL_CARD.md says what the JSON files say"


def check_costs(content: Content) -> str:
    """The genotype says what it costs, and network.json costs that."""
    folder, record, program = content.folder, content.architecture, content.program
    path, costs = folder.architecture_json, record["costs"]
    space = told(lambda: space_of(record), f"{path}: space is none that subshot can build")
    if space is not None:
        genotype = tuple(record["genotype"])
        named = told(lambda: from_named_choices(space, record["choices"]), f"{path}: choices")
        if named != genotype or named_choices(space, genotype) != record["choices"]:
            raise ValueError(f"{path}: genotype and choices are not the same network")
        if network_hash(space, genotype) != record["hash"]:
            raise ValueError(f"{path}: hash is not that of the choices")
        cost = cost_of(space, genotype, record)
        for name, value in costs.items():
            if getattr(cost, name) != value:
                raise ValueError(f"{path}: costs.{name} is {value}; the genotype has {getattr(cost, name)}")
        if describe(space, genotype) != record["words"]:
            raise ValueError(f"{path}: words are not those of the choices")
    elif ":" not in record["space"]["name"]:
        raise ValueError(f"{path}: there is no space {record['space']['name']!r}")
    params = sum(content.weights[n].numel() for n in program["parameters"] if not n.startswith("tables."))
    shapes = {name: tuple(value.shape) for name, value in content.weights.items()}
    samples = [torch.from_numpy(content.golden[name]) for name in program["inputs"]]
    macs = told(lambda: count_macs(program, shapes, samples), f"{folder.network_json} cannot be run")
    for name, value in (("macs", macs), ("params", params)):
        if value != costs[name]:
            raise ValueError(f"{folder.network_json} has {value} {name}, and {path} says {costs[name]}")
    whole = "the genotype and network.json"
    if space is None:
        whole = "network.json; NOT checked: genotype, hash, activations (the space is a file of the user's own)"
    return f"{macs:,} MACs and {params:,} parameters, counted again from {whole}"


def check_interface(content: Content) -> str:
    """What goes in and what comes out are of the sizes that the network has."""
    records, space = content.records, content.architecture["space"]
    how, labels = records["preprocess.json"], records["labels.json"]
    folder = content.folder
    if content.architecture["task"] == IMAGES:
        if len(labels) != space["classes"] or set(labels) != {str(number) for number in range(len(labels))}:
            raise ValueError(f"{folder.labels_json} must name the classes 0 to {space['classes'] - 1}")
        if how["size"] != space["input_size"]:
            raise ValueError(
                f"{folder.preprocess_json}: size is {how['size']}; the network takes {space['input_size']}"
            )
        return f"{len(labels)} labels, images of {how['size']} pixels"
    for name, count in (("dense", space["dense_features"]), ("categories", space["sparse_fields"])):
        if len(how[name]) != count:
            raise ValueError(
                f"{folder.preprocess_json}: {name} has {len(how[name])} entries; the network takes {count}"
            )
    named, known = {column["name"] for column in how["columns"]}, records.get("vocabulary.json", {})
    for rule in (*how["dense"], *how["categories"]):
        if rule["of"] is not None and rule["of"] not in named:
            raise ValueError(f"{folder.preprocess_json}: {rule['name']} is of {rule['of']!r}, which is no column")
    for rule in how["categories"]:
        sizes = {len(v) for n, v in content.weights.items() if n.startswith(f"tables.{table_name(rule['name'])}.")}
        if sizes != {rule["rows"]}:
            raise ValueError(f"{folder.preprocess_json}: {rule['name']} has {rule['rows']} rows; its table has {sizes}")
        if not rule["hash_size"] and len(known.get(rule["name"], ())) + 2 != rule["cardinality"]:
            raise ValueError(f"{folder.vocabulary_json}: {rule['name']} must have {rule['cardinality'] - 2} values")
    return f"{len(how['dense'])} dense values and {len(how['categories'])} categories, each with its table"


def check_torch(content: Content) -> str:
    program = content.program
    network = Network(program, content.weights).eval()
    inputs = [torch.from_numpy(content.golden[name]) for name in program["inputs"]]

    def run(rows: int) -> Tensor:
        with torch.no_grad():
            return network(*(each[:rows] for each in inputs))

    largest = 0.0
    for rows in (len(inputs[0]), 1):
        found = told(lambda rows=rows: run(rows).numpy(), f"{content.folder.network_json} cannot be run")  # type: ignore[misc]
        largest = max(largest, _difference(found, content, rows, "torch"))
    return f"torch gives the golden outputs to {largest:.2g} (allowed: {MAX_DIFFERENCE:g})"


def check_onnx(content: Content) -> str:
    path = content.folder.onnx
    output = golden_output(content.records)
    told(lambda: require_self_contained(path), f"{path}")
    largest = 0.0
    for rows in (len(content.golden[output]), 1):
        arrays = {name: value[:rows] for name, value in content.golden.items() if name != output}
        found = told(lambda arrays=arrays: run_onnx(path, arrays, output), f"{path} cannot be run")  # type: ignore[misc]
        largest = max(largest, _difference(found, content, rows, "onnxruntime"))
    return f"onnxruntime gives the golden outputs to {largest:.2g} (allowed: {MAX_DIFFERENCE:g})"


def require_self_contained(path: Path) -> None:
    """Raises ValueError where an ONNX file has parts that winners have not: weights elsewhere than in the .data beside
    it, operators or functions of others, loops and branches."""
    model = onnx.load(str(path), load_external_data=False)
    tensors = list(model.graph.initializer)
    if model.functions or model.graph.sparse_initializer:
        raise ValueError("it has functions or sparse weights, which no winner has")
    for node in model.graph.node:
        if node.domain or node.op_type in NEVER_IN_ONNX or any(each.g.node or each.graphs for each in node.attribute):
            raise ValueError(f"it has the operator {node.domain}{node.op_type}, which no winner has")
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
    for tensor in tensors:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value != f"{path.name}.data":
                raise ValueError(f"it reads weights from {entry.value!r}, and may only from {path.name}.data")


def check_pt2(content: Content) -> str:
    path = content.folder.pt2
    compared = told(lambda: _same_weights(path, content.weights), f"{path}")
    return f"model.pt2 holds the same {compared} weights, bit for bit (its graph is not compared: see docs/deploy.md)"


def _same_weights(path: Path, weights: dict[str, Tensor]) -> int:
    with zipfile.ZipFile(path) as archive:
        if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
            raise ValueError("it is compressed, which torch.export.save does not do")
        names = {name.split("/", 1)[1]: name for name in archive.namelist() if "/" in name}
        listed = json.loads(archive.read(names["data/weights/model_weights_config.json"]))["config"]
        constants = json.loads(archive.read(names["data/constants/model_constants_config.json"]))["config"]
        if constants or any(entry["use_pickle"] for entry in listed.values()):
            raise ValueError("it holds pickled objects, and loading those can run code")
        if set(listed) != set(weights):
            raise ValueError(f"its weights are other ones: {sorted(set(listed) ^ set(weights))[:3]}")
        for name, entry in listed.items():
            held = archive.read(names[f"data/weights/{entry['path_name']}"])
            if held != weights[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes():
                raise ValueError(f"its weight {name!r} is not that of the safetensors files")
    return len(listed)


def _difference(found: Any, content: Content, rows: int, runtime: str) -> float:
    """The largest; of probabilities, relative to them."""
    wanted = content.golden[golden_output(content.records)][:rows]
    where = f"golden.npz in {content.folder.root}"
    if not isinstance(found, np.ndarray) or found.shape != wanted.shape or found.dtype != np.float32:
        raise ValueError(f"{runtime} does not give float32 {wanted.shape} for {where}")
    difference = np.abs(found.astype(np.float64) - wanted)
    if content.architecture["task"] == CLICKS:
        difference = difference / np.maximum(np.abs(wanted), 1e-6)
    largest = float(difference.max())
    if not largest <= MAX_DIFFERENCE or math.isnan(largest):
        raise ValueError(f"{runtime}'s outputs differ from {where} by {largest:.3g}; allowed: {MAX_DIFFERENCE:g}")
    return largest
