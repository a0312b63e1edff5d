"""The folder that a retrained network is handed over in: written whole, loaded back and checked, then put in place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subshot.launch.winners.card import model_card
from subshot.launch.winners.check import check_winner
from subshot.launch.winners.copied import LOAD, load, preprocess_source
from subshot.launch.winners.latency import measure_latency
from subshot.launch.winners.network_program import as_program, as_text, exported
from subshot.launch.winners.programs import MAX_DIFFERENCE, run_onnx, run_pt2, write_onnx, write_pt2
from subshot.launch.winners.raw import RawInputs, write_raw
from subshot.launch.winners.space import IMAGES
from subshot.launch.winners.weights import FILE_BYTES, write_weights
from subshot.train.run_dir import file_digest, replacing_folder, write_json
from subshot.train.winner_dir import WinnerDir


@dataclass(frozen=True)
class Handover:
    """What a domain says of a network.

    network: on the CPU, in evaluation mode; its state is what the folder holds. inputs: a few, by name, in the order of
    the network's arguments; with expected, the outputs for them, they become golden.npz. raw: becomes golden/. The
    dicts become the JSON files of their names.
    """

    network: nn.Module
    inputs: Mapping[str, Tensor]
    output: str
    expected: Tensor
    raw: RawInputs
    architecture: dict[str, Any]
    preprocess: dict[str, Any]
    labels: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    vocabulary: dict[str, Any] = field(default_factory=dict)


def write_winner(folder: WinnerDir, given: Handover, file_bytes: int = FILE_BYTES) -> None:
    """Raises RuntimeError where the written folder does not give the network's outputs to 1e-3: nothing is left then.

    file_bytes: the largest safetensors file.
    """
    with replacing_folder(folder.root) as place:
        new = WinnerDir(place)
        write_json(new.architecture_json, given.architecture)
        write_json(new.preprocess_json, given.preprocess)
        write_json(new.labels_json, given.labels)
        write_json(new.provenance_json, given.provenance)
        if given.vocabulary:
            new.vocabulary_json.write_text(json.dumps(given.vocabulary) + "\n", encoding="utf-8")
        arrays = {name: value.numpy() for name, value in given.inputs.items()}
        np.savez(new.golden, **arrays, **{given.output: given.expected.numpy()})  # type: ignore[arg-type]
        write_raw(new, given.raw)
        differences = write_network(new, given, file_bytes)
        write_json(new.metrics_json, given.metrics | differences)
        latency = measure_latency(given.network, given.inputs, new.onnx, given.output)
        write_json(new.latency_json, latency)
        card = model_card(given.architecture, given.preprocess, given.metrics | differences, latency, given.provenance)
        new.model_card.write_text(card, encoding="utf-8")
        images = given.architecture["task"] == IMAGES
        for path, source in ((new.load_py, LOAD), (new.preprocess_py, preprocess_source(images))):
            path.write_bytes(source.read_bytes())
        new.checksums.write_text(checksums(place), encoding="ascii")
        try:
            for _ in check_winner(place):
                pass
        except ValueError as error:
            raise RuntimeError(f"the folder that was written for {folder.root} does not verify: {error}") from error


def write_network(new: WinnerDir, given: Handover, file_bytes: int) -> dict[str, float]:
    """Weights and programs; returns how far other runtimes are from the expected outputs, for metrics.json."""
    inputs = tuple(given.inputs.values())
    found = exported(given.network, inputs)
    program = as_program(found, tuple(given.inputs))
    program["joined"] = write_weights(new, given.network.state_dict(), file_bytes)
    new.network_json.write_text(as_text(program), encoding="utf-8")
    write_onnx(found, tuple(given.inputs), given.output, new.onnx)
    write_pt2(found, new.architecture_json.read_text(encoding="utf-8"), new.pt2)
    arrays = {name: value.numpy() for name, value in given.inputs.items()}
    outputs = {
        "onnx": torch.from_numpy(run_onnx(new.onnx, arrays, given.output)),
        "pt2": run_pt2(new.pt2, inputs),
    }
    with torch.no_grad():
        outputs["load"] = load.load(new.root)(*inputs)
    differences = {f"{name}_max_abs_difference": _distance(value, given.expected) for name, value in outputs.items()}
    for name, value in differences.items():
        if not value <= MAX_DIFFERENCE:
            raise RuntimeError(f"{new.root}: {name} is {value:.3g}; allowed: {MAX_DIFFERENCE:g}")
    return differences


def _distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max())


def checksums(folder: Path) -> str:
    """The text of SHA256SUMS: a line for each file, in the order of their names."""
    return "".join(f"{file_digest(folder / name)}  {name}\n" for name in file_names(folder))


def file_names(folder: Path) -> list[str]:
    """Of all files, those in golden/ with that before them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def winner_digest(folder: WinnerDir) -> str:
    """One sha256 for the whole folder: that of its SHA256SUMS."""
    return hashlib.sha256(folder.checksums.read_bytes()).hexdigest()
