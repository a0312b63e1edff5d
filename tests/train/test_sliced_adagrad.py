"""Adagrad on slices against torch's on whole weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from subshot.train.sliced_adagrad import SlicedAdagrad


def weights() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        "first": nn.Parameter(torch.randn(6, 5, generator=generator)),
        "second": nn.Parameter(torch.randn(7, generator=generator)),
        "third": nn.Parameter(torch.randn(2, 3, 4, generator=generator)),
    }


def slices(full: dict[str, nn.Parameter], step: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(step)
    rows, columns, width = (int(torch.randint(1, 5, (), generator=generator)) for _ in range(3))
    views = [full["first"].detach()[:rows, 1 : 1 + columns], full["second"].detach()[2 : 2 + width]]
    if step % 3 == 0:
        views.append(full["third"].detach()[1, :, 1:3])
    return [nn.Parameter(view) for view in views]


def test_equals_torch_with_zeros_where_the_path_does_not_go() -> None:
    ours, theirs = weights(), weights()
    sliced = SlicedAdagrad(ours, 0.1, 1e-2)
    whole = torch.optim.Adagrad(theirs.values(), lr=0.1, eps=1e-2)
    for step in range(20):
        path, twin = slices(ours, step), slices(theirs, step)
        generator = torch.Generator().manual_seed(100 + step)
        for weight in theirs.values():
            weight.grad = torch.zeros_like(weight)
        for mine, view in zip(path, twin, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            owner = next(w for w in theirs.values() if w.data_ptr() <= view.data_ptr() < w.data_ptr() + 4 * w.numel())
            owner.grad.as_strided(view.shape, view.stride(), view.storage_offset()).copy_(mine.grad)
        sliced.param_groups[0]["lr"] = whole.param_groups[0]["lr"] = 0.1 / (1 + step)
        sliced.follow(path)
        sliced.step()
        whole.step()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(sliced.accumulator(weight), whole.state[theirs[name]]["sum"], rtol=1e-6, atol=1e-6)


def test_what_a_path_does_not_use_is_not_touched() -> None:
    full = weights()
    before = {name: weight.detach().clone() for name, weight in full.items()}
    optimizer = SlicedAdagrad(full, 0.1, 1e-2)
    view = nn.Parameter(full["first"].detach()[:2, :2])
    view.grad = torch.ones(2, 2)
    optimizer.follow([view])
    optimizer.step()
    assert not torch.equal(full["first"][:2, :2], before["first"][:2, :2])
    assert torch.equal(full["first"][2:], before["first"][2:])
    assert torch.equal(full["first"][:, 2:], before["first"][:, 2:])
    assert torch.equal(full["second"], before["second"])
    optimizer.zero_grad()
    assert view.grad is None


def test_state_goes_on_in_another_optimizer() -> None:
    full = weights()
    optimizer = SlicedAdagrad(full, 0.1, 1e-2)
    view = nn.Parameter(full["second"].detach()[1:4])
    view.grad = torch.tensor([1.0, 2.0, 3.0])
    optimizer.follow([view])
    optimizer.step()
    other = SlicedAdagrad(full, 0.1, 1e-2)
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.accumulator(full["second"]), torch.tensor([0.0, 1.0, 4.0, 9.0, 0.0, 0.0, 0.0]))
    with pytest.raises(KeyError):
        SlicedAdagrad({"fourth": nn.Parameter(torch.zeros(3))}, 0.1, 1e-2).load_state_dict(optimizer.state_dict())
