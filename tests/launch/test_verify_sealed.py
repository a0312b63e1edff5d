"""Winners' folders that were damaged and given new hashes: refused all the same, in a sentence, and no code is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from subshot.launch.winners.check import check_winner
from subshot.launch.winners.handover import checksums

Made = Any  # of conftest.py
SEALED = 75
"""Damaged folders of either domain; 350 more are in test_verify.py."""


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def seal(folder: Path) -> None:
    """SHA256SUMS of what is there now."""
    rewrite(folder / "SHA256SUMS", checksums_without_itself(folder).encode())


def checksums_without_itself(folder: Path) -> str:
    return "".join(line + "\n" for line in checksums(folder).splitlines() if not line.endswith("  SHA256SUMS"))


REQUIRED = {
    "architecture.json": ["schema_version", "task", "space", "choices", "genotype", "words", "hash", "costs"],
    "network.json": ["inputs", "output", "parameters", "joined", "calls"],
    "labels.json": [],
    "preprocess.json": [],
    "metrics.json": ["name", "role", "settings", "search/score"],
    "provenance.json": ["subshot", "git_commit", "run", "config", "data", "environment", "commands", "randomness"],
}
"""Fields of either domain's files; of an empty list, whatever the file has."""


def remove_field(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(sorted(REQUIRED))
    record = json.loads(path.read_text())
    del record[rng.choice(REQUIRED[path.name] or sorted(record))]
    rewrite(path, json.dumps(record).encode())


def change_type(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(sorted(REQUIRED))
    record = json.loads(path.read_text())
    name = rng.choice([n for n in REQUIRED[path.name] or sorted(record) if n not in ("git_commit", "search/score")])
    others: list[Any] = [None, True, 3.5, "text", [None], {"a": []}]
    record[name] = rng.choice([o for o in others if not isinstance(o, type(record[name]))])
    if isinstance(record[name], str | float) and path.name in ("preprocess.json", "labels.json"):
        record[name] = None
    rewrite(path, json.dumps(record).encode())


def not_json(folder: Path, rng: random.Random) -> None:
    wrong = rng.choice([b"[]", b"null", b"{", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"1e999"])
    rewrite(folder / rng.choice(sorted(REQUIRED)), wrong)


def oversized_header(folder: Path, rng: random.Random) -> None:
    path = folder / "model.safetensors"
    size = rng.choice([2**63 - 1, 2**40, 2**32, 2**27, len(path.read_bytes()), 0])
    rewrite(path, struct.pack("<Q", size) + path.read_bytes()[8:])


def other_tensors(folder: Path, rng: random.Random) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = rng.choice([n for n in sorted(weights) if weights[n].is_floating_point() and weights[n].numel() > 1])
    kind = rng.choice(["nan", "shape", "gone", "renamed", "zero"])
    if kind == "nan":
        weights[name].view(-1)[0] = float(rng.choice(["nan", "inf"]))
    elif kind == "shape":
        weights[name] = weights[name].view(-1)[:-1].clone()
    elif kind == "zero":
        weights = {n: torch.zeros_like(value) for n, value in weights.items()}
    else:
        value = weights.pop(name)
        if kind == "renamed":
            weights[f"../{name}"] = value
    path.unlink()
    save_file(weights, path)


def other_calls(folder: Path, rng: random.Random) -> None:
    path = folder / "network.json"
    program = json.loads(path.read_text())
    calls, place = program["calls"], rng.randrange(len(program["calls"]))
    kind = rng.choice(["operation", "argument", "huge", "gone", "output", "dead"])
    if kind == "operation":
        calls[place][1] = rng.choice(["os.system", "getattr", "_print.default", "from_file.default", "", "set_.source"])
    elif kind == "argument":
        calls[place][2] = [rng.choice(["%nothing", "@nothing", "@../weight", "x"])] * max(1, len(calls[place][2]))
    elif kind == "huge":
        calls[place][1:3] = ["tril_indices.default", [10**9, 10**9, 0]]
    elif kind == "gone":
        del calls[place]
    elif kind == "dead":
        calls[0][3] = [*calls[0][3], "nothing"]
    else:
        program["output"] = "../output"
    rewrite(path, json.dumps(program).encode())


def other_costs(folder: Path, rng: random.Random) -> None:
    path = folder / "architecture.json"
    record = json.loads(path.read_text())
    kind = rng.choice(["macs", "params", "activation_elements", "genotype", "hash", "choices", "space"])
    if kind in record["costs"]:
        record["costs"][kind] += rng.choice([1, -1, 10**6])
    elif kind == "genotype":
        record["genotype"][0] += 1
    elif kind == "hash":
        record["hash"] = "0" * 16
    elif kind == "choices":
        record["choices"].popitem()
    else:
        sizes = [name for name, value in record["space"].items() if type(value) is int]
        record["space"][rng.choice(sizes)] += 8
    rewrite(path, json.dumps(record).encode())


def climbing_path(folder: Path, rng: random.Random) -> None:
    """In SHA256SUMS (sealed with it), or in the ONNX file's list of outside weights."""
    outside = folder.parent / "outside.bin"
    outside.write_bytes(b"\0" * 100_000)
    if rng.random() < 0.5:
        model = onnx.load(str(folder / "model.onnx"))
        tensor = next(t for t in model.graph.initializer if t.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", rng.choice(["../outside.bin", str(outside), "/etc/passwd"])
        rewrite(folder / "model.onnx", model.SerializeToString())
        seal(folder)
        return
    seal(folder)
    name = rng.choice(["../outside.bin", str(outside), "a/../../outside.bin", "..", "winner\\..\\x"])
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")


class Run:
    """Makes the file `marker` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def planted_code(folder: Path, rng: random.Random) -> None:
    marker = folder.parent / "marker"
    kind = rng.choice(["load", "preprocess", "npz", "pt2", "safetensors"])
    if kind in ("load", "preprocess"):
        rewrite(folder / f"{kind}.py", f"import os\nos.mkdir({str(marker)!r})\n".encode())
    elif kind == "npz":
        held = io.BytesIO()
        np.savez(held, images=np.array([Run(marker)], dtype=object))
        rewrite(folder / "golden.npz", held.getvalue())
    elif kind == "safetensors":
        rewrite(folder / "model.safetensors", pickle.dumps(Run(marker)))
    else:
        old = io.BytesIO((folder / "model.pt2").read_bytes())
        held = io.BytesIO()
        with zipfile.ZipFile(old) as source, zipfile.ZipFile(held, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name.endswith("model_weights_config.json"):
                    content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
                elif "/data/weights/" in name:
                    content = pickle.dumps(Run(marker))
                target.writestr(name, content)
        rewrite(folder / "model.pt2", held.getvalue())


def odd_numbers(folder: Path, rng: random.Random) -> None:
    """What JSON Schema or Python might take for a number."""
    path = folder / rng.choice(["architecture.json", "latency.json"])
    record = json.loads(path.read_text())
    if path.name == "latency.json":
        record = rng.choice([[], record[:3], [record[0] | {"n": 1.0}, *record[1:]]])
    else:
        sizes = [name for name, value in record["space"].items() if type(value) is int]
        kind = rng.choice(["float gene", "float size", "huge size", "other words", "own space"])
        if kind == "float gene":
            record["genotype"][0] = float(record["genotype"][0])
        elif kind == "other words":
            record["words"] += " more"
        elif kind == "own space":
            record["space"]["name"] = "mine"
        else:
            name = rng.choice(sizes)
            record["space"][name] = float(record["space"][name]) if kind == "float size" else 10**12
    rewrite(path, json.dumps(record).encode())


def odd_golden(folder: Path, rng: random.Random) -> None:
    path = folder / "golden.npz"
    with np.load(path) as arrays:
        golden = {name: arrays[name] for name in arrays.files}
    name = rng.choice(sorted(golden))
    kind = rng.choice(["no rows", "text", "dates", "big-endian", "scalar", "packed", "more"])
    if kind == "no rows":
        golden = {each: value[:0] for each, value in golden.items()}
    elif kind in ("text", "dates"):
        golden[name] = np.zeros(golden[name].shape, dtype="U4" if kind == "text" else "datetime64[s]")
    elif kind == "big-endian":
        golden[name] = golden[name].astype(golden[name].dtype.newbyteorder(">"))
    elif kind == "scalar":
        golden[name] = golden[name].ravel()[0]
    elif kind == "more":
        golden["more"] = golden[name]
    held = io.BytesIO()
    (np.savez_compressed if kind == "packed" else np.savez)(held, **golden)
    rewrite(path, held.getvalue())


def listed_stranger(folder: Path, rng: random.Random) -> None:
    """A module that `import torch` in load.py would find first, or a loader that says it is of another version."""
    marker = folder.parent / "marker"
    code = f"import os\nos.mkdir({str(marker)!r})\n".encode()
    kind = rng.choice(["torch.py", "json.py", "sitecustomize.py", "version", "__pycache__"])
    if kind == "version":
        rewrite(folder / "load.py", code)
        path = folder / "provenance.json"
        rewrite(path, json.dumps(json.loads(path.read_text()) | {"subshot": "0.0.1"}).encode())
    elif kind == "__pycache__":
        (folder / kind).mkdir()
    else:
        (folder / kind).write_bytes(code)


def false_words(folder: Path, rng: random.Random) -> None:
    kind = rng.choice(["card", "metrics", "config"])
    if kind == "card":
        rewrite(folder / "MODEL_CARD.md", (folder / "MODEL_CARD.md").read_bytes().replace(b"MACs", b"few MACs"))
        return
    path = folder / ("metrics.json" if kind == "metrics" else "provenance.json")
    record = json.loads(path.read_text())
    if kind == "config":
        record["config"]["data"] = "elsewhere"
    elif "test/accuracy" in record:
        record["test/accuracy"] = 0.99
    else:
        record["test/log_loss"]["value"] = 0.01
    rewrite(path, json.dumps(record).encode())


def other_program(folder: Path, rng: random.Random) -> None:
    name = rng.choice(["model.onnx", "model.pt2", "golden.npz"])
    content = (folder / name).read_bytes()
    kind = rng.choice(["cut", "noise", "empty"])
    changed = {"cut": content[: len(content) // 2], "noise": rng.randbytes(1000), "empty": b""}[kind]
    rewrite(folder / name, changed)


SEALED_DAMAGE = (
    remove_field,
    change_type,
    not_json,
    oversized_header,
    other_tensors,
    other_calls,
    other_costs,
    climbing_path,
    planted_code,
    other_program,
    odd_numbers,
    odd_golden,
    listed_stranger,
    false_words,
)


@pytest.mark.parametrize("domain", ["images", "clicks"])
def test_damage_under_new_hashes_is_refused_too(
    made_images: Made,
    made_clicks: Made,
    domain: str,
    tmp_path: Path,
    linked: Callable[[Path], Path],
    reason_of: Callable[[Path], str],
) -> None:
    winner = made_images.winner if domain == "images" else made_clicks.winner
    reasons = set()
    for seed in range(SEALED):
        change = SEALED_DAMAGE[seed % len(SEALED_DAMAGE)]
        folder = linked(winner)
        change(folder, random.Random(f"{domain} {seed}"))
        if change is not climbing_path:
            seal(folder)
        words = reason_of(folder)
        assert "was changed" not in words, "the hashes fit, so another check has found it"
        reasons.add(words.replace(str(folder), ""))
        assert not (tmp_path / "marker").exists(), f"{change.__name__} ran code"
    assert len(reasons) > 20, "different damages have different sentences"


@pytest.mark.parametrize("domain", ["images", "clicks"])
def test_flipped_bits_under_new_hashes_never_crash(
    made_images: Made, made_clicks: Made, domain: str, linked: Callable[[Path], Path]
) -> None:
    """Some change nothing that counts, such as an unused name; the others are refused in a sentence."""
    winner = made_images.winner if domain == "images" else made_clicks.winner
    refused = 0
    for seed in range(40):
        folder, rng = linked(winner), random.Random(f"{domain} {seed}")
        path = rng.choice([each for each in sorted(folder.rglob("*")) if each.is_file() and each.name != "SHA256SUMS"])
        changed = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 3, 30])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        rewrite(path, bytes(changed))
        seal(folder)
        try:
            for _ in check_winner(folder):
                pass
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20
