"""Every baseline against its formula, one sample and one number at a time, in float64."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subshot.supernet.ctr_baselines import (
    BASELINES,
    DLRM,
    DCNv2,
    DeepFM,
    FactorizationMachine,
    LogisticRegression,
    adds_products,
    build_baseline,
    table_dim,
)

Array = NDArray[np.float64]
SHAPES = [(13, 26), (1, 3), (0, 2), (3, 1)]

every_shape = pytest.mark.parametrize(("dense", "fields"), SHAPES)
every_baseline = pytest.mark.parametrize("name", BASELINES)


def numbers(model: nn.Module) -> dict[str, Array]:
    """Every parameter by name, after random values were put in, biases too."""
    generator = torch.Generator().manual_seed(7)
    found = {}
    for name, parameter in model.double().named_parameters():
        with torch.no_grad():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        found[name] = parameter.detach().numpy()
    return found


def inputs_of(dense: int, fields: int, dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    return (
        torch.randn(3, dense, generator=generator, dtype=torch.float64),
        torch.randn(3, fields, dim, generator=generator, dtype=torch.float64),
    )


def layers(x: Sequence[float], weights: dict[str, Array], prefix: str, relu_last: bool = False) -> list[float]:
    """A perceptron, number by number."""
    names = sorted({key.rpartition(".")[0] for key in weights if key.startswith(prefix)}, key=lambda n: n.split("."))
    values = list(x)
    for place, name in enumerate(names):
        rows = zip(weights[f"{name}.weight"], weights[f"{name}.bias"], strict=True)
        values = [math.fsum(w * v for w, v in zip(row, values, strict=True)) + bias for row, bias in rows]
        if relu_last or place < len(names) - 1:
            values = [max(0.0, value) for value in values]
    return values


def first_order(dense: Array, first: Array, weights: dict[str, Array], prefix: str) -> float:
    bias = float(weights[f"{prefix}dense.bias"][0])
    own = weights[f"{prefix}dense.weight"][0] if len(dense) else []
    return bias + math.fsum(w * x for w, x in zip(own, dense, strict=True)) + math.fsum(first)


def pairs(vectors: Sequence[Array]) -> list[float]:
    return [math.fsum(vectors[i] * vectors[j]) for i in range(len(vectors)) for j in range(i)]


def check(model: nn.Module, inputs: tuple[Tensor, Tensor], expected: list[float]) -> None:
    logits = model(inputs)
    assert logits.shape == (3,)
    assert logits.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every_shape
def test_logistic_regression(dense: int, fields: int) -> None:
    model, inputs = LogisticRegression(dense, fields), inputs_of(dense, fields, 1)
    weights = numbers(model)
    x, e = (values.numpy() for values in inputs)
    check(model, inputs, [first_order(x[n], e[n, :, 0], weights, "") for n in range(3)])


def fm_logits(x: Array, e: Array, weights: dict[str, Array], prefix: str) -> tuple[float, list[Array]]:
    vectors = [*(value * v for value, v in zip(x, weights[f"{prefix}vectors"], strict=True)), *e[:, :-1]]
    return first_order(x, e[:, -1], weights, f"{prefix}first_order.") + math.fsum(pairs(vectors)), vectors


@every_shape
def test_factorization_machine(dense: int, fields: int) -> None:
    model, inputs = FactorizationMachine(dense, fields, dim=4), inputs_of(dense, fields, 5)
    weights = numbers(model)
    x, e = (values.numpy() for values in inputs)
    check(model, inputs, [fm_logits(x[n], e[n], weights, "")[0] for n in range(3)])


@every_shape
def test_deepfm(dense: int, fields: int) -> None:
    model, inputs = DeepFM(dense, fields, dim=4, hidden=(6, 5)), inputs_of(dense, fields, 5)
    weights = numbers(model)
    x, e = (values.numpy() for values in inputs)
    expected = []
    for n in range(3):
        logit, vectors = fm_logits(x[n], e[n], weights, "fm.")
        expected.append(logit + layers(list(np.concatenate(vectors)), weights, "deep.")[0])
    check(model, inputs, expected)


@every_shape
def test_dlrm(dense: int, fields: int) -> None:
    model, inputs = DLRM(dense, fields, dim=4, bottom=(6, 5), top=(7,)), inputs_of(dense, fields, 4)
    weights = numbers(model)
    x, e = (values.numpy() for values in inputs)
    expected = []
    for n in range(3):
        bottom = layers(list(x[n]), weights, "bottom.", relu_last=True) if dense else []
        vectors = [*([np.array(bottom)] if dense else []), *e[n]]
        expected.append(layers([*bottom, *pairs(vectors)], weights, "top.")[0])
    check(model, inputs, expected)


@every_shape
def test_dcn_v2(dense: int, fields: int) -> None:
    model, inputs = DCNv2(dense, fields, dim=4, cross_layers=2, hidden=(6, 5)), inputs_of(dense, fields, 4)
    weights = numbers(model)
    x, e = (values.numpy() for values in inputs)
    expected = []
    for n in range(3):
        start = [*x[n], *e[n].ravel()]
        crossed = start
        for layer in range(2):
            w, b = weights[f"cross.{layer}.weight"], weights[f"cross.{layer}.bias"]
            moved = [math.fsum(w[i] * np.array(crossed)) + b[i] for i in range(len(start))]
            crossed = [x0 * m + xl for x0, m, xl in zip(start, moved, crossed, strict=True)]
        both = [*crossed, *layers(start, weights, "deep.", relu_last=True)]
        expected.append(math.fsum(weights["last.weight"][0] * np.array(both)) + float(weights["last.bias"][0]))
    check(model, inputs, expected)


@every_baseline
@every_shape
@pytest.mark.parametrize("dim", [16, 8])
def test_every_baseline_runs_on_its_tables_and_learns(name: str, dense: int, fields: int, dim: int) -> None:
    model = build_baseline(name, dense, fields, torch.Generator().manual_seed(0), dim)
    x, embedded = (values.float() for values in inputs_of(dense, fields, table_dim(name, dim)))
    embedded.requires_grad_(True)
    logits = model((x, embedded))
    assert logits.shape == (3,) and logits.dtype == torch.float32
    logits.sum().backward()
    assert embedded.grad is not None and bool(embedded.grad.abs().sum(dim=2).all())
    assert all(parameter.grad is not None for parameter in model.parameters())


@every_baseline
def test_the_generator_decides_the_weights(name: str) -> None:
    def built(seed: int) -> list[Tensor]:
        return list(build_baseline(name, 13, 26, torch.Generator().manual_seed(seed)).parameters())

    torch.manual_seed(1)
    first = built(0)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, built(0), strict=True))
    linear = name == "logistic_regression"  # begins at 0, whatever the seed
    assert linear != any(not torch.equal(a, b) for a, b in zip(first, built(1), strict=True))
    for parameter in first:
        if parameter.ndim < 2:
            assert not parameter.any()
        else:
            assert parameter.abs().max().item() <= math.sqrt(6 / sum(parameter.shape))


PARAMETERS = {
    "logistic_regression": 13 + 1,
    "fm": 13 + 1 + 13 * 16,
    "deepfm": 13 + 1 + 13 * 16 + (39 * 16 + 1) * 400 + 401 * 400 * 2 + 401,
    "dlrm": 14 * 512 + 513 * 256 + 257 * 64 + 65 * 16 + (16 + 27 * 26 // 2 + 1) * 512 + 513 * 256 + 257,
    "dcn_v2": 3 * 430 * 429 + 430 * 400 + 401 * 400 * 2 + 429 + 400 + 1,
}


@every_baseline
def test_sizes_on_criteo(name: str) -> None:
    model = build_baseline(name, 13, 26, torch.Generator())
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dnn", 13, 26), "no baseline 'dnn'; there are logistic_regression, fm"),
        (("dlrm", 0, 1), "0 dense features with 1 categorical fields give none"),
        (("fm", 3, 0), "at least one categorical field; got 0"),
    ],
)
def test_what_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_baseline(*arguments, torch.Generator())


@every_baseline
def test_training_starts_near_a_coin_toss(name: str) -> None:
    """With tables as a run makes them, and integers as logarithms: the first log loss is near log 2."""
    generator = torch.Generator().manual_seed(0)
    network = build_baseline(name, 13, 26, generator)
    width = table_dim(name)
    deviation = 0.01 if adds_products(name) else (2 / (1000 + width)) ** 0.5
    dense = 8 * torch.rand(256, 13, generator=generator)
    logits = network((dense, deviation * torch.randn(256, 26, width, generator=generator)))
    labels = torch.randint(0, 2, (256,), generator=generator).float()
    assert nn.functional.binary_cross_entropy_with_logits(logits, labels).item() < 1.5
