"""What every proxy in the table keeps: no trace, determinism, one score however the subnet is held, no sentinels."""

import contextlib
import copy
import gc
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from subshot.proxies import PROXIES, Proxy, ProxyUndefined, measure, plan
from subshot.proxies.base import Batch
from subshot.proxies.measure import passes
from subshot.supernet.base import Bound, extract
from subshot.supernet.nasbench201 import NasBench201Space, from_string
from subshot.supernet.nasbench201_supernet import NasBench201Supernet
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.network import ChainSupernet

ALL = list(PROXIES.values())
COUNT = 10
"""Samples a batch."""

every_proxy = pytest.mark.parametrize("proxy", ALL, ids=PROXIES)

CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"
EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@dataclass(frozen=True)
class Held:
    supernet: Any
    genotype: tuple[int, ...]

    def bound(self) -> Bound:
        return Bound(self.supernet, self.genotype)


def build(space: str) -> Held:
    torch.manual_seed(1)
    if space == "chain":
        return Held(ChainSupernet(nasbench_macro(input_size=16, width=0.25)), (1, 2, 1, 0, 2, 0, 1, 1))
    return Held(NasBench201Supernet(NasBench201Space(input_size=16, channels=4, cells=1)), from_string(CELL))


def has_none(proxy: Proxy, held: Held) -> bool:
    """Whether the network built above has no such score: the chain has blocks that are the identity."""
    return proxy.name == "az_trainability_nasbench201" and isinstance(held.supernet, ChainSupernet)


@pytest.fixture(params=["chain", "nasbench201"])
def held(request: pytest.FixtureRequest) -> Held:
    """Mixed modes, a frozen layer, gradients and a hook of its own: all of it is to stay."""
    found = build(request.param)
    supernet = found.supernet
    supernet.eval().head.train()
    supernet.stem.requires_grad_(False)
    for number, parameter in enumerate(supernet.parameters()):
        if number % 2:
            parameter.grad = torch.full_like(parameter, number)
    supernet.classifier.register_forward_hook(lambda module, args, output: None)
    return found


@pytest.fixture(scope="session")
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(4, COUNT, 3, 16, 16, generator=generator)
    labels = torch.arange(COUNT) % 3
    return list(zip(images, (labels, labels.roll(1), labels, labels), strict=True))


@contextmanager
def traceless(model: nn.Module) -> Iterator[None]:
    def tables() -> list[dict[str, Any]]:
        """Everything that a module holds: its hooks, its modes, whether it tracks statistics, methods of its own."""
        return [{n: dict(v) if isinstance(v, dict) else v for n, v in vars(m).items()} for m in model.modules()]

    before, grads = copy.deepcopy(model.state_dict()), [p.grad for p in model.parameters()]
    grad_values = [None if g is None else g.clone() for g in grads]
    wanted, tables_before = [p.requires_grad for p in model.parameters()], tables()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    yield
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    for gradient, value in zip(grads, grad_values, strict=True):
        assert gradient is None or torch.equal(gradient, value)
    assert [p.requires_grad for p in model.parameters()] == wanted
    for now, then in zip(tables(), tables_before, strict=True):
        assert list(now) == list(then)
        for name, value in now.items():
            same = all(now_is is then[name][key] for key, now_is in value.items()) if isinstance(value, dict) else True
            assert same and (isinstance(value, dict) or value is then[name] or value == then[name]), name
            assert not isinstance(value, dict) or list(value) == list(then[name])
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def shown(scores: dict[str, Any]) -> dict[str, Any]:
    """Values, and reasons as text, which can be compared."""
    return {name: str(s) if isinstance(s, ProxyUndefined) else s for name, s in scores.items()}


def test_names_are_the_keys() -> None:
    assert all(name == proxy.name and proxy.source for name, proxy in PROXIES.items())


@every_proxy
def test_it_leaves_no_trace_and_repeats_itself(proxy: Proxy, held: Held, batches: list[Batch]) -> None:
    """The score does not hang on the global random state, the grad mode, module modes, or what happens to be frozen."""
    bound = held.bound()
    with traceless(bound), traceless(held.supernet):
        first = outcome(bound, proxy, batches)
    assert isinstance(first, str) == has_none(proxy, held)
    torch.manual_seed(7)
    with torch.no_grad():
        assert outcome(bound.train().requires_grad_(False), proxy, batches) == first
    with torch.inference_mode():
        assert outcome(bound, proxy, batches) == first


@every_proxy
def test_it_leaves_no_trace_where_the_model_fails(proxy: Proxy, held: Held, batches: list[Batch]) -> None:
    def fail(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        raise RuntimeError("the classifier is broken")

    if all(reading.cost == "nothing" for reading in proxy.readings):
        pytest.skip("it does not run the network")
    held.supernet.classifier.register_forward_pre_hook(fail)
    with traceless(held.supernet), pytest.raises(RuntimeError, match="the classifier is broken"):
        proxy(held.bound(), batches)


@pytest.mark.parametrize("fails", [False, True])
def test_they_keep_no_tensor_alive(fails: bool, batches: list[Batch]) -> None:
    """A graph that a hook holds on to is never freed: the garbage collector cannot see that circle."""

    def live() -> int:
        gc.collect()
        return sum(issubclass(type(found), Tensor) for found in gc.get_objects())

    def fail(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        raise RuntimeError("the classifier is broken")

    held = build("nasbench201")
    if fails:
        held.supernet.classifier.register_forward_pre_hook(fail)
    counts = []
    for _ in range(3):
        for proxy in ALL:
            with contextlib.suppress(RuntimeError):
                proxy(held.bound(), batches)
        counts.append(live())
    assert counts[1] == counts[2]


def test_together_they_give_what_each_gives_alone(held: Held, batches: list[Batch]) -> None:
    bound = held.bound()
    together = measure(bound, ALL, batches)
    backwards = measure(bound, ALL[::-1], batches)
    alone = {proxy.name: measure(bound, [proxy], batches)[proxy.name] for proxy in ALL}
    assert shown(together) == shown(alone) == {name: shown(backwards)[name] for name in together}


def test_bound_and_extracted_score_alike(held: Held, batches: list[Batch]) -> None:
    extracted = extract(held.supernet, held.genotype)
    assert shown(measure(held.bound(), ALL, batches)) == shown(measure(extracted, ALL, batches))


def test_equal_networks_score_alike(batches: list[Batch]) -> None:
    """An identity between two blocks changes nothing, wherever it stands; but MeCo counts modules, not layers."""
    held = build("chain")
    moved = (1, 2, 1, 2, 0, 0, 1, 1)
    other = copy.deepcopy(held.supernet)
    other.layers[3], other.layers[4] = other.layers[4], other.layers[3]
    others = [proxy for proxy in ALL if proxy.name != "meco"]
    assert shown(measure(Bound(other, moved), others, batches)) == shown(measure(held.bound(), others, batches))


def test_labels_matter_where_a_proxy_says_so(batches: list[Batch]) -> None:
    bound = build("chain").bound()
    relabelled = [(images, (labels * 5 + labels // 2 + torch.arange(COUNT) // 5) % 10) for images, labels in batches]
    first, second = (shown(measure(bound, ALL, given)) for given in (batches, relabelled))
    assert {name for name in first if first[name] != second[name]} == {p.name for p in ALL if p.needs_labels}


def test_the_seed_matters_where_something_is_drawn(batches: list[Batch]) -> None:
    """But two counts of patterns are at their limits: all samples differ, and so few have nearly all 2^10 patterns."""
    bound = build("nasbench201").bound()
    first, second = (measure(bound, ALL, batches, seed=seed) for seed in (0, 1))
    drawn = {p.name for p in ALL if p.setting.inputs == "gaussian" or p.setting.weights not in ("given", "absolute")}
    assert {name for name in first if first[name] != second[name]} == drawn - {"linear_regions", "swap"}


@every_proxy
def test_too_few_batches_are_refused(proxy: Proxy, batches: list[Batch]) -> None:
    held, count = build("chain"), proxy.num_batches
    with pytest.raises(ValueError, match=f"{proxy.name} reads {count} batch"):
        proxy(held.bound(), batches[: count - 1])
    assert isinstance(outcome(held.bound(), proxy, batches[:count]), str) == has_none(proxy, held)


def test_a_name_is_measured_once(batches: list[Batch]) -> None:
    with pytest.raises(ValueError, match="different names: snip, snip"):
        measure(build("chain").bound(), [PROXIES["snip"]] * 2, batches)


USUAL = 1e-4
STEADY = 5e-3, "ratios of gradients that hardly vary from batch to batch: the deviation is a rounding error"
SIGNS = 1e-3, "gradients near zero change sign"
KERNEL = 1e-2, "the smallest eigenvalue of a kernel that is near singular"
LOOSE = {
    "zico": STEADY,
    "sigeo": STEADY,
    "sigeo_zico": STEADY,
    "sigeo_fr": (5e-3, "products that cancel: a weight before BatchNorm adds 0"),
    "plain": (1e-3, "products that cancel: a weight before BatchNorm adds 0"),
    "gradsign": SIGNS,
    "gradalign1": SIGNS,
    "gradalign2": SIGNS,
    "naswot": SIGNS,
    "ntk_condition": KERNEL,
    "ntk_condition_eval": KERNEL,
    "zen": (1e-3, "the difference of two feature maps that are close"),
    "zen_zennas": (1e-3, "the difference of two feature maps that are close"),
}
"""Relative tolerance of float32 to float64 where it is not the usual one, and why."""


def test_single_precision_is_close_to_double(held: Held, batches: list[Batch]) -> None:
    """Draws are the same in both."""
    model = extract(held.supernet, held.genotype)
    single = measure(model, ALL, batches)
    double = measure(model.double(), ALL, [(images.double(), labels) for images, labels in batches])
    for name in (name for name, proxy in PROXIES.items() if not has_none(proxy, held)):
        tolerance, _ = LOOSE.get(name, (USUAL, "rounding"))
        assert single[name] == pytest.approx(double[name], rel=tolerance), name


ONE_PASS = ("grad_norm", "grad_norm_global", "snip", "plain", "fisher", "fisher_channel_sum", "jacob_cov", "naswot")


def test_passes_are_shared(held: Held, batches: list[Batch]) -> None:
    """A forward pass of the network for all that read one batch in one setting."""
    assert all(len(passes([PROXIES[name]])) == 1 for name in ONE_PASS)
    assert len(passes([PROXIES[name] for name in ONE_PASS])) == 1
    assert len(passes([PROXIES["sigeo"], PROXIES["zico"], PROXIES["snip"], PROXIES["epe_nas"]])) == 4  # a batch each
    forwards = []
    handle = held.supernet.classifier.register_forward_pre_hook(lambda module, args: forwards.append(1))
    measure(held.bound(), [PROXIES[name] for name in ONE_PASS], batches)
    handle.remove()
    assert len(forwards) == 1


def test_the_plan_lists_every_pass_once() -> None:
    lines = plan(ALL).splitlines()
    assert len(lines) == len(passes(ALL)) == len({line.partition(". ")[2] for line in lines})
    users = [set(line.rpartition("For ")[2].rstrip(".").split(", ")) for line in lines]
    assert set.union(*users) == set(PROXIES)
    for proxy in ALL:
        assert sum(proxy.name in some for some in users) == len(passes([proxy])), proxy.name


def test_the_plan_in_words() -> None:
    where = "weights given, BatchNorm train, inputs given, batch"
    assert plan([PROXIES["snip"], PROXIES["naswot"], PROXIES["zico"]]).splitlines() == [
        f"1. {where} 0: forward; backward of the loss to the weights. For snip, naswot, zico.",
        f"2. {where} 1: forward; backward of the loss to the weights. For zico.",
    ]


def outcome(model: nn.Module, proxy: Proxy, batches: list[Batch]) -> Any:
    """A finite value, or the reason why there is none; anything else fails."""
    try:
        value = proxy(model, batches)
    except ProxyUndefined as undefined:
        assert str(undefined)
        return str(undefined)
    assert math.isfinite(value)
    return value


@every_proxy
@pytest.mark.parametrize("kind", ["dead", "disconnected"])
def test_a_network_that_computes_nothing_has_a_finite_score_or_none(
    proxy: Proxy, kind: str, batches: list[Batch]
) -> None:
    """dead: all weights are zero. disconnected: nothing but residual blocks is left of the cells."""
    held = build("nasbench201")
    if kind == "dead":
        with torch.no_grad():
            for parameter in held.supernet.parameters():
                parameter.zero_()
        bound = held.bound()
    else:
        bound = Bound(held.supernet, from_string(EMPTY))
    with traceless(held.supernet):
        outcome(bound, proxy, batches)
