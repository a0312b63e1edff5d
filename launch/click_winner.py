"""The folder that a retrained CTR network is handed over in: weights, tables, what a raw row must become, ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from subshot.data.batch import ClickBatch
from subshot.launch.click_data import ClickData
from subshot.launch.onnx_export import MAX_DIFFERENCE, SCHEMA_VERSION, quiet_exporter
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.space import Genotype, describe, named_choices
from subshot.train.run_dir import WinnerDir, replacing, write_json
from subshot.train.tables import Tables


class ServedNetwork(nn.Module):
    """Network and tables as one module that needs torch alone: (dense [N, D], ids [N, F] int64) to probabilities [N].

    All tables lie in one nn.Embedding, a field's rows after those of the fields before it: a Gather in ONNX.
    """

    def __init__(self, network: nn.Module, tables: dict[str, Tensor], names: list[str]) -> None:
        super().__init__()
        weights = [tables[f"{name}.weight"] for name in names]
        starts = np.cumsum([0, *(len(weight) for weight in weights[:-1])])
        self.network = network
        self.embedding = nn.Embedding.from_pretrained(torch.cat(weights))
        self.register_buffer("starts", torch.as_tensor(starts, dtype=torch.int64))
        self.starts: Tensor

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        return torch.sigmoid(self.network((dense, self.embedding(ids + self.starts))))


def write_click_winner(
    folder: WinnerDir,
    network: nn.Module,
    tables: Tables,
    space: NasrecSpace,
    genotype: Genotype,
    data: ClickData,
    max_rows: int,
    layer_norm: bool,
    sample: ClickBatch,
    metrics: dict[str, Any],
) -> None:
    """Writes everything, reads the weights back, and writes metrics.json last: a folder that has it is whole.

    sample: a few test rows; with the probabilities that network and tables give them they become golden.npz. Raises
    RuntimeError where weights, the served module or ONNX do not give these to 1e-3.
    """
    network = network.cpu().eval()
    cost = space.cost(genotype, layer_norm)
    write_json(
        folder.architecture_json,
        {
            "schema_version": SCHEMA_VERSION,
            "space": {
                "name": space.name,
                "blocks": space.num_blocks,
                "dense_features": space.dense_features,
                "sparse_fields": space.sparse_fields,
                "dense_dims": list(space.dense_dims),
                "sparse_dims": list(space.sparse_dims),
                "embedding_dim": space.embedding_dim,
                "layer_norm": layer_norm,
            },
            "choices": named_choices(space, genotype),
            "genotype": list(genotype),
            "words": describe(space, genotype),
            "costs": {"macs": cost.macs, "params": cost.params, "activation_elements": cost.activation_elements},
        },
    )
    write_json(folder.preprocess_json, data.preprocessing(max_rows))
    held = tables.weights()
    weights = {f"tables.{name}": value.contiguous() for name, value in held.items()}
    weights |= {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    with replacing(folder.weights) as temporary:
        save_file(weights, temporary)
    saved = load_file(folder.weights)
    if any(not torch.equal(saved[name], value) for name, value in weights.items()):
        raise RuntimeError(f"{folder.weights} does not read back as it was written")
    ids = sample.sparse.values().view(len(data.fields), -1).t().contiguous().cpu()
    dense = sample.dense.cpu()
    with torch.no_grad():
        wanted = torch.sigmoid(network((dense, tables(sample).cpu())))
    served = ServedNetwork(network, held, [name for name, _ in data.fields]).eval()
    with torch.no_grad():
        _require_close(served(dense, ids), wanted, "the served module")
    with replacing(folder.golden) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, dense=dense.numpy(), ids=ids.numpy(), probabilities=wanted.numpy())
    difference = export_click_onnx(served, dense, ids, folder.onnx)
    write_json(folder.metrics_json, metrics | {"onnx_max_abs_difference": difference})


def export_click_onnx(served: ServedNetwork, dense: Tensor, ids: Tensor, path: Path) -> float:
    """Writes the served module with a dynamic batch; returns the largest difference of onnxruntime's probabilities."""
    batch = torch.export.Dim("batch", min=1, max=2**20)
    with quiet_exporter():
        program = torch.onnx.export(
            served,
            (dense, ids),
            dynamo=True,
            dynamic_shapes=({0: batch}, {0: batch}),
            input_names=["dense", "ids"],
            output_names=["probabilities"],
        )
    assert program is not None
    with replacing(path) as temporary:
        program.save(str(temporary), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for rows in (len(ids), 1):
        feed = {"dense": dense[:rows].numpy(), "ids": ids[:rows].numpy()}
        kept = {wanted.name: feed[wanted.name] for wanted in session.get_inputs()}
        (found,) = session.run(["probabilities"], kept)
        with torch.no_grad():
            largest = max(largest, _require_close(torch.from_numpy(found), served(dense[:rows], ids[:rows]), str(path)))
    return largest


def _require_close(found: Tensor, wanted: Tensor, what: str) -> float:
    difference = float((found - wanted).abs().max())
    if not difference <= MAX_DIFFERENCE:
        raise RuntimeError(f"{what} gives probabilities that differ by {difference:.2g}; allowed: {MAX_DIFFERENCE}")
    return difference
