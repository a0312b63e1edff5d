"""What 8-bit tables cost a CTR network: its log loss on the same test rows with float32 tables, with ours in 8 bits,
and with torchrec's own quantised tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import PlaceholderObserver, QConfig
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.quant.embedding_modules import EmbeddingBagCollection as QuantisedCollection

from subshot.data.clicks import ClickEvalLoader, open_clicks
from subshot.launch.winners.copied.load import Network
from subshot.train.click_metrics import ClickMetrics, click_metrics
from subshot.train.run_dir import file_digest

BATCH = 4096


@dataclass(frozen=True)
class Compared:
    """metrics: of the int8 network. losses: log losses on the test rows, by tables, and the changes from float32."""

    metrics: ClickMetrics
    losses: dict[str, float]


def compared(
    network: Network, quantised: Network, preprocess: dict[str, Any], provenance: dict[str, Any], data: Path
) -> Compared:
    """data: the prepared log that the network was trained on. Raises ValueError where it is another."""
    clicks = open_clicks(data)
    wanted = provenance["data"].get("manifest_sha256")
    if file_digest(data / "manifest.json") != wanted:
        raise ValueError(
            f"{data} is not the log that this network was trained on: its manifest.json has another sha256"
        )
    theirs = Network(network.program, network.state_dict() | torchrec_tables(network)).eval()
    loader = ClickEvalLoader(clicks.test, batch_size=BATCH, max_rows_per_table=preprocess["max_rows_per_table"])
    found: dict[str, ClickMetrics] = {}
    for name, each in (("float32", network), ("int8", quantised), ("torchrec_int8", theirs)):
        logits, labels = [], []
        for batch in loader:
            ids = batch.sparse.values().view(len(preprocess["categories"]), -1).t().to(torch.int64)
            with torch.no_grad():
                logits.append(torch.logit(each(batch.dense, ids).double(), eps=1e-12))
            labels.append(batch.labels)
        found[name] = click_metrics(torch.cat(logits).float(), torch.cat(labels))
    losses = {f"{name}_log_loss": metrics.log_loss.value for name, metrics in found.items()}
    base = losses["float32_log_loss"]
    changes = {f"{name}_change": losses[f"{name}_log_loss"] - base for name in ("int8", "torchrec_int8")}
    return Compared(found["int8"], losses | changes | {"test_rows": float(len(clicks.test))})


def torchrec_tables(network: Network) -> dict[str, Tensor]:
    """What torchrec's quantised collection gives for every row of every table, as float32 tables again."""
    tables = {
        name: value for name, value in network.state_dict().items() if name.startswith("tables.") and "weight" in name
    }
    return {name: quantised_rows(value) for name, value in tables.items()}


def quantised_rows(weight: Tensor) -> Tensor:
    """[rows, width] through torchrec's int8 EmbeddingBagCollection."""
    rows, width = weight.shape
    config = EmbeddingBagConfig(name="t", embedding_dim=width, num_embeddings=rows, feature_names=["f"])
    collection: Any = EmbeddingBagCollection(tables=[config], device=torch.device("cpu"))
    collection.embedding_bags["t"].weight.data.copy_(weight)
    collection.qconfig = QConfig(
        activation=PlaceholderObserver.with_args(dtype=torch.float),
        weight=PlaceholderObserver.with_args(dtype=torch.qint8),
    )
    quantised: nn.Module = QuantisedCollection.from_float(collection)
    ids = torch.arange(rows, dtype=torch.int32)
    looked_up = quantised(KeyedJaggedTensor(keys=["f"], values=ids, lengths=torch.ones(rows, dtype=torch.int32)))
    found: Tensor = looked_up.to_dict()["f"].float()
    return found
