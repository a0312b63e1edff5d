"""NAS-Bench-201 against its published counts, its tables, and a slow forward pass of plain formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from subshot.data.nasbench import DATASETS, read_nasbench201
from subshot.supernet import BENCHMARK_SPACES
from subshot.supernet.base import Bound, extract
from subshot.supernet.nasbench201 import (
    EDGES,
    OPS,
    NasBench201Space,
    from_string,
    is_live,
    official_flops,
    to_string,
    without_dead_edges,
)
from subshot.supernet.nasbench201_supernet import NasBench201Supernet
from subshot.supernet.space import cardinality, enumerate_genotypes, from_named_choices, named_choices, validated

SPACE = NasBench201Space()
GENOTYPES = list(enumerate_genotypes(SPACE))
SPACES_OF = {name: NasBench201Space(d.input_size, d.classes) for name, d in DATASETS.items()}

PUBLISHED = {
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|": (
        (129306, 15.64737e6),
        (135156, 15.65322e6),
        (136456, 3.91948e6),
    ),
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|": (
        (802426, 113.95137e6),
        (808276, 113.95722e6),
        (809576, 28.49548e6),
    ),
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|": (
        (101306, 11.71521e6),
        (107156, 11.72106e6),
        (108456, 2.93644e6),
    ),
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|": (
        (73306, 7.78305e6),
        (79156, 7.78890e6),
        (80456, 1.95340e6),
    ),
}
"""(params, FLOPs) on CIFAR-10, CIFAR-100 and ImageNet16-120: NATS-Bench's own records, the last by its formula."""

# None, skip, 1x1, 3x3 and pool are 0 to 4; the edges are 0>1, 0>2, 1>2, 0>3, 1>3, 2>3.
FED_BY_NOTHING = (0, 3, 2, 0, 3, 1)  # node 1 has no input, and feeds convolutions
READ_BY_NOBODY = (3, 2, 3, 4, 0, 0)  # nodes 1 and 2 do not reach node 3
CASES = [
    *(from_string(text) for text in PUBLISHED),
    FED_BY_NOTHING,
    READ_BY_NOBODY,
    (1, 1, 1, 1, 1, 1),
    (2, 3, 4, 2, 3, 4),
]


def counts(genotype):
    return genotype.count(OPS.index("nor_conv_1x1")), genotype.count(OPS.index("nor_conv_3x3"))


def test_15625_genotypes_in_the_order_of_the_string() -> None:
    assert cardinality(SPACE) == len(GENOTYPES) == 15625
    assert [decision.name for decision in SPACE.decisions] == ["0>1", "0>2", "1>2", "0>3", "1>3", "2>3"]
    genotype = (0, 1, 2, 3, 4, 0)
    text = "|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|"
    assert to_string(genotype) == text and from_string(text) == genotype
    assert named_choices(SPACE, genotype)["1>2"] == "nor_conv_1x1"
    assert from_named_choices(SPACE, named_choices(SPACE, genotype)) == genotype
    assert len({to_string(genotype) for genotype in GENOTYPES}) == 15625
    assert all(from_string(to_string(genotype)) == genotype for genotype in GENOTYPES)
    assert all(SPACE.canonical(genotype) == genotype for genotype in GENOTYPES[::97])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|",
        "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+",
        "none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ],
)
def test_other_text_is_no_architecture(text) -> None:
    with pytest.raises(ValueError, match="is no architecture string; it must read"):
        from_string(text)


def test_wrong_names_and_sizes_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="edge 1>2 cannot be 'conv_5x5'; allowed: none, skip_connect"):
        from_string("|none~0|+|none~0|conv_5x5~1|+|none~0|none~1|none~2|")
    with pytest.raises(ValueError, match="decision 2>3 has no choice 5; allowed: 0=none"):
        validated(SPACE, (0, 0, 0, 0, 0, 5))
    for size in (0, -4, 2, 30):
        with pytest.raises(ValueError, match=f"input_size is {size}; it must be a positive multiple of 4"):
            NasBench201Space(size)
    for wrong in ({"classes": 0}, {"channels": 0}, {"cells": 0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            NasBench201Space(**wrong)


def live_by_paths(genotype) -> bool:
    """The definition, word for word, over the four paths from node 0 to node 3."""
    present = {edge for edge, choice in zip(EDGES, genotype, strict=True) if choice}
    paths = [{(0, 3)}, {(0, 1), (1, 3)}, {(0, 2), (2, 3)}, {(0, 1), (1, 2), (2, 3)}]
    return present == set().union(*(path for path in paths if path <= present))


def test_9445_genotypes_have_no_dead_edge() -> None:
    live = [genotype for genotype in GENOTYPES if is_live(genotype)]
    assert len(live) == 9445 and (0,) * 6 in live
    assert live == [genotype for genotype in GENOTYPES if live_by_paths(genotype)]
    assert {without_dead_edges(genotype) for genotype in GENOTYPES} == set(live)
    assert without_dead_edges(FED_BY_NOTHING) == (0, 3, 0, 0, 0, 1)
    assert without_dead_edges(READ_BY_NOBODY) == (0, 0, 0, 4, 0, 0)


@pytest.mark.parametrize("number", range(3), ids=list(DATASETS))
def test_all_counts_are_those_of_the_closed_form_and_the_published_records(number) -> None:
    space = SPACES_OF[list(DATASETS)[number]]
    K, quarter = space.classes, 4 if space.input_size == 16 else 1
    for genotype in GENOTYPES:
        n1, n3 = counts(genotype)
        cost = space.cost(genotype)
        assert cost.params == 72_656 + 65 * K + 28_000 * n1 + 243_040 * n3
        flops = (7_782_400 + 3_932_160 * n1 + 35_389_440 * n3) // quarter + 65 * K
        assert official_flops(cost, K) == flops and cost.macs == flops - K
    for text, rows in PUBLISHED.items():
        cost = space.cost(from_string(text))
        assert (cost.params, official_flops(cost, K)) == rows[number]


def test_all_counts_are_those_of_the_table(shared_data) -> None:
    table = read_nasbench201(shared_data)
    assert {from_string(text) for text in table.arch_str} == set(GENOTYPES)
    for name, space in SPACES_OF.items():
        costs = [space.cost(from_string(text)) for text in table.arch_str]
        assert [cost.params for cost in costs] == table.params[name].tolist()
        assert [official_flops(cost, space.classes) for cost in costs] == table.flops[name].tolist()


@pytest.mark.parametrize("space", [*SPACES_OF.values(), NasBench201Space(8, 3, 4, 2)])
def test_costs_are_those_of_built_networks(space, check_costs) -> None:
    for genotype in (CASES[1], FED_BY_NOTHING, (0,) * 6):
        check_costs(space, genotype)
        with torch.device("meta"):
            parameters = list(space.build(genotype).parameters())
        assert len(parameters) == 21 + 9 * space.cells * sum(counts(genotype))  # 45 a convolution at 5 cells


def test_the_builder_and_the_blocks() -> None:
    space = BENCHMARK_SPACES["nasbench201"](16, 120)
    assert space == SPACES_OF["ImageNet16-120"] and space.name == "nasbench201"
    network = space.build(CASES[0])
    first = next(module for module in network.modules() if isinstance(module, nn.ModuleList))
    assert first is network.blocks and len(first) == 17
    assert [type(block).__name__ for block in first].count("ResidualBlock") == 2


# --- A slow forward pass in numpy: nodes in a loop, every operation by its formula. ---


def slow_conv(x, weight, stride):
    kernel = weight.shape[-1]
    pad, size = kernel // 2, x.shape[-1] // stride
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((len(x), len(weight), size, size))
    for row in range(size):
        for column in range(size):
            top, left = row * stride, column * stride
            patch = padded[:, :, top : top + kernel, left : left + kernel]
            out[:, :, row, column] = np.tensordot(patch, weight, axes=([1, 2, 3], [1, 2, 3]))
    return out


def slow_pool(x):
    out, size = np.zeros_like(x), x.shape[-1]
    for row in range(size):
        for column in range(size):
            rows, columns = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
            out[:, :, row, column] = x[:, :, rows, columns].mean(axis=(2, 3))
    return out


class Slow:
    """The network of a state_dict, by name."""

    def __init__(self, network, training):
        self.state = {name: value.detach().double().numpy() for name, value in network.state_dict().items()}
        self.training = training

    def norm(self, x, name):
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.training:
            mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
        mean, var, scale, shift = (
            v[:, None, None] for v in (mean, var, self.state[f"{name}.weight"], self.state[f"{name}.bias"])
        )
        return (x - mean) / np.sqrt(var + 1e-5) * scale + shift

    def relu_conv_bn(self, x, name, stride=1):
        return self.norm(slow_conv(np.maximum(x, 0), self.state[f"{name}.1.weight"], stride), f"{name}.2")

    def cell(self, x, genotype, name):
        nodes = [x, np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)]
        for (source, target), choice in zip(EDGES, genotype, strict=True):
            given = nodes[source]
            put_out = {
                "none": lambda given=given: 0 * given,
                "skip_connect": lambda given=given: given,
                "avg_pool_3x3": lambda given=given: slow_pool(given),
            }.get(OPS[choice], lambda g=given, e=f"{source}{target}": self.relu_conv_bn(g, f"{name}.edges.edge{e}"))
            nodes[target] = nodes[target] + put_out()
        return nodes[3]

    def residual(self, x, name):
        main = self.relu_conv_bn(self.relu_conv_bn(x, f"{name}.conv_a", 2), f"{name}.conv_b")
        quarters = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
        return slow_conv(quarters, self.state[f"{name}.shortcut.1.weight"], 1) + main

    def __call__(self, images, genotype, cells):
        x = self.norm(slow_conv(images, self.state["stem.0.weight"], 1), "stem.1")
        for block in range(3 * cells + 2):
            name = f"blocks.{block}"
            x = self.residual(x, name) if block % (cells + 1) == cells else self.cell(x, genotype, name)
        features = np.maximum(self.norm(x, "head.0"), 0).mean(axis=(2, 3))
        return features @ self.state["classifier.weight"].T + self.state["classifier.bias"]


def disturbed(module):
    """In float64, its BatchNorms not at their initial values, so that a wrong one would show."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for value in (norm.weight.data, norm.running_var):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            for value in (norm.bias.data, norm.running_mean):
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return module.double()


SMALL = NasBench201Space(input_size=8, classes=3, channels=2, cells=2)


def images(count=4):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("genotype", CASES)
def test_the_forward_pass_is_the_slow_one(genotype, training) -> None:
    torch.manual_seed(0)
    network = disturbed(SMALL.build(genotype)).train(training)
    expected = Slow(network, training)(images().numpy(), genotype, SMALL.cells)
    with torch.no_grad():
        logits = network(images())
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_dead_edges_are_computed_but_do_not_count_before_training() -> None:
    """At the initial BatchNorm shifts of 0 a network equals the one without its dead edges; with others it need not."""
    for genotype, matters in ((FED_BY_NOTHING, True), (READ_BY_NOBODY, False)):
        torch.manual_seed(0)
        network, live = SMALL.build(genotype).double(), SMALL.build(without_dead_edges(genotype)).double()
        live.load_state_dict({key: network.state_dict()[key] for key in live.state_dict()})
        torch.testing.assert_close(network(images()), live(images()), rtol=0, atol=0)
        ran = {key for key, value in network.state_dict().items() if key.endswith("num_batches_tracked") and value == 1}
        assert ran == {key for key in network.state_dict() if key.endswith("num_batches_tracked")}
        disturbed(network)
        live.load_state_dict({key: network.state_dict()[key] for key in live.state_dict()})
        assert torch.equal(network(images()), live(images())) != matters


def test_an_edge_that_nobody_reads_gets_no_gradient() -> None:
    network = SMALL.build(READ_BY_NOBODY).double()
    network(images()).square().sum().backward()
    assert all((p.grad is None) == (".edges." in name) for name, p in network.named_parameters())


# --- The supernet ---


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return disturbed(NasBench201Supernet(SMALL)).eval()


@pytest.mark.parametrize("genotype", CASES)
def test_supernet_bound_copy_and_stand_alone_network_agree(supernet, genotype) -> None:
    bound, copy, alone = Bound(supernet, genotype).eval(), extract(supernet, genotype).eval(), SMALL.build(genotype)
    alone.double().eval().load_state_dict(copy.state_dict())
    with torch.no_grad():
        logits = supernet(images(), genotype)
        assert logits.shape == (4, 3) and logits.abs().sum() > 0
        for other in (bound, copy, alone):
            torch.testing.assert_close(other(images()), logits, rtol=0, atol=0)
    own = {id(parameter) for parameter in supernet.parameters()}
    assert {id(parameter) for parameter in bound.parameters()} <= own
    assert own.isdisjoint(id(parameter) for parameter in copy.parameters())
    for subnet in (bound, copy):
        assert sum(parameter.numel() for parameter in subnet.parameters()) == SMALL.cost(genotype).params


def test_the_supernet_holds_all_candidates(supernet) -> None:
    cheapest, one, three = (SMALL.cost((choice,) * 6).params for choice in (0, 2, 3))
    assert sum(parameter.numel() for parameter in supernet.parameters()) == one + three - cheapest


def test_gradients_reach_the_path_alone_and_statistics_stay(supernet) -> None:
    genotype = (2, 3, 4, 1, 3, 2)
    before = {name: buffer.clone() for name, buffer in supernet.named_buffers() if "running" in name}
    supernet.train()
    try:
        supernet(images(), genotype).square().sum().backward()
        on_path = {id(parameter) for parameter in Bound(supernet, genotype).parameters()}
        assert all((p.grad is not None) == (id(p) in on_path) for p in supernet.parameters())
        after = dict(supernet.named_buffers())
        assert before and all(torch.equal(before[name], after[name]) for name in before)
    finally:
        supernet.eval().zero_grad(set_to_none=True)
