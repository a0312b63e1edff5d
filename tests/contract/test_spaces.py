"""What every registered space promises: its genotypes, its canonical form, its costs."""

import json
import math
import random

import pytest

from subshot.supernet import SPACES
from subshot.supernet.network import ACTIVATIONS, build_network
from subshot.supernet.space import (
    cardinality,
    crossover,
    describe,
    from_named_choices,
    mutate,
    named_choices,
    sample,
    validated,
)

SETTINGS = ((224, 1000, 1.0, 0), (64, 10, 0.5, 2), (33, 7, 0.25, 1))
every_space = pytest.mark.parametrize("name", SPACES)


def small(name: str):
    return SPACES[name](32, 10, 0.25, 1)


def raw(space, rng):
    """A genotype that need not be canonical."""
    return tuple(rng.randrange(len(decision.choices)) for decision in space.decisions)


@every_space
def test_variation_gives_valid_canonical_genotypes(name) -> None:
    space, rng = small(name), random.Random(0)
    for _ in range(200):
        first, second = sample(space, rng), sample(space, rng)
        for genotype in (first, mutate(space, first, rng, 0.3), crossover(space, first, second, rng)):
            assert space.why_invalid(genotype) is None
            assert space.canonical(genotype) == genotype
            assert type(genotype) is tuple and hash(genotype) is not None


@every_space
def test_variation_is_a_function_of_the_random_state(name) -> None:
    space = small(name)

    def draws(seed):
        rng = random.Random(seed)
        first = sample(space, rng)
        return first, mutate(space, first, rng, 0.5), crossover(space, first, sample(space, rng), rng)

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


@every_space
def test_rate_0_changes_nothing_and_rate_1_every_free_index(name) -> None:
    space, rng = small(name), random.Random(1)
    genotype = sample(space, rng)
    assert mutate(space, genotype, rng, 0.0) == genotype
    if not space.interchangeable:
        other = mutate(space, genotype, rng, 1.0)
        free = [len(decision.choices) > 1 for decision in space.decisions]
        assert [a != b for a, b in zip(genotype, other, strict=True)] == free


@every_space
def test_every_choice_can_be_drawn(name) -> None:
    space, rng = small(name), random.Random(2)
    drawn = [set(column) for column in zip(*(sample(space, rng) for _ in range(4000)), strict=True)]
    assert drawn == [set(range(len(decision.choices))) for decision in space.decisions]


@every_space
def test_canonical_is_idempotent_and_keeps_the_costs(name) -> None:
    space, rng = small(name), random.Random(3)
    for _ in range(300):
        genotype = raw(space, rng)
        canonical = space.canonical(genotype)
        assert space.canonical(canonical) == canonical
        assert space.cost(canonical) == space.cost(genotype)
        assert sorted(describe(space, canonical).split()) == sorted(describe(space, genotype).split())


@every_space
def test_raw_and_canonical_genotypes_build_the_same_network(name) -> None:
    """The same operations in the same order, identities aside."""
    space, rng = small(name), random.Random(4)
    for _ in range(100):
        genotype = raw(space, rng)
        built, canonical = (
            [(op.main, op.projection, op.wiring) for op in space.decode(g).ops if op.main]
            for g in (genotype, space.canonical(genotype))
        )
        assert built == canonical


@every_space
def test_groups_multiply_to_the_canonical_set(name) -> None:
    space, rng = small(name), random.Random(5)
    assert sum(len(group[0]) for group in space.groups) == len(space.decisions)
    assert all(len(set(group)) == len(group) for group in space.groups)
    assert math.prod(len(group) for group in space.groups) <= cardinality(space)
    for _ in range(100):
        joined = sum((rng.choice(group) for group in space.groups), ())
        assert space.canonical(joined) == joined
        rest = space.canonical(raw(space, rng))
        for group in space.groups:
            head, rest = rest[: len(group[0])], rest[len(group[0]) :]
            assert head in group


@every_space
def test_named_choices_survive_json(name) -> None:
    space, rng = small(name), random.Random(6)
    for _ in range(20):
        genotype = sample(space, rng)
        assert from_named_choices(space, json.loads(json.dumps(named_choices(space, genotype)))) == genotype
        assert tuple(json.loads(json.dumps(genotype))) == genotype


@every_space
def test_a_wrong_genotype_is_refused_with_a_sentence(name) -> None:
    space = small(name)
    zeros = (0,) * len(space.decisions)
    assert space.why_invalid(zeros) is None
    with pytest.raises(ValueError, match=f"a genotype has {len(zeros)} indices"):
        validated(space, zeros[1:])
    for wrong in (-1, len(space.decisions[-1].choices)):
        with pytest.raises(ValueError, match=f"{space.decisions[-1].name} has no choice {wrong}; allowed: 0="):
            validated(space, (*zeros[:-1], wrong))


@every_space
@pytest.mark.parametrize("settings", SETTINGS)
def test_costs_are_those_of_the_built_network(name, settings, check_costs) -> None:
    space, rng = SPACES[name](*settings), random.Random(7)
    cheapest, dearest = (tuple(row.index(pick(row)) for row in space.costs["macs"].table) for pick in (min, max))
    drawn = raw(space, rng)
    for genotype in (cheapest, dearest, drawn):
        cost = space.cost(genotype)
        if genotype == drawn or settings == SETTINGS[-1]:
            check_costs(space, genotype, lambda genotype: build_network(space.decode(genotype)))
        for quantity, additive in space.costs.items():
            assert additive(genotype) == getattr(cost, quantity)
            assert additive.minimum() <= additive(genotype) <= additive.maximum()
    assert space.costs["macs"](cheapest) == space.costs["macs"].minimum()
    assert space.costs["macs"](dearest) == space.costs["macs"].maximum()


@every_space
def test_layers_follow_one_another(name) -> None:
    for settings in SETTINGS:
        space = SPACES[name](*settings)
        assert space.activation in ACTIVATIONS
        assert len({decision.name for decision in space.decisions}) == len(space.decisions)
        for layer, following in zip(space.layers, space.layers[1:], strict=False):
            assert following.in_channels == layer.out_channels
            assert following.size == math.ceil(layer.size / layer.stride)
            assert all(op.stride == layer.stride for op in layer.ops)


@every_space
def test_reduced_strides_enlarge_the_maps_and_have_a_limit(name) -> None:
    sizes = [SPACES[name](64, 10, 0.25, reduced).layers[-1].size for reduced in range(4)]
    assert sizes == [sizes[0] << reduced for reduced in range(4)]
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=f"reduced_strides is {wrong}"):
            SPACES[name](64, 10, 1.0, wrong)
