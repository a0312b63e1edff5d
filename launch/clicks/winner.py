"""What is handed over of a retrained CTR network and its tables; the folder is launch/winners/handover.py's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from subshot.data.batch import ClickBatch
from subshot.launch.clicks.data import ClickData
from subshot.launch.winners.handover import Handover
from subshot.launch.winners.provenance import provenance_of
from subshot.launch.winners.raw import RawInputs
from subshot.launch.winners.raw_lines import log_lines
from subshot.launch.winners.schema import BY_TRAINING
from subshot.launch.winners.served_clicks import served
from subshot.launch.winners.space import CLICKS, architecture_of, click_space_settings
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.space import Genotype
from subshot.train.run_dir import RunDir
from subshot.train.tables import Tables
from subshot.train.winner_dir import LOG_LINES


def click_handover(
    network: nn.Module,
    tables: Tables,
    space: NasrecSpace,
    genotype: Genotype,
    data: ClickData,
    max_rows: int,
    layer_norm: bool,
    sample: ClickBatch,
    metrics: dict[str, Any],
    run: RunDir,
) -> Handover:
    """sample: a few test rows; the expected probabilities are those that network and tables give, as in training."""
    network = network.cpu().eval()
    names = [name for name, _ in data.fields]
    with torch.no_grad():
        expected = torch.sigmoid(network((sample.dense.cpu(), tables(sample).cpu())))
    ids = sample.sparse.values().view(len(names), -1).t().contiguous().cpu().to(torch.int64)
    rules, vocabulary = data.serving(max_rows), data.vocabularies()
    lines = log_lines(rules, vocabulary)
    return Handover(
        network=served(network, tables.weights(), names),
        inputs={"dense": sample.dense.cpu(), "ids": ids},
        output="probabilities",
        expected=expected,
        raw=RawInputs({LOG_LINES[0]: lines}, data.encoded(lines, max_rows), BY_TRAINING),
        architecture=architecture_of(
            CLICKS, space, click_space_settings(space, layer_norm), genotype, space.cost(genotype, layer_norm)
        ),
        preprocess=rules,
        labels={
            "column": next(column["name"] for column in rules["columns"] if column["label"]),
            "positive": "a click",
            "base_rate": data.split("train").base_rate,
        },
        metrics=metrics,
        provenance=provenance_of(run),
        vocabulary=vocabulary,
    )
