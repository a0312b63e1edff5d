"""What every registered benchmark space promises. Many raw genotypes may be invalid; draws reject them."""

import json
import random
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from subshot.launch.winners.programs import quiet_exporter
from subshot.search.rejection import RejectionSampler
from subshot.supernet import BENCHMARK_SPACES
from subshot.supernet.network_space import NetworkSpace
from subshot.supernet.space import (
    Genotype,
    crossover,
    describe,
    from_named_choices,
    mutate,
    named_choices,
    sample,
    validated,
)

SETTINGS = ((32, 10), (24, 7))
every_space = pytest.mark.parametrize("name", BENCHMARK_SPACES)


def small(name: str) -> NetworkSpace:
    return BENCHMARK_SPACES[name](16, 5)


def raw(space: NetworkSpace, rng: random.Random) -> Genotype:
    """A genotype that need be neither canonical nor valid."""
    return tuple(rng.randrange(len(decision.choices)) for decision in space.decisions)


@cache
def legal(name: str, count: int = 12) -> tuple[Genotype, ...]:
    """Canonical valid genotypes, as search draws them where costs are not additive."""
    space = small(name)
    sampler = RejectionSampler(space, partial(sample, space), lambda genotype, _rng, _changes: genotype)
    return tuple(sampler.draw(np.random.default_rng(0), count))


@cache
def light(name: str) -> Genotype:
    """The genotype of fewest MACs among the drawn ones: what has to be built or run is small."""
    return min(legal(name), key=lambda genotype: small(name).cost(genotype).macs)


def seeded(space: NetworkSpace, genotype: Genotype, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return space.build(genotype)


def images(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@every_space
def test_the_name_and_the_sizes_are_those_asked_for(name) -> None:
    for input_size, classes in SETTINGS:
        space = BENCHMARK_SPACES[name](input_size, classes)
        assert (space.name, space.input_size, space.classes) == (name, input_size, classes)
        names = [decision.name for decision in space.decisions]
        assert len(set(names)) == len(names)
        assert all(len(set(decision.choices)) == len(decision.choices) for decision in space.decisions)


@every_space
def test_variation_gives_genotypes_that_are_valid_or_refused_with_a_sentence(name) -> None:
    space, rng = small(name), random.Random(0)
    parents = legal(name)
    for _ in range(100):
        first, second = rng.choice(parents), rng.choice(parents)
        for genotype in (sample(space, rng), mutate(space, first, rng, 0.3), crossover(space, first, second, rng)):
            assert type(genotype) is tuple and all(type(choice) is int for choice in genotype)
            assert len(genotype) == len(space.decisions)
            assert space.canonical(genotype) == genotype
            reason = space.why_invalid(genotype)
            if reason is not None:
                assert reason.startswith(f"{name}: ") and len(reason.split()) > 4
                with pytest.raises(ValueError) as refused:
                    validated(space, genotype)
                assert str(refused.value) == reason


@every_space
def test_variation_is_a_function_of_the_random_state(name) -> None:
    space, parents = small(name), legal(name)

    def draws(seed: int) -> tuple[Genotype, ...]:
        rng = random.Random(seed)
        return tuple(mutate(space, parent, rng, 0.5) for parent in parents) + (sample(space, rng),)

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)
    assert [mutate(space, parent, random.Random(5), 0.0) for parent in parents] == list(parents)


@every_space
def test_legal_draws_differ(name) -> None:
    assert len(set(legal(name))) > len(legal(name)) / 2
    assert all(small(name).why_invalid(genotype) is None for genotype in legal(name))


@every_space
def test_canonical_is_idempotent_and_keeps_validity_and_costs(name) -> None:
    space, rng = small(name), random.Random(3)
    valid = 0
    while valid < 50:
        # Raw genotypes, and valid ones with a few indices drawn anew that need not be canonical.
        parent, other = rng.choice(legal(name)), raw(space, rng)
        mixed = tuple(b if rng.random() < 0.15 else a for a, b in zip(parent, other, strict=True))
        for genotype in (other, mixed):
            canonical = space.canonical(genotype)
            assert space.canonical(canonical) == canonical
            if space.why_invalid(genotype) is None:
                valid += 1
                assert space.why_invalid(canonical) is None
                assert space.cost(canonical) == space.cost(genotype)


@every_space
def test_named_choices_survive_json(name) -> None:
    space = small(name)
    for genotype in legal(name):
        assert from_named_choices(space, json.loads(json.dumps(named_choices(space, genotype)))) == genotype
        assert tuple(json.loads(json.dumps(genotype))) == genotype
        assert len(describe(space, genotype).split(" ")) == len(space.decisions)


@every_space
def test_a_wrong_genotype_is_refused_with_a_sentence(name) -> None:
    space, genotype = small(name), legal(name)[0]
    with pytest.raises(ValueError, match=f"a genotype has {len(genotype)} indices"):
        validated(space, genotype[1:])
    last = space.decisions[-1]
    for wrong in (-1, len(last.choices)):
        with pytest.raises(ValueError, match=f"{last.name} has no choice {wrong}; allowed: 0="):
            validated(space, (*genotype[:-1], wrong))


@every_space
@pytest.mark.parametrize("settings", SETTINGS)
def test_costs_are_those_of_the_built_network(name, settings, check_costs) -> None:
    space = BENCHMARK_SPACES[name](*settings)
    for genotype in legal(name)[:4]:
        check_costs(space, genotype)


@every_space
def test_a_network_is_a_function_of_the_seed(name) -> None:
    space, genotype = small(name), light(name)
    first, again, other = (seeded(space, genotype, seed).state_dict() for seed in (0, 0, 1))
    assert list(first) == list(again) == list(other)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_space
def test_networks_put_out_finite_logits_and_gradients(name) -> None:
    space = small(name)
    network = seeded(space, light(name), 0)
    for mode, count in ((True, 3), (False, 1)):
        logits = network.train(mode)(images(count, space.input_size))
        assert logits.shape == (count, space.classes) and logits.isfinite().all()
    logits.square().sum().backward()
    found = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert found and all(gradient.isfinite().all() for gradient in found)


@every_space
def test_eval_keeps_the_images_apart(name) -> None:
    space = small(name)
    network = seeded(space, light(name), 0).eval()
    batch = images(3, space.input_size)
    with torch.no_grad():
        together, alone = network(batch), torch.cat([network(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@every_space
def test_the_first_module_list_is_named_blocks_and_runs_in_order(name) -> None:
    space, order = small(name), list[int]()
    network = seeded(space, light(name), 0).eval()
    lists = [path for path, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    assert lists[0] == "blocks"

    def remember(index: int) -> Callable[..., None]:
        return lambda _module, _inputs, _output: order.append(index)

    for index, block in enumerate(network.get_submodule("blocks").children()):
        block.register_forward_hook(remember(index))
    with torch.no_grad():
        network(images(1, space.input_size))
    assert len(order) > 1 and order == list(range(len(order)))
    assert len(order) == len(list(network.get_submodule("blocks").children()))


@every_space
def test_activations_are_not_in_place(name) -> None:
    """Scores hook them, and take several derivatives through them."""
    network = seeded(small(name), light(name), 0)
    assert not any(getattr(module, "inplace", False) for module in network.modules())


@every_space
def test_networks_export_to_onnx(name, tmp_path) -> None:
    """With a dynamic batch, as winners are exported."""
    space, path = small(name), tmp_path / "model.onnx"
    network = seeded(space, light(name), 0).eval()
    inputs = images(3, space.input_size)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with quiet_exporter():
        program = torch.onnx.export(
            network, (inputs,), dynamo=True, dynamic_shapes=({0: batch},), input_names=["images"]
        )
    assert program is not None
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for some in (inputs, inputs[:1]):
        (logits,) = session.run(None, {"images": some.numpy()})
        with torch.no_grad():
            expected = network(some)
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)
