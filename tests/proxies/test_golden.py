"""Every proxy with a reference value gives it, in float64, for one small residual network."""

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor, nn

from subshot.proxies import PROXIES, az_nas
from subshot.proxies.base import Probe
from subshot.proxies.naswot import kernel, log_det
from subshot.proxies.zen import zen_of

VALUES = [
    ("naswot", "naswot.train.batch0", 0, 1),
    ("naswot", "naswot.train.batch1", 1, 1),
    ("synflow", "synflow", 0, 1),
    ("grad_norm", "grad_norm.batch0", 0, 1),
    ("grad_norm", "grad_norm.batch1", 1, 1),
    ("jacob_cov", "jacob_cov.batch0", 0, 1),
    ("jacob_cov", "jacob_cov.batch1", 1, 1),
    ("zico", "zico.4batches", 0, 4),
    ("zico", "zico.2batches", 0, 2),
]


@pytest.mark.parametrize(("name", "value_id", "first", "count"), VALUES, ids=[row[1] for row in VALUES])
def test_a_proxy_gives_the_reference_value(
    name: str,
    value_id: str,
    first: int,
    count: int,
    golden_model: nn.Module,
    golden_probe: Probe,
    golden_values: dict[str, Any],
) -> None:
    probe = replace(golden_probe, batches=golden_probe.batches[first : first + count])
    want = golden_values[value_id]
    assert PROXIES[name](golden_model, probe) == pytest.approx(want["value"], rel=want["rtol"])


def test_log_synflow_is_the_logarithm(
    golden_model: nn.Module, golden_probe: Probe, golden_values: dict[str, Any]
) -> None:
    want = golden_values["synflow"]
    assert PROXIES["log_synflow"](golden_model, golden_probe) == pytest.approx(want["log"], rel=want["rtol"])


def test_the_naswot_kernel_in_eval_mode(
    golden_model: nn.Module, golden_probe: Probe, golden_values: dict[str, Any]
) -> None:
    want = golden_values["naswot.eval.batch0"]
    matrix = kernel(golden_model.eval(), golden_probe.batches[0][0])
    assert float(matrix.sum()) == want["K_sum"]
    assert matrix.diagonal().tolist() == [want["N_A"]] * 32
    assert log_det(matrix) == pytest.approx(want["value"], rel=want["rtol"])


def test_the_zen_formula(golden_model: nn.Module, golden_probe: Probe, golden_values: dict[str, Any]) -> None:
    """The reference keeps the weights; images and noise are the first two batches."""
    want = golden_values["zen.paper"]
    images, noise = golden_probe.batches[0][0], golden_probe.batches[1][0]
    assert zen_of(golden_model, images, noise) == pytest.approx(want["value"], rel=want["rtol"])


AZ_NAS_FEATURES = ("relu1", "relu2", "res_relu2", "dw_relu", "pw_relu")


def test_the_three_az_nas_scores(
    golden_model: nn.Module,
    golden_probe: Probe,
    golden_values: dict[str, Any],
    golden_signs: list[Tensor],
) -> None:
    maps: list[Tensor] = []
    for name in AZ_NAS_FEATURES:
        golden_model.get_submodule(name).register_forward_hook(lambda module, args, output: maps.append(output))
    golden_model.train()(golden_probe.batches[0][0])
    values = az_nas.entropies([m.detach() for m in maps])
    want = golden_values["aznas.expressivity"]
    assert values == pytest.approx(want["per_feature"], rel=want["rtol"])
    want = golden_values["aznas.progressivity"]
    assert az_nas.progressivity_of(values) == pytest.approx(want["value"], rel=want["rtol"])
    want = golden_values["aznas.trainability"]
    assert az_nas.trainability_of(maps, golden_signs) == pytest.approx(want["value"], rel=want["rtol"])
