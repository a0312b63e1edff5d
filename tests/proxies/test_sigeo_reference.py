"""The public SiGeo code's values, and how it differs from the definition."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies.base import Batch, Probe
from subshot.proxies.sigeo import raw_sigeo, sigeo_terms
from subshot.proxies.sigeo_reference import reference_sigeo, reference_terms


def test_the_public_code_s_values(
    golden_model: nn.Module, golden_batches: list[Batch], golden_values: dict[str, Any]
) -> None:
    """Its program was run on all layers, with steps of size zero and nothing clipped."""
    layers = [name for name, module in golden_model.named_modules() if not list(module.children())]
    zico, log_fisher_rao, _ = reference_terms(golden_model, Probe(tuple(golden_batches)), layers, clip_norm=None)
    assert zico == pytest.approx(golden_values["sigeo.reference.nasrec_lr0.zico"]["value"], rel=1e-7)
    assert log_fisher_rao == pytest.approx(golden_values["sigeo.reference.nasrec_lr0.log_fr"]["value"], rel=1e-7)


def test_the_public_code_s_score_by_hand(click_net: nn.Module, click_probe: Probe) -> None:
    """One coordinate an entry, signs that cancel, the last batch's loss: and not the definition's number."""
    click_net.unused = nn.Identity()  # type: ignore[assignment]
    last, losses = list(click_net.last.parameters()), []
    rows: list[list[np.ndarray]] = [[], []]
    for inputs, labels in click_probe.batches:
        loss = click_probe.loss(click_net(inputs), labels)
        losses.append(loss.item())
        for row, gradient in zip(rows, torch.autograd.grad(loss, last), strict=True):
            row.append(gradient.double().flatten().numpy())
    weight, bias = (np.array(row) for row in rows)
    first = next(column for column in weight.T if np.ptp(column) > 0)
    ratios = [np.abs(g).mean() / np.std(g, ddof=1) for g in (first, bias[:, 0])]
    theta = np.hstack([p.detach().double().flatten().numpy() for p in last])
    inner = abs(float(np.hstack([weight, bias]).sum(axis=0) @ theta))
    want = 2 * math.log(ratios[0] * ratios[1]) + 3 * math.log(inner + 1e-10) - 5 * losses[-1]
    assert reference_sigeo(click_net, click_probe, l1=2, l2=3, l3=5) == pytest.approx(want, rel=1e-5)
    assert reference_sigeo(click_net, click_probe, ["last"], 2, 3, 5) == reference_sigeo(
        click_net, click_probe, l1=2, l2=3, l3=5
    )
    assert reference_sigeo(click_net, click_probe, l1=2, l2=3, l3=5, clip_norm=1e-3) != pytest.approx(want, rel=1e-2)
    assert raw_sigeo(sigeo_terms(click_net, click_probe), 2, 3, 5) != pytest.approx(want, rel=1e-2)


def test_a_weight_in_two_tensors_is_one_entry_of_the_reference(click_net: nn.Module, click_probe: Probe) -> None:
    class Split(nn.Module):
        def __init__(self, weight: Tensor, bias: Tensor) -> None:
            super().__init__()
            self.left, self.right = nn.Parameter(weight[:, :2].clone()), nn.Parameter(weight[:, 2:].clone())
            self.bias = nn.Parameter(bias.clone())

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, torch.cat((self.left, self.right), dim=1), self.bias)

    want = reference_terms(click_net, click_probe, ["last"])
    click_net.last = Split(click_net.last.weight.detach(), click_net.last.bias.detach())  # type: ignore[assignment]
    assert reference_terms(click_net, click_probe, ["last"]) == pytest.approx(want, rel=1e-6)


def test_the_reference_reads_layers_that_exist(click_net: nn.Module, click_probe: Probe) -> None:
    with pytest.raises(ValueError, match="no layer 'head'; layers with parameters are first, last, unused"):
        reference_sigeo(click_net, click_probe, ["head"])
