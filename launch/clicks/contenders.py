"""The networks that a CTR run trains from scratch beside one another, and the trainings of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from subshot.launch.cli import nearest
from subshot.supernet.ctr_baselines import BASELINES, adds_products, build_baseline, table_dim
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.nasrec_network import build_nasrec
from subshot.supernet.nasrec_published import published_winner
from subshot.supernet.space import Genotype, validated

Role = Literal["winner", "random_search", "control", "baseline"]
PUBLISHED = "nasrec"


@dataclass(frozen=True)
class Contender:
    """A network. genotype: None for baselines, whose name says what they are. score: what the search gave it."""

    name: str
    role: Role
    genotype: Genotype | None = None
    score: float | None = None


@dataclass(frozen=True)
class Trial:
    """One training. tested: on all training and validation rows, and then the test split is looked at, once."""

    contender: Contender
    learning_rate: float
    seed: int
    tested: bool = False

    @property
    def name(self) -> str:
        return f"{self.contender.name}-lr{self.learning_rate:g}-seed{self.seed}{'-tested' if self.tested else ''}"


def searched(summary: dict[str, Any], top: int, controls: int) -> list[list[Contender]]:
    """The groups of which validation chooses one each: the best by score of evolution, best first (of NSGA-II:
    networks spread over its front); as many of random search, which scored as many candidates; random networks of the
    winner's cost, which no score chose."""
    groups = []
    main = next(found for method, found in summary["best_of"].items() if method != "random")
    for role, name, found in (
        ("winner", "rank", main[:top]),
        ("random_search", "random-rank", summary["best_of"]["random"][:top]),
        ("control", "random", summary["controls"][:controls]),
    ):
        groups.append(
            [
                Contender(f"{name}-{number}", cast(Role, role), tuple(network["genotype"]), network["score"])
                for number, network in enumerate(found, start=1)
            ]
        )
    return groups


def baselines(names: tuple[str, ...], space: NasrecSpace, dataset: str) -> list[Contender]:
    """The named ones; `nasrec` is left out where nothing was published for this data set and space.

    Raises ValueError for a name that there is not.
    """
    found = []
    for name in names:
        if name == PUBLISHED:
            genotype = published_winner(space, dataset)
            if genotype is not None:
                found.append(Contender(PUBLISHED, "baseline", genotype))
        elif name in BASELINES:
            found.append(Contender(name, "baseline"))
        else:
            known = nearest(name, [*BASELINES, PUBLISHED])
            raise ValueError(f"retrain.baselines: there is no baseline {name!r}; {known}")
    return found


def build(contender: Contender, space: NasrecSpace, seed: int, layer_norm: bool) -> tuple[nn.Module, int, bool]:
    """(the network, initialised from the seed; how many numbers a category's embedding must have for it; whether the
    tables must start small)."""
    generator = torch.Generator().manual_seed(seed)
    if contender.genotype is None:
        network = build_baseline(
            contender.name, space.dense_features, space.sparse_fields, generator, space.embedding_dim
        )
        return network, table_dim(contender.name, space.embedding_dim), adds_products(contender.name)
    genotype = validated(space, contender.genotype)
    return build_nasrec(space.decode(genotype), generator, layer_norm), space.embedding_dim, False
