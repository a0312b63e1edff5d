"""SiGeo's terms against loops and reference values, its scores, and that measuring leaves no trace."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies import PROXIES
from subshot.proxies.base import Batch, Probe, ProxyUndefined
from subshot.proxies.sigeo import (
    SigeoMoments,
    SigeoOptions,
    SigeoTerms,
    SigeoWeights,
    combine,
    moments_of,
    raw_sigeo,
    sigeo_terms,
)
from subshot.proxies.sigeo_reference import reference_sigeo, reference_terms
from subshot.supernet.base import extract
from subshot.supernet.nasrec import NasrecSpace, nasrec_full, nasrec_small
from subshot.supernet.nasrec_supernet import NasrecSupernet

SCOPES = {
    "convlinear": SigeoOptions(modules="weights", fisher_rao_parameters="scored"),
    "allparams": SigeoOptions(modules="tensors"),
}


@pytest.fixture
def model(click_net: nn.Module) -> nn.Module:
    return click_net


@pytest.fixture
def probe(click_probe: Probe) -> Probe:
    return click_probe


def doubled(probe: Probe) -> Probe:
    return replace(probe, batches=tuple(((d.double(), e.double()), y.double()) for (d, e), y in probe.batches))


def gradients_of(model: nn.Module, probe: Probe, names: list[str]) -> tuple[list[np.ndarray], list[float]]:
    """For each named parameter, [batches, entries]; and the losses."""
    rows: list[list[np.ndarray]] = [[] for _ in names]
    losses = []
    for inputs, labels in probe.batches:
        model.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(inputs), labels)
        loss.backward()
        losses.append(loss.item())
        for row, name in zip(rows, names, strict=True):
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            row.append(gradient.double().flatten().numpy().copy())
    model.zero_grad()
    return [np.array(row) for row in rows], losses


def log_ratio(gradients: np.ndarray, correction: int) -> float:
    """One entry at a time."""
    total = 0.0
    for column in gradients.T:
        mean = sum(column) / len(column)
        variance = sum((value - mean) ** 2 for value in column) / (len(column) - correction)
        if max(column) > min(column):
            total += sum(abs(value) for value in column) / len(column) / math.sqrt(variance)
    return math.log(total)


MODULES = {
    "weights": [["first.weight"], ["last.weight"]],
    "tensors": [["first.weight"], ["first.bias"], ["last.weight"], ["last.bias"]],
    "modules": [["first.weight", "first.bias"], ["last.weight", "last.bias"]],
}
EVERY = ["first.weight", "first.bias", "last.weight", "last.bias"]


@pytest.mark.parametrize("modules", MODULES)
@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_the_terms_in_loops(modules: Any, correction: Any, double: bool, model: nn.Module, probe: Probe) -> None:
    if double:
        model, probe = model.double(), doubled(probe)
    gradients, losses = gradients_of(model, probe, EVERY)
    by_name = dict(zip(EVERY, gradients, strict=True))
    terms = sigeo_terms(model, probe, SigeoOptions(modules=modules, correction=correction))
    zico = sum(log_ratio(np.hstack([by_name[name] for name in names]), correction) for names in MODULES[modules])
    theta = np.hstack([model.get_parameter(name).detach().double().flatten().numpy() for name in EVERY])
    products = [sum(theta * row) for row in np.hstack(gradients)]
    precision = 1e-11 if double else 1e-7
    assert terms.zico == pytest.approx(zico, rel=precision)
    assert terms.fisher_rao == pytest.approx(sum(p**2 for p in products) / 4, rel=precision)
    assert terms.loss == pytest.approx(sum(losses) / 4, rel=1e-12)
    assert (terms.num_batches, terms.num_modules, terms.num_skipped) == (4, len(MODULES[modules]), 0)
    assert terms.num_parameters == 11 * 5 + 5 + 5 + 1


def test_the_mean_of_squares_is_not_the_square_of_the_mean(model: nn.Module, probe: Probe) -> None:
    gradients, _ = gradients_of(model, probe, EVERY)
    theta = np.hstack([model.get_parameter(name).detach().double().flatten().numpy() for name in EVERY])
    products = np.hstack(gradients) @ theta
    found = sigeo_terms(model, probe).fisher_rao
    assert found == pytest.approx(np.mean(products**2), rel=1e-9)
    assert found > 1.05 * np.mean(products) ** 2


def one_by_one(probe: Probe) -> Probe:
    """Every sample as a batch."""
    single = tuple(
        ((dense[n : n + 1], embedded[n : n + 1]), labels[n : n + 1])
        for (dense, embedded), labels in probe.batches
        for n in range(len(labels))
    )
    return replace(probe, batches=single)


def test_the_norm_over_samples_in_loops(model: nn.Module, probe: Probe) -> None:
    model, probe = model.double(), doubled(probe)
    for scope, names in (("all", EVERY), ("scored", ["first.weight", "last.weight"])):
        gradients, _ = gradients_of(model, one_by_one(probe), names)
        theta = np.hstack([model.get_parameter(name).detach().flatten().numpy() for name in names])
        options: Any = {"fisher_rao_over": "samples", "fisher_rao_parameters": scope}
        found = sigeo_terms(model, probe, SigeoOptions(**options)).fisher_rao
        assert found == pytest.approx(np.mean((np.hstack(gradients) @ theta) ** 2), rel=1e-10)


def test_samples_and_attention(probe: Probe) -> None:
    """Attention's fused kernels have no forward-mode derivative."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(8, 1)

        def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
            tokens = self.attention(inputs[1], inputs[1], inputs[1], need_weights=False)[0]
            logits: Tensor = self.last(tokens.flatten(1)).squeeze(1)
            return logits

    torch.manual_seed(5)
    model = Attending()
    terms = sigeo_terms(model, probe, SigeoOptions(fisher_rao_over="samples"))
    names = [name for name, _ in model.named_parameters()]
    gradients, _ = gradients_of(model, one_by_one(probe), names)
    theta = np.hstack([parameter.detach().double().flatten().numpy() for parameter in model.parameters()])
    assert terms.fisher_rao == pytest.approx(np.mean((np.hstack(gradients) @ theta) ** 2), rel=1e-5)


def test_batch_norm_in_train_mode_has_no_sample_gradients(golden_model: nn.Module, golden_batches: list[Batch]) -> None:
    with pytest.raises(ValueError, match="BatchNorm is in train mode; take train_mode=False"):
        sigeo_terms(golden_model, Probe(tuple(golden_batches)), SigeoOptions(fisher_rao_over="samples"))


@pytest.mark.parametrize("scope", SCOPES)
def test_the_norm_over_samples_has_its_reference_value(
    scope: str, golden_model: nn.Module, golden_batches: list[Batch], golden_values: dict[str, Any]
) -> None:
    """By the forward-mode pass; the others are in test_golden."""
    options = replace(SCOPES[scope], train_mode=False, fisher_rao_over="samples")
    terms = sigeo_terms(golden_model, Probe(tuple(golden_batches)), options)
    want = golden_values[f"sigeo.fr.F_per_sample.{scope}.eval"]
    assert terms.fisher_rao == pytest.approx(want["value"], rel=want["rtol"])


def test_the_proxies_are_the_terms(model: nn.Module, probe: Probe) -> None:
    terms = sigeo_terms(model, probe)
    scores = {name: PROXIES[name](model, probe.batches, probe.loss) for name in PROXIES if name.startswith("sigeo")}
    assert scores == {
        "sigeo": raw_sigeo(terms),
        "sigeo_zico": terms.zico,
        "sigeo_fr": terms.log_fisher_rao,
        "sigeo_loss": terms.loss,
    }


@pytest.mark.parametrize(
    "measure", [sigeo_terms, lambda model, probe: reference_terms(model, probe, ["first", "last"])]
)
def test_it_leaves_no_trace_and_repeats_itself(
    measure: Callable[[nn.Module, Probe], Any], model: nn.Module, probe: Probe
) -> None:
    model.last.eval()
    model.first.requires_grad_(False)
    model.last.weight.grad = torch.ones_like(model.last.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = measure(model, probe)
    torch.rand(3)
    with torch.no_grad():
        assert measure(model, probe) == first
    torch.set_rng_state(state)
    assert measure(model, probe) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.first.weight.requires_grad and model.last.weight.requires_grad
    assert torch.equal(model.last.weight.grad, torch.ones(1, 5)) and model.last.bias.grad is None
    assert model.training and not model.last.training


def test_scoring_reaches_no_embedding_table(model: nn.Module, probe: Probe) -> None:
    """The inputs of a network are detached values, and get no gradient."""
    dense = torch.randn(8, 3)
    table = torch.randn(8, 2, 4, requires_grad=True)
    batches = tuple(((dense, (table * number).detach()), torch.ones(8)) for number in (1, 2))
    sigeo_terms(model, replace(probe, batches=batches))
    assert table.grad is None


@pytest.mark.parametrize(
    "space", [nasrec_small(3, 2, num_blocks=2), nasrec_full(3, 2, num_blocks=2)], ids=["small", "full"]
)
def test_paths_of_a_supernet(space: NasrecSpace) -> None:
    """A path's parameters are views: measuring them leaves the supernet's bits, and gives what the subnet's would."""
    generator = torch.Generator().manual_seed(6)
    supernet = NasrecSupernet(space, generator)
    batches = tuple(
        (
            (torch.randn(32, 3, generator=generator), torch.randn(32, 2, 16, generator=generator)),
            torch.randint(2, (32,), generator=generator).float(),
        )
        for _ in range(4)
    )
    probe = Probe(batches, loss=F.binary_cross_entropy_with_logits)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    for seed in range(3):
        genotype = space.draw(random.Random(seed))
        path, subnet = supernet.path(genotype), extract(supernet, genotype)
        for options in (SigeoOptions(), SigeoOptions(modules="modules", fisher_rao_over="samples")):
            shared, own = sigeo_terms(path, probe, options), sigeo_terms(subnet, probe, options)
            assert shared == sigeo_terms(path, probe, options)
            assert shared.num_modules + shared.num_skipped == own.num_modules + own.num_skipped
            assert (shared.zico, shared.fisher_rao, shared.loss) == pytest.approx(
                (own.zico, own.fisher_rao, own.loss), rel=1e-3
            )
        assert shared.num_parameters == sum(parameter.numel() for parameter in path.parameters())
        assert math.isfinite(reference_sigeo(path, probe, ["classifier"]))
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_few_batches_are_refused(model: nn.Module, probe: Probe) -> None:
    for measure in (sigeo_terms, reference_sigeo):
        with pytest.raises(ValueError, match="at least 2 batches; the probe has 1"):
            measure(model, replace(probe, batches=probe.batches[:1]))


def test_what_has_no_score(model: nn.Module, probe: Probe) -> None:
    with pytest.raises(ProxyUndefined, match="no gradient varies"):
        sigeo_terms(model, replace(probe, batches=probe.batches[:1] * 3))
    with torch.no_grad():
        model.last.bias.fill_(math.nan)
    with pytest.raises(ProxyUndefined, match="the loss of a batch is nan"):
        sigeo_terms(model, probe)
    with pytest.raises(ProxyUndefined, match="depends on no parameter"):
        sigeo_terms(nn.Flatten(), Probe(((torch.ones(2, 1), torch.ones(2, 1)),) * 2, loss=F.mse_loss))


def test_dead_units_are_dropped_and_counted(model: nn.Module, probe: Probe) -> None:
    with torch.no_grad():
        model.first.bias[0] = -1e3  # a ReLU that never opens: eleven weights, and one of the next layer
    terms = sigeo_terms(model, probe)
    assert (terms.num_dropped, terms.num_modules, terms.num_skipped) == (12, 2, 0)
    with torch.no_grad():
        model.first.bias.fill_(-1e3)
    terms = sigeo_terms(model, probe, SigeoOptions(modules="modules"))
    assert (terms.num_modules, terms.num_skipped) == (1, 1)  # the last layer's bias still learns


def terms_of(zico: float, fisher_rao: float, loss: float) -> SigeoTerms:
    return SigeoTerms(zico, fisher_rao, loss, 4, 1, 0, 0, 1)


POPULATION = [terms_of(400.0, 1e-3, 0.6), terms_of(600.0, 1e-2, 0.5), terms_of(800.0, 1e-4, 0.7)]


def test_standardised_terms_weigh_alike() -> None:
    """Raw, the first term decides; standardised, a far better norm and loss outweigh a few modules more."""
    moments = moments_of(POPULATION)
    z = [
        (np.array(column) - np.mean(column)) / np.std(column)
        for column in zip(*((t.zico, math.log(t.fisher_rao), t.loss) for t in POPULATION), strict=True)
    ]
    scores = [combine(terms, moments, SigeoWeights(2.0, 3.0, 5.0)) for terms in POPULATION]
    assert scores == pytest.approx(list(2 * z[0] + 3 * z[1] - 5 * z[2]), abs=1e-12)
    assert np.argmax([combine(terms, moments) for terms in POPULATION]) == 1
    assert np.argmax([raw_sigeo(terms) for terms in POPULATION]) == 2


def test_a_term_that_does_not_vary_adds_nothing() -> None:
    same_loss = [replace(terms, loss=0.1) for terms in POPULATION]
    moments = moments_of(same_loss)
    assert moments.loss.sd == 0.0
    assert combine(replace(POPULATION[0], loss=9.0), moments) == combine(same_loss[0], moments)


def test_no_fisher_rao_norm_no_score() -> None:
    moments: SigeoMoments = moments_of([*POPULATION, terms_of(500.0, 0.0, 0.6)])
    assert moments.log_fisher_rao == moments_of(POPULATION).log_fisher_rao
    zero = terms_of(500.0, 0.0, 0.6)
    for score in (lambda t: combine(t, moments), raw_sigeo):
        with pytest.raises(ProxyUndefined, match="the Fisher-Rao norm is zero"):
            score(zero)
    assert math.isfinite(combine(zero, moments, SigeoWeights(1.0, 0.0, 1.0))) and raw_sigeo(zero, 1, 0, 0) == 500.0
    with pytest.raises(ValueError, match="none of the 1 subnets"):
        moments_of([zero])
