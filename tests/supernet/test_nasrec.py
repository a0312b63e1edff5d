"""The NASRec spaces: sizes, what is inert, how genotypes are drawn and mutated."""

import random
from collections import Counter

import pytest
import torch

from subshot.supernet.nasrec import NasrecSpace, autoctr_in_nasrec, nasrec_full, nasrec_small
from subshot.supernet.nasrec_masked import MaskedSupernet
from subshot.supernet.nasrec_masked_weights import copy_weights
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.supernet.space import cardinality, from_named_choices, named_choices, sample

SPACES = (nasrec_small(13, 26), nasrec_full(13, 26), autoctr_in_nasrec(13, 26), nasrec_full(0, 4))
every_space = pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.name}-{space.dense_features}")


def tiny(dense_ops=("fc", "dot_product", "gating", "sum"), sparse_ops=("attention", "efc"), dense_features=3, blocks=3):
    """Widths at which projections are left out are among the choices: 16 for tokens of the embedding's width, 21 for
    the pairs of 6 tokens, 128 for 8 tokens of 16."""
    return NasrecSpace("tiny", dense_features, 4, blocks, dense_ops, sparse_ops, (8, 16, 21, 128), (4, 6))


def generic(space, seed=0):
    """A supernet in float64 none of whose weights is at a special value."""
    supernet = NasrecSupernet(space, torch.Generator().manual_seed(seed)).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in supernet.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return supernet


def inputs(space, count=4):
    generator = torch.Generator().manual_seed(2)
    dense = torch.randn(count, space.dense_features, generator=generator, dtype=torch.float64)
    shape = (count, space.sparse_fields, space.embedding_dim)
    return dense, torch.randn(shape, generator=generator, dtype=torch.float64)


def raw(space, rng):
    return tuple(rng.randrange(len(decision.choices)) for decision in space.decisions)


def test_cardinalities() -> None:
    assert f"{cardinality(SPACES[0]):.1e}" == "1.9e+32" and f"{cardinality(SPACES[1]):.1e}" == "8.1e+43"
    uncapped = 256**7 * (1 * 3 * 7 * 15 * 31 * 63 * 127) ** 2
    assert f"{uncapped:.1e}" == "4.4e+32" and cardinality(SPACES[0]) < uncapped


def test_decisions_of_a_block() -> None:
    names = [decision.name for decision in SPACES[1].decisions]
    assert len(names) == len(set(names)) == 70
    assert names[10:20] == [
        f"b2.{name}"
        for name in ("dense_op", "dense_dim", "dense_in", "left", "right")
        + ("sparse_op", "sparse_dim", "sparse_in", "dense_to_sparse", "fm")
    ]
    inputs_of_5 = SPACES[0].decisions[SPACES[0].places["b5.sparse_in"]].choices
    assert inputs_of_5[0] == "0" and "1+2+4" in inputs_of_5 and len(inputs_of_5) == 30
    assert not any("left" in decision.name for decision in SPACES[0].decisions)


@every_space
def test_canonical_is_idempotent_and_names_survive(space) -> None:
    rng = random.Random(0)
    for _ in range(300):
        genotype = raw(space, rng)
        canonical = space.canonical(genotype)
        assert space.canonical(canonical) == canonical
        assert space.decode(canonical) == space.decode(genotype)
        assert space.encode(space.decode(genotype)) == canonical
        assert (space.why_invalid(genotype) is None) == (space.why_invalid(canonical) is None)
        if space.why_invalid(genotype) is None:
            assert from_named_choices(space, named_choices(space, genotype)) == canonical
            assert space.cost(genotype) == space.cost(canonical)


def test_what_is_pruned_does_not_change_the_network() -> None:
    """Against the masked supernet, which here computes every block of the genotype as it is written."""
    space = tiny()
    supernet, masked = generic(space), MaskedSupernet(space, "active").double()
    copy_weights(supernet, masked)
    rng, batch, shorter = random.Random(1), inputs(space), 0
    with torch.no_grad():
        for _ in range(60):
            genotype = raw(space, rng)
            assert space.why_invalid(genotype) is None
            spec = space.written(genotype)
            shorter += spec != space.decode(genotype)
            torch.testing.assert_close(supernet(batch, genotype), masked(batch, spec), rtol=1e-9, atol=1e-9)
    assert shorter > 50


@pytest.mark.parametrize("ops", [(("fc", "dot_product"), ("efc",)), (("fc", "gating", "sum", "none"), ("efc", "none"))])
def test_equal_networks_have_equal_canonical_genotypes_and_others_differ(ops) -> None:
    """One gene of a genotype is changed: the canonical form changes exactly where the logits do."""
    space = tiny(*ops)
    supernet, rng, batch = generic(space), random.Random(3), inputs(space)
    seen: Counter[bool] = Counter()
    with torch.no_grad():
        while min(seen[True], seen[False]) < 100:
            genotype = raw(space, rng)
            place = rng.randrange(len(genotype))
            other = list(genotype)
            other[place] = rng.randrange(len(space.decisions[place].choices))
            pair = (genotype, tuple(other))
            if genotype == pair[1] or any(space.why_invalid(one) for one in pair):
                continue
            equal = space.canonical(genotype) == space.canonical(pair[1])
            logits = [supernet(batch, one) for one in pair]
            assert equal == torch.allclose(*logits, rtol=1e-9, atol=1e-9), (space.decode(genotype), pair)
            seen[equal] += 1


def test_the_sides_of_a_sum_are_exchangeable_and_those_of_a_gate_are_not() -> None:
    space = nasrec_full(13, 26)
    choices = named_choices(space, space.draw(random.Random(0)))
    for op, same in (("sum", True), ("gating", False)):
        sides = [{"b7.dense_op": op, "b7.left": left, "b7.right": right} for left, right in (("0", "6"), ("6", "0"))]
        first, second = (from_named_choices(space, choices | side) for side in sides)
        assert (first == second) == same


def test_a_block_that_is_not_read_reads_0_everywhere() -> None:
    space = nasrec_small(13, 26)
    genes = dict.fromkeys(space.places, 1)
    genes |= {name: 0 for name in space.places if name.endswith(("_in", "sparse_op"))}
    canonical = space.canonical(tuple(genes.values()))
    alive = {name for name, gene in zip(space.places, canonical, strict=True) if gene}
    assert alive == {f"b7.{name}" for name in ("dense_op", "dense_dim", "sparse_dim", "dense_to_sparse", "fm")}


def test_operators_that_put_out_nothing() -> None:
    space = autoctr_in_nasrec(13, 26, 2)
    nothing = {"b1.dense_op": "none", "b1.sparse_op": "none", "b2.dense_op": "none", "b2.sparse_op": "none"}
    choices = named_choices(space, space.draw(random.Random(0)))
    genotype = tuple(d.choices.index((choices | nothing)[d.name]) for d in space.decisions)
    assert space.why_invalid(genotype) == (
        "nasrec-zeros: block 2 puts out nothing, so the classifier has nothing to read"
    )
    block_1 = {"b1.dense_op": "none", "b1.sparse_op": "efc", "b1.fm": "off"}
    reader = {"b2.dense_op": "fc", "b2.dense_in": "0+1", "b2.sparse_op": "efc", "b2.sparse_in": "0+1", "b2.fm": "off"}
    spec = space.decode(from_named_choices(space, choices | block_1 | reader))
    assert spec.blocks[1].dense_in == (0,) and spec.blocks[1].sparse_in == (0, 1)
    assert spec.dense_widths[1] == 0 and not spec.blocks[0].dense_to_sparse
    starved = space.decode(from_named_choices(space, choices | block_1 | reader | {"b2.dense_in": "1"}))
    assert starved.blocks[1].dense_ops == () and starved.blocks[1].sparse_ops == ("efc",)


@every_space
@pytest.mark.parametrize("connections", ["binomial", "uniform"])
def test_draws_are_valid_and_canonical(space, connections) -> None:
    rng = random.Random(4)
    drawn = [space.draw(rng, connections) for _ in range(50)]
    assert all(space.canonical(one) == one and space.why_invalid(one) is None for one in drawn)
    assert len(set(drawn)) == 50
    assert drawn[0] == space.draw(random.Random(4), connections)


@pytest.mark.parametrize("connections, wanted", [("binomial", (1, 3, 3, 1)), ("uniform", (2, 2, 2, 2))])
def test_the_number_of_inputs(connections, wanted) -> None:
    """Of the last block, whose inputs are never inert in NASRec-Small; each input equally often."""
    space, rng, n = nasrec_small(13, 26), random.Random(5), 2500
    sizes: Counter[int] = Counter()
    members: Counter[int] = Counter()
    for _ in range(n):
        subset = space.decode(space.draw(rng, connections)).blocks[-1].sparse_in
        sizes[len(subset)] += 1
        members.update(subset)
    assert all(abs(sizes[size] / n - part / 8) < 0.04 for size, part in enumerate(wanted, start=1))
    assert max(members.values()) / min(members.values()) < 1.15


@every_space
def test_a_child_is_another_valid_network(space) -> None:
    rng, changed = random.Random(6), set()
    for _ in range(400):
        parent = space.draw(rng, "uniform")
        child = space.mutate(parent, rng, rng.randint(1, 6))
        assert child != parent and space.canonical(child) == child and space.why_invalid(child) is None
        changed |= {name for name, a, b in zip(space.places, parent, child, strict=True) if a != b}
    fixed = {decision.name for decision in space.decisions if len(decision.choices) == 1}
    assert {name for name in space.places if name.startswith("b7")} - fixed <= changed


def test_one_mutation_changes_one_key_of_one_block() -> None:
    """Operators of a block are one key; what the change makes inert or alive reads 0 on one side."""
    space, rng = nasrec_small(13, 26), random.Random(7)
    for _ in range(100):
        parent = space.draw(rng)
        child = space.mutate(parent, rng, 1)
        pairs = zip(space.places, parent, child, strict=True)
        changed = [name for name, a, b in pairs if a != b and a and b]
        assert len(changed) <= 1


def test_the_only_other_network_is_found() -> None:
    """One operator, one size, no dense features: the factorisation machine is on or off."""
    space = NasrecSpace("two", 0, 2, 1, ("fc",), ("efc",), (8,), (4,), 8)
    off, on = sorted({space.canonical(raw(space, random.Random(seed))) for seed in range(20)})
    assert space.mutate(off, random.Random(0), 1) == on and space.mutate(on, random.Random(0), 3) == off


def test_without_dense_features_dense_tensors_come_from_tokens() -> None:
    space = nasrec_small(0, 4)
    for seed in range(30):
        spec = space.decode(space.draw(random.Random(seed)))
        assert "fc" not in spec.blocks[0].dense_ops
        for block in spec.blocks:
            assert 0 not in block.dense_in


def test_the_uniform_sample_of_any_space_works_too() -> None:
    assert all(SPACES[1].why_invalid(sample(SPACES[1], random.Random(seed))) is None for seed in range(20))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_blocks": 0}, "needs 0 or more dense features, a sparse field and a block"),
        ({"sparse_fields": 0}, "it was given 3, 0 and 3"),
        ({"dense_ops": ("fc", "conv")}, "dense_ops must be different names of fc, dot_product, gating, sum and none"),
        ({"sparse_ops": ("none",)}, "and not none alone; they are none"),
        ({"dense_dims": (32, 16)}, r"dense_dims must be positive and in rising order; they are \(32, 16\)"),
        ({"embedding_dim": 12}, "a multiple of 8 where attention"),
    ],
)
def test_impossible_spaces(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        NasrecSpace(**{"name": "bad", "dense_features": 3, "sparse_fields": 4, "num_blocks": 3, **change})
