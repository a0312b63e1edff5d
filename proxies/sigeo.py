"""SiGeo: a subnet of a supernet that was warmed up, scored by its gradients and its loss on a few batches.

    score = l1 sum over modules m of log || mean_n |g_n^m| / std_n(g_n^m) ||_1  +  l2 log FR  -  l3 loss      (Eq. 7)
    FR    = mean over n of (theta . g_n)^2,      loss = mean over n of the batches' losses,        higher is better

g_n is the gradient of batch n's mean loss at unchanged parameters theta; N = 4 batches. Source: SiGeo (arXiv
2311.13169), Definition 1 and Appendix E (Fisher-Rao norm). The first term alone is ZiCo's, with the deviation of the
signed gradient (proxies/zico.py). Parameters are the network's own: embedding tables are out, because the network is
given embedded values. Both of the authors' programs take the logarithm of a Fisher-Rao term; neither computes the
mean of squares: proxies/sigeo_reference.py says what the one for click-through rates does.

Raw terms are of different sizes: in NASRec's spaces the first one is nearly a count of modules (its correlation with
their number is 0.96) and the others cannot change a ranking. So `combine` standardises each term over a reference
population first. `raw_sigeo` is Eq. 7 as it is written.

In a network whose convolutions are followed by BatchNorm in train mode, theta . g of every such weight is zero, because
the loss does not depend on the weight's scale: FR is then that of the classifier and of BatchNorm's own parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from subshot.proxies.base import Batch, Loss, Probe, ProxyUndefined, Setting
from subshot.proxies.batch_pass import LossGradients, LossValue, ParameterValues, Tape
from subshot.proxies.conditions import prepared
from subshot.proxies.measure import Proxy
from subshot.proxies.zico import SteadinessSum, blocks


@dataclass(frozen=True)
class SigeoOptions:
    """What the definition leaves open.

    modules: what the first term sums over. "weights": the parameters of two or more dimensions that one module owns
        itself, together (a convolution's or a linear layer's weight, as ZiCo has it). "tensors": every parameter by
        itself. "modules": all parameters that one module owns itself, together. Modules go by their qualified names,
        so equal layers do not mix.
    fisher_rao_parameters: all parameters, or those that the first term reads.
    fisher_rao_over: mean of squares over batches (n is a batch), or over samples (n is one sample, the empirical
        Fisher information). The gradient of a batch is a mean, so its FR is smaller, and about so many times as a
        batch has samples where gradients have no common direction. Samples cost a forward-mode pass a batch on top.
    correction: see `steadiness`.
    train_mode: mode of the whole network while it is measured.
    """

    modules: Literal["weights", "tensors", "modules"] = "weights"
    fisher_rao_parameters: Literal["all", "scored"] = "all"
    fisher_rao_over: Literal["batches", "samples"] = "batches"
    correction: Literal[0, 1] = 0
    train_mode: bool = True


@dataclass(frozen=True)
class SigeoTerms:
    """The three terms before any weight, and what they were taken over. All finite.

    zico, fisher_rao >= 0, loss (lower is better). num_batches: N. num_modules: modules in `zico`. num_skipped: modules
    left out because no entry of theirs varies. num_dropped: entries of standard deviation zero, left out of `zico`.
    num_parameters: entries that the loss depends on, in any batch.
    """

    zico: float
    fisher_rao: float
    loss: float
    num_batches: int
    num_modules: int
    num_skipped: int
    num_dropped: int
    num_parameters: int

    @property
    def log_fisher_rao(self) -> float:
        """Raises ProxyUndefined where the Fisher-Rao norm is zero."""
        if self.fisher_rao == 0.0:
            raise ProxyUndefined("the Fisher-Rao norm is zero, so its logarithm does not exist")
        return math.log(self.fisher_rao)


def sigeo_terms(model: nn.Module, probe: Probe, options: SigeoOptions | None = None) -> SigeoTerms:
    """The terms of a network, which is left as it was: parameters, buffers, gradients, modes and random states.

    Costs one forward and one backward pass a batch; takes no step, so scoring twice gives the same numbers. Raises
    ValueError for fewer than two batches, and ProxyUndefined where no gradient varies or something is not finite.
    """
    if len(probe.batches) < 2:
        raise ValueError(f"SiGeo reads at least 2 batches; the probe has {len(probe.batches)}")
    options = options or SigeoOptions()
    with prepared(model, Setting(batch_norm="train" if options.train_mode else "eval"), probe.seed):
        gradients, losses = [], []
        for inputs, targets in probe.batches:
            model.requires_grad_(True)
            tape = Tape(model, inputs, model(inputs), targets, probe.loss)
            losses.append(tape.loss_value().item())
            gradients.append(tape.loss_gradients())
        parameters = dict(model.named_parameters())
        samples = None
        if options.fisher_rao_over == "samples":
            within = {id(p) for owner, p in _scored_first(parameters, options) if owner is not None}
            if options.fisher_rao_parameters == "all":
                within |= {id(parameter) for parameter in parameters.values()}
            samples = torch.cat([_sample_products(model, batch, probe.loss, within) for batch in probe.batches])
        return terms_of(parameters, gradients, losses, options, samples)


def terms_of(
    named: Mapping[str, Tensor],
    gradients: Sequence[Mapping[str, Tensor | None]],
    losses: Sequence[float],
    options: SigeoOptions,
    sample_products: Tensor | None = None,
) -> SigeoTerms:
    """The terms from parameters by name, each batch's gradients, None by parameters that its loss does not depend on,
    and its loss. sample_products: theta . g of every sample, for the Fisher-Rao norm over samples."""
    ordered = _scored_first(named, options)
    names = {id(parameter): name for name, parameter in named.items()}
    table = [[row[names[id(parameter)]] for _, parameter in ordered] for row in gradients]
    used = [number for number, column in enumerate(zip(*table, strict=True)) if any(g is not None for g in column)]
    parameters = [ordered[number][1].detach() for number in used]
    rows = [_filled([row[number] for number in used], parameters) for row in table]
    owners = [ordered[number][0] for number in used]
    scored = sum(owner is not None for owner in owners)
    sizes = [
        sum(parameter.numel() for _, parameter in members)
        for _, members in groupby(zip(owners[:scored], parameters[:scored], strict=True), key=lambda pair: pair[0])
    ]
    steadiness = SteadinessSum(sizes, options.correction)
    products = torch.zeros(len(rows), dtype=torch.float64, device=parameters[0].device)
    for block in blocks([*(row[:scored] for row in rows), parameters[:scored]]):
        steadiness.add(block[:-1])
        products += _products(block)
    if options.fisher_rao_parameters == "all":
        for block in blocks([*(row[scored:] for row in rows), parameters[scored:]]):
            products += _products(block)
    steady = steadiness.result()
    fisher_rao = float((products if sample_products is None else sample_products).square().mean())
    if not math.isfinite(fisher_rao):
        raise ProxyUndefined(f"the Fisher-Rao norm is {fisher_rao}")
    return SigeoTerms(
        zico=steady.log_ratios,
        fisher_rao=fisher_rao,
        loss=math.fsum(losses) / len(losses),
        num_batches=len(losses),
        num_modules=steady.num_modules,
        num_skipped=len(sizes) - steady.num_modules,
        num_dropped=steady.num_dropped,
        num_parameters=sum(parameter.numel() for parameter in parameters),
    )


def _scored_first(named: Mapping[str, Tensor], options: SigeoOptions) -> list[tuple[str | None, Tensor]]:
    """Every parameter with the name of its module in the first term, None where it is in none; these come last."""
    scored, rest = [], []
    for name, parameter in named.items():
        if options.modules == "weights" and parameter.ndim < 2:
            rest.append((None, parameter))
        else:
            scored.append((name if options.modules == "tensors" else name.rpartition(".")[0], parameter))
    scored.sort(key=lambda pair: pair[0])
    return [*scored, *rest]


def _filled(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Zeros where a batch's loss does not depend on a parameter that another batch's does depend on."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]


def _products(block: Tensor) -> Tensor:
    """theta . g_n, [N] in float64, of a block [N + 1, entries] whose last row is theta."""
    values = block.double()
    return values[:-1] @ values[-1]


def _sample_products(model: nn.Module, batch: Batch, loss: Loss, within: set[int]) -> Tensor:
    """theta . (gradient of one sample's loss), for each sample; [batch size] in float64.

    This is the slope of the sample's loss along theta: the logits' slope, which one forward-mode pass gives for all
    samples, times the loss's slope by the logits. Raises ValueError where BatchNorm makes a sample depend on others.
    """
    if any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
        raise ValueError(
            "no sample has a gradient of its own where BatchNorm is in train mode; take train_mode=False, or the "
            "Fisher-Rao norm over batches"
        )
    inputs, targets = batch
    named = dict(model.named_parameters())
    theta = {name: parameter.detach() for name, parameter in named.items()}
    tangents = {n: value if id(named[n]) in within else torch.zeros_like(value) for n, value in theta.items()}
    call: Callable[[dict[str, Tensor]], Tensor] = lambda values: functional_call(model, values, (inputs,))  # noqa: E731
    with sdpa_kernel(SDPBackend.MATH):  # the others have no forward-mode derivative
        logits, slopes = jvp(call, (theta,), (tangents,))[:2]
    leaf = logits.detach().requires_grad_(True)
    (by_logits,) = torch.autograd.grad(loss(leaf, targets), leaf)
    return (by_logits.double() * slopes.double()).reshape(len(targets), -1).sum(dim=1) * len(targets)


@dataclass(frozen=True)
class SigeoWeights:
    """l1, l2 and l3 of the standardised terms. Where one is 0, its term need not exist."""

    zico: float = 1.0
    fisher_rao: float = 1.0
    loss: float = 1.0


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation (divided by the number of members) of one term over a population."""

    mean: float
    sd: float

    def standardised(self, value: float) -> float:
        """(value - mean) / sd; 0 where the population does not vary."""
        return (value - self.mean) / self.sd if self.sd > 0.0 else 0.0


@dataclass(frozen=True)
class SigeoMoments:
    """Of the reference population's terms. Fixed once: with other moments, scores are not comparable."""

    zico: Moments
    log_fisher_rao: Moments
    loss: Moments


def moments_of(population: Sequence[SigeoTerms]) -> SigeoMoments:
    """Subnets whose Fisher-Rao norm is zero are left out of that term's moments; ValueError where none is left."""
    positive = [terms.log_fisher_rao for terms in population if terms.fisher_rao > 0.0]
    if not positive:
        raise ValueError(
            f"none of the {len(population)} subnets of the reference population has a Fisher-Rao norm above zero"
        )
    return SigeoMoments(
        zico=_moments([terms.zico for terms in population]),
        log_fisher_rao=_moments(positive),
        loss=_moments([terms.loss for terms in population]),
    )


def _moments(values: Sequence[float]) -> Moments:
    mean = math.fsum(values) / len(values)
    if min(values) == max(values):  # their mean may be off by a rounding
        return Moments(values[0], 0.0)
    return Moments(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)))


def combine(terms: SigeoTerms, moments: SigeoMoments, weights: SigeoWeights | None = None) -> float:
    """l1 z(zico) + l2 z(log FR) - l3 z(loss), z standardising over the reference population; higher is better.

    Raises ProxyUndefined where the Fisher-Rao norm is zero and its weight is not.
    """
    weights = weights or SigeoWeights()
    score = weights.zico * moments.zico.standardised(terms.zico) - weights.loss * moments.loss.standardised(terms.loss)
    if weights.fisher_rao != 0.0:
        score += weights.fisher_rao * moments.log_fisher_rao.standardised(terms.log_fisher_rao)
    return score


def raw_sigeo(terms: SigeoTerms, l1: float = 1.0, l2: float = 1.0, l3: float = 1.0) -> float:
    """Eq. 7 as it is written, with the logarithm of the Fisher-Rao norm; higher is better.

    The authors take (1, 1, 0) for convolutional networks without and (1, 50, 1) with a warm-up, and l1 = l2 = 1 with
    l3 of 0 or 1 for click-through rates. (1, 0, 0) is ZiCo. Raises ProxyUndefined as `combine` does.
    """
    score = l1 * terms.zico - l3 * terms.loss
    return score + l2 * terms.log_fisher_rao if l2 != 0.0 else score


def _of_readings(*values: Any) -> SigeoTerms:
    """From the parameters, and each batch's gradients and loss in turn."""
    parameters, *rest = values
    return terms_of(parameters, rest[0::2], rest[1::2], SigeoOptions())


def sigeo(num_batches: int = 4, l1: float = 1.0, l2: float = 1.0, l3: float = 1.0) -> Proxy:
    """`raw_sigeo` with these weights over so many batches, at least two."""
    return _proxy("sigeo", lambda terms: raw_sigeo(terms, l1, l2, l3), True, num_batches)


def _proxy(name: str, formula: Callable[[SigeoTerms], float], maximize: bool, num_batches: int = 4) -> Proxy:
    if num_batches < 2:
        raise ValueError(f"SiGeo compares batches: num_batches is {num_batches}, and must be at least 2")
    readings = [reading for batch in range(num_batches) for reading in (LossGradients(batch), LossValue(batch))]
    return Proxy(
        name,
        (ParameterValues(), *readings),
        lambda *values: formula(_of_readings(*values)),
        maximize,
        "SiGeo, arXiv 2311.13169, Eq. 7 with weights (1, 1, 1); unlike the authors' code takes no optimiser steps",
    )


PROXY = sigeo()
ZICO_TERM = _proxy("sigeo_zico", lambda terms: terms.zico, True)
FISHER_RAO = _proxy("sigeo_fr", lambda terms: terms.log_fisher_rao, True)
LOSS = _proxy("sigeo_loss", lambda terms: terms.loss, False)
