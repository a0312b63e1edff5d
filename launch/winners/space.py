"""The space that a winner's architecture.json names, built again without data, and the network's place in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from subshot.supernet import BENCHMARK_SPACES, CLICK_SPACES, SPACES
from subshot.supernet.chain import ChainSpace
from subshot.supernet.cost import Cost
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.network_space import NetworkSpace
from subshot.supernet.space import Genotype, SearchSpace, describe, named_choices, network_hash

WinnerSpace = ChainSpace | NetworkSpace | NasrecSpace


def architecture_of(
    task: str, space: SearchSpace, settings: dict[str, Any], genotype: Genotype, cost: Cost
) -> dict[str, Any]:
    """architecture.json. settings: what `space_of` builds the space from."""
    return {
        "schema_version": SCHEMA_VERSION,
        "task": task,
        "space": settings,
        "choices": named_choices(space, genotype),
        "genotype": list(genotype),
        "words": describe(space, genotype),
        "hash": network_hash(space, genotype),
        "costs": {"macs": cost.macs, "params": cost.params, "activation_elements": cost.activation_elements},
    }


SCHEMA_VERSION = 2
IMAGES, CLICKS = "image classification", "click-through rate"


def click_space_settings(space: NasrecSpace, layer_norm: bool) -> dict[str, Any]:
    return {
        "name": space.name,
        "blocks": space.num_blocks,
        "dense_features": space.dense_features,
        "sparse_fields": space.sparse_fields,
        "dense_dims": list(space.dense_dims),
        "sparse_dims": list(space.sparse_dims),
        "embedding_dim": space.embedding_dim,
        "layer_norm": layer_norm,
    }


def space_of(architecture: dict[str, Any]) -> WinnerSpace | None:
    """None where the space is none of subshot's own."""
    settings = architecture["space"]
    name = settings["name"]
    if architecture["task"] == CLICKS:
        if name not in CLICK_SPACES:
            return None
        space = CLICK_SPACES[name](settings["dense_features"], settings["sparse_fields"], settings["blocks"])
        dense_dims, sparse_dims = tuple(settings["dense_dims"]), tuple(settings["sparse_dims"])
        return replace(space, dense_dims=dense_dims, sparse_dims=sparse_dims, embedding_dim=settings["embedding_dim"])
    if name in SPACES:
        return SPACES[name](settings["input_size"], settings["classes"], settings["width"], settings["reduced_strides"])
    if name in BENCHMARK_SPACES:
        return BENCHMARK_SPACES[name](settings["input_size"], settings["classes"])
    return None


def cost_of(space: WinnerSpace, genotype: Genotype, architecture: dict[str, Any]) -> Cost:
    if isinstance(space, NasrecSpace):
        return space.cost(genotype, architecture["space"]["layer_norm"])
    return space.cost(genotype)
