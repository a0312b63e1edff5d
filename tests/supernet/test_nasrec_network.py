"""NASRec networks, operator by operator, against loops written from the public description."""

import math
import random

import pytest
import torch
from torch import nn

from subshot.supernet.nasrec import NasrecSpace, nasrec_full
from subshot.supernet.nasrec_network import NasrecNetwork, build_nasrec, new_weights
from subshot.supernet.nasrec_ops import Attention, DotProduct, FactorizationMachine, Gating, Sum
from subshot.supernet.nasrec_spec import BlockSpec, NasrecSpec

F64 = torch.float64


def network_of(*blocks, dense_features=3, fields=4, layer_norm=False, seed=0) -> NasrecNetwork:
    spec = NasrecSpec(dense_features, fields, 16, blocks)
    network = NasrecNetwork(spec, new_weights(torch.Generator().manual_seed(seed)), layer_norm).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed + 1))
    return network


def batch(count=3, dense_features=3, fields=4):
    generator = torch.Generator().manual_seed(5)
    dense = torch.randn(count, dense_features, generator=generator, dtype=F64)
    return dense, torch.randn(count, fields, 16, generator=generator, dtype=F64)


def logits_of(network, wide, tokens):
    """The classifier by hand; tokens [tokens, 16] of one sample, merger tokens first."""
    classifier = network.classifier
    total = classifier.bias[0]
    if wide is not None:
        total = total + sum(w * x for w, x in zip(classifier.dense[0], wide, strict=True))
    for number, token in enumerate(tokens):
        total = total + (classifier.tokens[:, number] * token).sum()
    return total


def test_fully_connected_efc_factorisation_machine_and_merger_tokens() -> None:
    block = BlockSpec(("fc",), 20, (0,), (), (), ("efc",), 5, (0,), True, True)
    network = network_of(block)
    dense, embedded = batch()
    module = network.blocks[0]
    logits = network((dense, embedded))
    assert logits.shape == (3,)
    for n in range(3):
        wide = torch.relu(module.fc.out.from_0 @ dense[n] + module.fc.out.bias)
        weight, bias = module.efc.out.from_0, module.efc.out.bias
        tokens = [torch.relu(sum(weight[t, i] * embedded[n, i] for i in range(4)) + bias[t]) for t in range(5)]
        to_sparse = module.dense_to_sparse.out
        made = to_sparse.from_0 @ wide + to_sparse.bias  # of the dense tensor before the machine is added
        crossed = sum(tokens) ** 2 - sum(token**2 for token in tokens)
        wide = wide + module.fm.out.from_0 @ crossed + module.fm.out.bias
        merged = [made.reshape(16, 8)[:, t] for t in range(8)]
        torch.testing.assert_close(logits[n], logits_of(network, wide, merged + tokens))


def test_factorisation_machine_is_twice_the_sum_over_pairs() -> None:
    tokens = torch.randn(2, 16, 5, dtype=F64)
    machine = FactorizationMachine(16, 16, new_weights(None), norm=True, skip=True)
    pairs = sum(tokens[:, :, i] * tokens[:, :, j] for i in range(5) for j in range(5) if i != j)
    torch.testing.assert_close(machine(tokens), pairs)
    assert not list(machine.parameters())


@pytest.mark.parametrize("dense_features, fields, dim", [(3, 4, 20), (16, 4, 20), (3, 6, 21), (16, 6, 21)])
def test_dot_product(dense_features, fields, dim) -> None:
    """round(sqrt(40)) = round(sqrt(42)) = 6 tokens and 21 pairs; what has its width already is not projected."""
    block = BlockSpec(("dot_product",), dim, (0,), (), (), ("efc",), 4, (0,))
    network = network_of(block, dense_features=dense_features, fields=fields)
    module = network.blocks[0].dot_product
    assert isinstance(module, DotProduct) and module.count == 6
    assert (module.dense is None) == (dense_features == 16)
    assert (module.tokens is None) == (fields == 6)
    assert (module.out is None) == (dim == 21)
    dense, embedded = batch(3, dense_features, fields)
    found = module([dense], [embedded.transpose(1, 2)])
    for n in range(3):
        one = dense[n] if module.dense is None else module.dense.from_0 @ dense[n] + module.dense.bias
        many = embedded[n]
        if module.tokens is not None:
            many = module.tokens.from_0 @ embedded[n] + module.tokens.bias[:, None]
        together = [one, *many]
        dots = torch.stack([together[i] @ together[j] for i in range(7) for j in range(i)])
        wanted = dots if module.out is None else module.out.from_0 @ dots + module.out.bias
        torch.testing.assert_close(found[n], wanted)


@pytest.mark.parametrize("dim", [12, 5])
def test_gating_and_sum_pad_with_zeros(dim) -> None:
    """Left has 3 entries, right 5; a result of 5 is not projected to 5."""
    left, right = torch.randn(2, 3, dtype=F64), torch.randn(2, 5, dtype=F64)
    longer = torch.cat((left, torch.zeros(2, 2, dtype=F64)), dim=1)
    take = new_weights(torch.Generator().manual_seed(0))
    gating = Gating({0: 3}, {1: 5}, dim, take, norm=False, skip=True).double()
    summed = Sum({0: 3}, {1: 5}, dim, take, norm=False, skip=True).double()
    assert gating.gate.from_0.shape == (5, 5) and gating.gate.bias.shape == (5,)
    assert (gating.out is None) == (summed.out is None) == (dim == 5)
    gated = right / (1 + torch.exp(-(longer @ gating.gate.from_0.T + gating.gate.bias)))
    both = longer + right
    if dim != 5:
        gated = gated @ gating.out.from_1.T + gating.out.bias
        both = both @ summed.out.from_1.T + summed.out.bias
    torch.testing.assert_close(gating([left], [right]), gated)
    torch.testing.assert_close(summed([left], [right]), both)


def test_attention_against_torchs_module() -> None:
    module = Attention([], 5, 16, new_weights(torch.Generator().manual_seed(0)), norm=False).double()
    x = torch.randn(3, 5, 16, dtype=F64)
    reference = nn.MultiheadAttention(16, 8, batch_first=True, dtype=F64)
    with torch.no_grad():
        reference.in_proj_weight.copy_(module.heads.in_weight)
        reference.in_proj_bias.copy_(module.heads.in_bias.normal_())
        reference.out_proj.weight.copy_(module.heads.out_weight)
        reference.out_proj.bias.copy_(module.heads.out_bias.normal_())
    torch.testing.assert_close(module.heads(x), reference(x, x, x)[0])
    for norm in (module.first_norm, module.second_norm):
        torch.testing.assert_close(norm.weight, torch.full((16,), 0.17, dtype=F64), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_norms_and_biases(layer_norm) -> None:
    """A norm follows every projection, and stands in for its bias, but in gating; attention's two are always there."""
    dense_ops, sparse_ops = ("fc", "dot_product", "gating", "sum"), ("attention", "efc")
    blocks = [
        BlockSpec(dense_ops, 20, inputs, inputs, inputs, sparse_ops, 5, inputs, True, True) for inputs in ((0,), (0, 1))
    ]
    names = {name for name, _ in network_of(*blocks, layer_norm=layer_norm).named_parameters()}
    for projection, norm in (
        ("fc.out", "fc.out.norm"),
        ("dot_product.dense", "dot_product.dense.norm"),
        ("dot_product.tokens", "dot_product.tokens.norm"),
        ("dot_product.out", "dot_product.norm"),
        ("sum.out", "sum.norm"),
        ("gating.out", "gating.norm"),
        ("efc.out", "efc.out.norm"),
        ("attention.tokens", "attention.tokens.norm"),
        ("fm.out", "fm.out.norm"),
        ("dense_to_sparse.out", "dense_to_sparse.out.norm"),
    ):
        assert (f"blocks.1.{norm}.weight" in names) == layer_norm
        assert (f"blocks.1.{projection}.bias" in names) == (not layer_norm or projection == "gating.out")
    assert "blocks.1.attention.first_norm.weight" in names and "blocks.1.gating.gate.bias" in names


def test_the_order_of_norm_and_activation() -> None:
    """fc and efc: norm, then ReLU; dot products and sums end in the norm."""
    network = network_of(BlockSpec(("fc",), 20, (0,), (), (), ("efc",), 5, (0,)), layer_norm=True)
    dense, embedded = batch()
    fc, efc = network.blocks[0].fc, network.blocks[0].efc
    norm = nn.functional.layer_norm
    wide = torch.relu(norm(dense @ fc.out.from_0.T, (20,), fc.out.norm.weight, fc.out.norm.bias))
    torch.testing.assert_close(fc([dense]), wide)
    columns = embedded.transpose(1, 2)
    many = torch.relu(norm(columns @ efc.out.from_0.T, (5,), efc.out.norm.weight, efc.out.norm.bias))
    torch.testing.assert_close(efc([columns]), many)
    module = DotProduct([], [], 20, 16, new_weights(None), norm=True, skip=True)
    assert module.norm is not None and (module.norm.weight == 1).all() and (module.norm.bias == 0).all()


def test_a_projection_of_several_blocks_is_that_of_their_concatenation() -> None:
    blocks = (
        BlockSpec(("fc",), 20, (0,), (), (), ("efc",), 5, (0,), True),
        BlockSpec(("fc",), 9, (0, 1), (), (), ("efc",), 6, (0, 1)),
    )
    network = network_of(*blocks)
    module = network.blocks[1].fc.out
    joined = torch.cat((module.from_0, module.from_1), dim=1)
    x, y = torch.randn(3, 3, dtype=F64), torch.randn(3, 20, dtype=F64)
    torch.testing.assert_close(module([x, y]), torch.cat((x, y), dim=1) @ joined.T + module.bias)
    assert network.blocks[1].efc.out.from_1.shape == (6, 8 + 5)


def test_initial_weights() -> None:
    """Xavier's bound of the concatenated weight; biases 0; the same generator gives the same network."""
    space = nasrec_full(13, 26)
    spec = space.decode(space.draw(random.Random(3)))
    network = build_nasrec(spec, torch.Generator().manual_seed(0))
    again = build_nasrec(spec, torch.Generator().manual_seed(0))
    for (name, one), other in zip(network.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
        if name.endswith("bias"):
            assert not one.any()
    classifier = torch.cat([part.detach().flatten() for part in (network.classifier.dense, network.classifier.tokens)])
    bound = math.sqrt(6 / (len(classifier) + 1))
    assert 0.98 * bound < float(classifier.abs().max()) <= bound
    assert float(classifier.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_a_sample_does_not_change_anothers_logit_and_gradients_reach_every_weight() -> None:
    space = NasrecSpace("wide", 3, 4, 4)
    rng = random.Random(0)
    dense, embedded = (x.float() for x in batch(16))
    for _ in range(10):
        network = build_nasrec(space.decode(space.draw(rng)), torch.Generator().manual_seed(0), layer_norm=True)
        logits = network((dense, embedded))
        torch.testing.assert_close(network((dense[4:6], embedded[4:6])), logits[4:6], rtol=1e-4, atol=1e-5)
        logits.square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_network_learns_a_product_of_two_fields() -> None:
    """The sign of a product of two embedded numbers, which no linear layer finds."""
    space = NasrecSpace("small", 2, 3, 2, dense_dims=(32,), sparse_dims=(8,))
    generator = torch.Generator().manual_seed(0)
    dense, embedded = torch.randn(256, 2, generator=generator), torch.randn(256, 3, 16, generator=generator)
    labels = (embedded[:, 0] * embedded[:, 1]).sum(dim=1).gt(0).float()
    network = build_nasrec(space.full_spec(), generator, layer_norm=True)
    optimizer = torch.optim.Adagrad(network.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(network((dense, embedded)), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3
