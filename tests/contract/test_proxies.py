"""What every proxy in the table keeps: no trace, determinism, one score however the subnet is held, no sentinels."""

import copy
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from subshot.proxies import PROXIES
from subshot.proxies.base import Probe, Proxy, ProxyUndefined
from subshot.supernet.base import Bound, extract
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.network import ChainSupernet

GENOTYPE = (1, 2, 1, 0, 2, 0, 1, 1)

every_proxy = pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)


@pytest.fixture
def supernet() -> ChainSupernet:
    """Mixed modes, a frozen layer, gradients and a hook of its own: all of it is to stay."""
    torch.manual_seed(1)
    supernet = ChainSupernet(nasbench_macro(input_size=16, width=0.25))
    supernet.eval().head.train()
    supernet.stem.requires_grad_(False)
    for number, parameter in enumerate(supernet.parameters()):
        if number % 2:
            parameter.grad = torch.full_like(parameter, number)
    supernet.classifier.register_forward_hook(lambda module, args, output: None)
    return supernet


@pytest.fixture
def probe() -> Probe:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, 12, 3, 16, 16, generator=generator)
    labels = torch.randint(10, (2, 12), generator=generator)
    return Probe(tuple(zip(images, labels, strict=True)))


@contextmanager
def traceless(model: nn.Module) -> Iterator[None]:
    def hooks() -> list[dict[int, Any]]:
        return [dict(t) for m in model.modules() for name, t in vars(m).items() if "_hooks" in name and t is not None]

    before, grads = copy.deepcopy(model.state_dict()), [p.grad for p in model.parameters()]
    grad_values = [None if g is None else g.clone() for g in grads]
    wanted, modes = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    hooks_before, identities = hooks(), [id(p) for p in model.parameters()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    yield
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [id(p) for p in model.parameters()] == identities
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    for gradient, value in zip(grads, grad_values, strict=True):
        assert gradient is None or torch.equal(gradient, value)
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert [m.training for m in model.modules()] == modes
    assert hooks() == hooks_before
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_names_are_the_keys() -> None:
    assert all(name == proxy.name and proxy.source for name, proxy in PROXIES.items())


@every_proxy
def test_it_leaves_no_trace(proxy: Proxy, supernet: ChainSupernet, probe: Probe) -> None:
    with traceless(supernet):
        assert math.isfinite(proxy(Bound(supernet, GENOTYPE), probe))


@every_proxy
def test_it_leaves_no_trace_where_the_model_fails(proxy: Proxy, supernet: ChainSupernet, probe: Probe) -> None:
    def fail(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        raise RuntimeError("the classifier is broken")

    supernet.classifier.register_forward_pre_hook(fail)
    with traceless(supernet), pytest.raises(RuntimeError, match="the classifier is broken"):
        proxy(Bound(supernet, GENOTYPE), probe)


@every_proxy
def test_the_score_is_the_probe_s_alone(proxy: Proxy, supernet: ChainSupernet, probe: Probe) -> None:
    """Not the global random state's, nor the grad mode's, nor the module modes', nor what happens to be frozen."""
    bound = Bound(supernet, GENOTYPE)
    first = proxy(bound, probe)
    torch.manual_seed(7)
    with torch.no_grad():
        assert proxy(bound, probe) == first
    with torch.inference_mode():
        assert proxy(bound.train(), probe) == first
    assert proxy(bound.requires_grad_(False), probe) == first


@every_proxy
def test_bound_and_extracted_score_alike(proxy: Proxy, supernet: ChainSupernet, probe: Probe) -> None:
    assert proxy(Bound(supernet, GENOTYPE), probe) == proxy(extract(supernet, GENOTYPE), probe)


@every_proxy
def test_equal_networks_score_alike(proxy: Proxy, supernet: ChainSupernet, probe: Probe) -> None:
    """An identity between two blocks changes nothing, wherever it stands."""
    moved = (1, 2, 1, 2, 0, 0, 1, 1)
    other = copy.deepcopy(supernet)
    other.layers[3], other.layers[4] = other.layers[4], other.layers[3]
    assert proxy(Bound(other, moved), probe) == proxy(Bound(supernet, GENOTYPE), probe)


@every_proxy
def test_it_reads_labels_where_it_says_so(proxy: Proxy, supernet: ChainSupernet, probe: Probe) -> None:
    bound = Bound(supernet, GENOTYPE)
    relabelled = replace(probe, batches=tuple((images, (labels + 1) % 10) for images, labels in probe.batches))
    assert (proxy(bound, probe) != proxy(bound, relabelled)) == proxy.needs_labels


@every_proxy
def test_too_few_batches_are_refused(proxy: Proxy, supernet: ChainSupernet, probe: Probe) -> None:
    few = replace(probe, batches=probe.batches[: proxy.min_batches - 1])
    with pytest.raises(ValueError, match=f"{proxy.name} reads {proxy.min_batches} batch"):
        proxy(Bound(supernet, GENOTYPE), few)
    assert math.isfinite(proxy(Bound(supernet, GENOTYPE), replace(probe, batches=probe.batches[: proxy.min_batches])))


@every_proxy
def test_a_dead_network_has_a_finite_score_or_none(proxy: Proxy, supernet: ChainSupernet, probe: Probe) -> None:
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.zero_()
    with traceless(supernet):
        try:
            assert math.isfinite(proxy(Bound(supernet, GENOTYPE), probe))
        except ProxyUndefined as undefined:
            assert str(undefined)
