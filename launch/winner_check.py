"""Whether a winner's folder is what it says: hashes, fields, costs, and the outputs of torch and onnxruntime.

Nothing in the folder is run: not load.py, whose network this builds with subshot's own copy of it, and not model.pt2,
which torch.export.load would unpickle; the weights inside that are compared with the safetensors files.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from subshot.launch.network_program import count_macs
from subshot.launch.served_clicks import table_name
from subshot.launch.winner_files import LOAD, preprocess_source
from subshot.launch.winner_files.load import Network, load_weights
from subshot.launch.winner_programs import MAX_DIFFERENCE, run_onnx
from subshot.launch.winner_schema import ARCHITECTURE, VOCABULARY, require_schema, schemas
from subshot.launch.winner_space import CLICKS, IMAGES, cost_of, space_of
from subshot.launch.winner_weights import weight_files
from subshot.supernet.space import from_named_choices, named_choices, network_hash
from subshot.train.run_dir import RunDir, file_digest, read_json
from subshot.train.winner_dir import WinnerDir

T = TypeVar("T")
LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)")
GOLDEN_BYTES = 2**28


@dataclass(frozen=True)
class Content:
    """What later checks need of earlier ones."""

    folder: WinnerDir
    records: dict[str, Any]
    weights: dict[str, Tensor]
    golden: dict[str, NDArray[Any]]

    @property
    def architecture(self) -> dict[str, Any]:
        record: dict[str, Any] = self.records["architecture.json"]
        return record

    @property
    def program(self) -> dict[str, Any]:
        record: dict[str, Any] = self.records["network.json"]
        return record


def check_winner(root: Path) -> Iterator[str]:
    """A sentence for each check that was passed. Raises ValueError with one sentence at the first that was not."""
    folder = WinnerDir(root)
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; name a winner's, such as RUN/winners/1")
    names = check_hashes(folder)
    yield f"{len(names)} files have the sha256 that SHA256SUMS lists, and there are no others"
    records = read_records(folder)
    yield "the fields of every JSON file are what they should be"
    yield check_code(folder, records)
    content = Content(folder, records, read_weights(folder, records["network.json"]), read_golden(folder, records))
    yield f"{len(content.weights)} tensors, all finite, under the names that network.json reads"
    yield check_costs(content)
    yield check_interface(content)
    yield check_torch(content)
    yield check_onnx(content)
    yield check_pt2(content)


def check_hashes(folder: WinnerDir) -> list[str]:
    path = folder.checksums
    if winners := RunDir(folder.root).winner_names():
        raise ValueError(
            f"{folder.root} is a run; name one of its winners, such as {RunDir(folder.root).winner(winners[0]).root}"
        )
    if not path.is_file() or path.is_symlink():
        raise ValueError(f"{folder.root} is no winner's folder: it has no SHA256SUMS")
    text = path.read_bytes().decode("ascii", "replace")
    listed: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        found = LINE.fullmatch(line)
        if found is None or found[2] in listed:
            raise ValueError(f"{path}, line {number}: not a sha256, two spaces and a file name, each file once")
        listed[found[2]] = found[1]
    if not text.endswith("\n"):
        raise ValueError(f"{path} is cut off in its last line")
    present = sorted(each.name for each in folder.root.iterdir())
    for name in present:
        if name not in listed and name != path.name:
            raise ValueError(f"{folder.root / name} is not listed in SHA256SUMS; a winner's folder holds nothing else")
    for name, digest in listed.items():
        file = folder.root / name
        if file.is_symlink() or not file.is_file():
            raise ValueError(f"{file} is listed in SHA256SUMS, and is missing or no ordinary file")
        if file_digest(file) != digest:
            raise ValueError(f"{file} was changed: its sha256 is not the one in SHA256SUMS")
    return list(listed)


def read_records(folder: WinnerDir) -> dict[str, Any]:
    architecture = _json(folder.architecture_json)
    require_schema(folder.architecture_json, architecture, ARCHITECTURE)
    records = {}
    for name, wanted in schemas(architecture["task"]).items():
        path = folder.root / name
        records[name] = _json(path)
        for schema in wanted:
            require_schema(path, records[name], schema)
    if folder.vocabulary_json.is_file():
        records["vocabulary.json"] = _json(folder.vocabulary_json)
        require_schema(folder.vocabulary_json, records["vocabulary.json"], VOCABULARY)
    for path in (folder.load_py, folder.preprocess_py, folder.model_card):
        if not path.is_file():
            raise ValueError(f"{path} is missing")
    return records


def check_code(folder: WinnerDir, records: dict[str, Any]) -> str:
    """Whoever has checked a folder will run its load.py, so that must be subshot's own text."""
    images = records["architecture.json"]["task"] == IMAGES
    version = records["provenance.json"]["subshot"]
    if version != version_of("subshot"):
        return f"load.py is that of subshot {version}, and was not compared: this is {version_of('subshot')}"
    for path, source in ((folder.load_py, LOAD), (folder.preprocess_py, preprocess_source(images))):
        if path.read_bytes() != source.read_bytes():
            raise ValueError(
                f"{path} is not the one that this version of subshot writes; do not run it (launch/export.py "
                f"{folder.root} --out NEW makes a folder with a new one)"
            )
    return "load.py and preprocess.py are subshot's own"


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({type(error).__name__})") from error


def read_weights(folder: WinnerDir, program: dict[str, Any]) -> dict[str, Tensor]:
    files = weight_files(folder.root)
    if not files:
        raise ValueError(f"{folder.root} has no model.safetensors")
    try:
        weights = load_weights(folder.root, program)
    except (SafetensorError, KeyError, RuntimeError, ValueError, MemoryError) as error:
        raise ValueError(f"{files[0].parent}/*.safetensors cannot be read ({_short(error)})") from error
    read = {name for call in program["calls"] for name in _weights_in(call[2])}
    for name in sorted(read | set(program["parameters"])):
        if name not in weights:
            raise ValueError(f"{folder.network_json} reads the weight {name!r}, which the safetensors files lack")
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"the weight {name!r} in {folder.root} holds a value that is no finite number")
    return weights


def _weights_in(argument: Any) -> Iterator[str]:
    if isinstance(argument, list):
        for each in argument:
            yield from _weights_in(each)
    elif isinstance(argument, str) and argument.startswith("@"):
        yield argument[1:]


def read_golden(folder: WinnerDir, records: dict[str, Any]) -> dict[str, NDArray[Any]]:
    path = folder.golden
    wanted = {*records["network.json"]["inputs"], golden_output(records)}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(each.file_size for each in archive.infolist()) > GOLDEN_BYTES:
                raise ValueError(f"it unpacks to more than {GOLDEN_BYTES} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read ({_short(error)})") from error
    if set(golden) != wanted or len({len(value) for value in golden.values() if value.ndim} | {-1}) != 2:
        raise ValueError(f"{path} must hold {', '.join(sorted(wanted))}, of the same number of rows")
    return golden


def golden_output(records: dict[str, Any]) -> str:
    return "probabilities" if records["architecture.json"]["task"] == CLICKS else "logits"


def check_costs(content: Content) -> str:
    """The genotype says what it costs, and network.json costs that."""
    folder, record, program = content.folder, content.architecture, content.program
    path, costs = folder.architecture_json, record["costs"]
    space = _told(lambda: space_of(record), f"{path}: space is none that subshot can build")
    if space is not None:
        genotype = tuple(record["genotype"])
        named = _told(lambda: from_named_choices(space, record["choices"]), f"{path}: choices")
        if named != genotype or named_choices(space, genotype) != record["choices"]:
            raise ValueError(f"{path}: genotype and choices are not the same network")
        if network_hash(space, genotype) != record["hash"]:
            raise ValueError(f"{path}: hash is not that of the choices")
        cost = cost_of(space, genotype, record)
        for name, value in costs.items():
            if getattr(cost, name) != value:
                raise ValueError(f"{path}: costs.{name} is {value}; the genotype has {getattr(cost, name)}")
    params = sum(content.weights[n].numel() for n in program["parameters"] if not n.startswith("tables."))
    shapes = {name: tuple(value.shape) for name, value in content.weights.items()}
    samples = [torch.from_numpy(content.golden[name]) for name in program["inputs"]]
    macs = _told(lambda: count_macs(program, shapes, samples), f"{folder.network_json} cannot be run")
    for name, value in (("macs", macs), ("params", params)):
        if value != costs[name]:
            raise ValueError(f"{folder.network_json} has {value} {name}, and {path} says {costs[name]}")
    whole = "the genotype and network.json" if space is not None else "network.json (the space is the user's own file)"
    return f"{macs:,} MACs and {params:,} parameters, counted again from {whole}"


def check_interface(content: Content) -> str:
    """What goes in and what comes out are of the sizes that the network has."""
    records, space = content.records, content.architecture["space"]
    how, labels = records["preprocess.json"], records["labels.json"]
    folder = content.folder
    if content.architecture["task"] == IMAGES:
        if sorted(labels, key=int) != [str(number) for number in range(space["classes"])]:
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
        found = _told(lambda rows=rows: run(rows), f"{content.folder.network_json} cannot be run")  # type: ignore[misc]
        largest = max(largest, _difference(found.numpy(), content, rows, "torch"))
    return f"torch gives the golden outputs to {largest:.2g} (allowed: {MAX_DIFFERENCE:g})"


def check_onnx(content: Content) -> str:
    path = content.folder.onnx
    output = golden_output(content.records)
    _told(lambda: require_self_contained(path), f"{path}")
    largest = 0.0
    for rows in (len(content.golden[output]), 1):
        arrays = {name: value[:rows] for name, value in content.golden.items() if name != output}
        found = _told(lambda arrays=arrays: run_onnx(path, arrays, output), f"{path} cannot be run")  # type: ignore[misc]
        largest = max(largest, _difference(found, content, rows, "onnxruntime"))
    return f"onnxruntime gives the golden outputs to {largest:.2g} (allowed: {MAX_DIFFERENCE:g})"


def require_self_contained(path: Path) -> None:
    """Raises ValueError where an ONNX file reads weights from anywhere but its own .data beside it."""
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value != f"{path.name}.data":
                raise ValueError(f"it reads weights from {entry.value!r}, and may only from {path.name}.data")


def check_pt2(content: Content) -> str:
    path = content.folder.pt2
    compared = _told(lambda: _same_weights(path, content.weights), f"{path}")
    return f"model.pt2 holds the same {compared} weights, bit for bit, and no pickled ones"


def _same_weights(path: Path, weights: dict[str, Tensor]) -> int:
    with zipfile.ZipFile(path) as archive:
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


def _difference(found: NDArray[Any], content: Content, rows: int, runtime: str) -> float:
    wanted = content.golden[golden_output(content.records)][:rows]
    if found.shape != wanted.shape:
        raise ValueError(f"{runtime} gives {found.shape} for golden.npz in {content.folder.root}, not {wanted.shape}")
    difference = float(np.abs(found.astype(np.float64) - wanted).max())
    if not difference <= MAX_DIFFERENCE or math.isnan(difference):
        raise ValueError(
            f"{runtime}'s outputs differ from golden.npz in {content.folder.root} by {difference:.3g}; allowed: "
            f"{MAX_DIFFERENCE:g}"
        )
    return difference


def _told(check: Callable[[], T], what: str) -> T:
    """What `check` gives; whatever it raises becomes a ValueError with `what` before it: the files are not trusted, and
    libraries have errors of their own."""
    try:
        return check()
    except Exception as error:
        raise ValueError(f"{what}: {_short(error)}") from error


def _short(error: BaseException) -> str:
    words = " ".join(f"{error}".split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:197]}..."
