"""Costs of NASRec networks: the six published winners, and the networks that are built."""

import gzip
import json
import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from subshot.supernet.nasrec import NasrecSpace, autoctr_in_nasrec, nasrec_full, nasrec_small
from subshot.supernet.nasrec_cost import network_cost, network_layers
from subshot.supernet.nasrec_network import NasrecNetwork, build_nasrec, new_weights
from subshot.supernet.nasrec_ops import Heads, Projection
from subshot.supernet.nasrec_public import from_public_config

FIELDS = {"Criteo": (13, 26), "Avazu": (1, 23), "KDD-Cup12": (3, 10)}
BUILDERS = {"NASRec-Small": nasrec_small, "NASRec-Full": nasrec_full}


def test_published_winners(shared_data) -> None:
    """Published MACs (called FLOPs) are of what the logit depends on, with all (t + 1)^2 dot products and with
    attention: projections of queries, keys, values and output, and both products. Published parameters are of all
    blocks, also of those that the classifier never reads: networks were built whole, but traced from the output."""
    path = shared_data / "published_results.json.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    with gzip.open(path, "rt") as file:
        models = json.load(file)["nasrec"]["models"]
    params_millions = [1.78, 2.22, 2.84, 3.18, 2.61, 0.44]
    assert len(models) == 6
    for model, params in zip(models, params_millions, strict=True):
        space = BUILDERS[model["space"]](*FIELDS[model["dataset"]])
        genotype = from_public_config(space, model["config"])
        cost = space.cost(genotype)
        assert cost.macs / 1e6 == pytest.approx(model["published_flops_M"], rel=0.01), model["path"]
        whole = network_cost(space.written(genotype), layer_norm=False)
        assert round(whole.params / 1e6, 2) == params, model["path"]
        assert cost.params <= whole.params and cost.macs < whole.macs


def test_attention_is_what_separates_a_count_without_it(shared_data) -> None:
    """Criteo Full is published with 1.45 M MACs; 1.13 M of them are not attention's."""
    path = shared_data / "published_results.json.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    with gzip.open(path, "rt") as file:
        model = json.load(file)["nasrec"]["models"][1]
    space = nasrec_full(13, 26)
    layers = network_layers(space.decode(from_public_config(space, model["config"])), layer_norm=False)
    heads = sum(layer.macs for layer in layers if layer.name.endswith("attention.heads"))
    total = sum(layer.macs for layer in layers)
    assert model["published_flops_M"] == 1.45
    assert round(total / 1e6, 2) == 1.45 and round((total - heads) / 1e6, 2) == 1.13


def measured(network: NasrecNetwork, space: NasrecSpace, count: int = 2) -> tuple[int, int]:
    """MACs and put-out elements of one sample, from a run: matrix products are seen by torch's counter (all but the
    classifier's, which is a matrix times a vector), outputs by hooks."""
    outputs = []

    def note(module, arguments, output) -> None:
        outputs.append(output.numel() // count)
        if isinstance(module, Heads):
            _, tokens, embedding = output.shape
            outputs.append(tokens * 4 * embedding + 8 * tokens**2)  # queries, keys, values, heads; scores

    for module in network.modules():
        if isinstance(module, Projection | Heads):
            module.register_forward_hook(note)
    dense = torch.randn(count, space.dense_features)
    embedded = torch.randn(count, space.sparse_fields, space.embedding_dim)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network((dense, embedded))
    last = network.spec.blocks[-1]
    classifier = last.dense_width + last.tokens * space.embedding_dim
    dots = [(block.dot_product.count + 1) ** 2 for block in network.blocks if hasattr(block, "dot_product")]
    return counter.get_total_flops() // (2 * count) + classifier, sum(outputs) + sum(dots) + 1


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(
    "space",
    [
        nasrec_small(13, 26),
        nasrec_full(1, 23),
        autoctr_in_nasrec(3, 10),
        nasrec_full(0, 26, 3),
        NasrecSpace("tiny", 3, 4, 3, dense_dims=(16, 21, 128), sparse_dims=(4, 6)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_costs_are_those_of_the_network_that_is_built(space, layer_norm) -> None:
    rng = random.Random(0)
    for _ in range(12):
        genotype = space.draw(rng)
        cost = space.cost(genotype, layer_norm)
        network = build_nasrec(space.decode(genotype), torch.Generator().manual_seed(0), layer_norm)
        assert cost.params == sum(parameter.numel() for parameter in network.parameters())
        assert (cost.macs, cost.activation_elements) == measured(network, space)
        modules = [module for module in network.modules() if any(True for _ in module.parameters(recurse=False))]
        assert space.num_modules(genotype, layer_norm) == len(modules)


def test_costs_of_the_full_path() -> None:
    space = nasrec_full(5, 4, 3)
    spec = space.full_spec()
    network = NasrecNetwork(spec, new_weights(torch.Generator().manual_seed(0)), layer_norm=True)
    cost = network_cost(spec, layer_norm=True)
    assert cost.params == sum(parameter.numel() for parameter in network.parameters())
    assert (cost.macs, cost.activation_elements) == measured(network, space)
    assert spec.blocks[2].dense_ops == ("fc", "dot_product", "gating", "sum") and spec.blocks[2].dense_in == (0, 1, 2)
