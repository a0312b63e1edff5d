"""Accuracy by counting; recalibrated statistics by hand; the supernet as it was."""

import pytest
import torch
from torch import nn

from subshot.supernet.base import extract
from subshot.train.evaluate import OneShot, count_correct, evaluate_accuracy, recalibrate_batchnorm
from subshot.train.task import image_task

TASK = image_task()
GENOTYPE = (1, 0, 2, 1, 0, 2, 2, 0)


def batches(make_loader, epoch, count=3):
    loader = make_loader()
    return [loader.shard(epoch, step, 0) for step in range(count)]


@pytest.fixture
def supernet(make_supernet):
    supernet = make_supernet("projected", True)
    generator = torch.Generator().manual_seed(4)
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
    return supernet


def test_recalibration_is_the_plain_average_of_batch_statistics(supernet, make_loader) -> None:
    network = extract(supernet, GENOTYPE).eval()
    calibration = batches(make_loader, 5)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    seen = {norm: [] for norm in norms}
    hooks = [norm.register_forward_pre_hook(lambda norm, inputs: seen[norm].append(inputs[0])) for norm in norms]
    recalibrate_batchnorm(network, calibration, TASK)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        inputs = [x.double().transpose(0, 1).flatten(1) for x in seen[norm]]
        assert len(inputs) == 3
        mean = sum(x.mean(dim=1) for x in inputs) / 3
        variance = sum(((x - x.mean(dim=1, keepdim=True)) ** 2).sum(dim=1) / (x.shape[1] - 1) for x in inputs) / 3
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-4, atol=1e-5)
    assert not network.training and [norm.momentum for norm in norms] == momenta


def test_what_was_there_before_does_not_matter(supernet, make_loader) -> None:
    """Recalibrating twice, or from other statistics, gives the same bits."""
    first, second = extract(supernet, GENOTYPE), extract(supernet, GENOTYPE)
    for module in second.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(7.0)
            module.running_var.fill_(3.0)
    recalibrate_batchnorm(first, batches(make_loader, 5), TASK)
    for _ in range(2):
        recalibrate_batchnorm(second, batches(make_loader, 5), TASK)
    for one, other in zip(first.buffers(), second.buffers(), strict=True):
        assert torch.equal(one, other)


def test_one_shot_leaves_the_supernet_and_repeats_itself(supernet, make_loader) -> None:
    supernet.train()
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    one_shot = OneShot(supernet, batches(make_loader, 5), batches(make_loader, 6, 5), TASK)
    others = [one_shot(genotype) for genotype in ((0,) * 8, (2,) * 8)]
    first = one_shot(GENOTYPE)
    assert [one_shot(GENOTYPE), one_shot((0,) * 8), one_shot((2,) * 8)] == [first, *others]
    assert all(torch.equal(before[key], value) for key, value in supernet.state_dict().items())
    assert supernet.training and all(module.training for module in supernet.modules())
    assert all(p.grad is None for p in supernet.parameters())
    subnet = extract(supernet, GENOTYPE)
    recalibrate_batchnorm(subnet, batches(make_loader, 5), TASK)
    subnet.eval()
    right = 0
    for batch in batches(make_loader, 6, 5):
        for image, label in zip(batch.images, batch.labels, strict=True):
            right += int(subnet(image[None]).argmax()) == int(label)
    assert first == right / 20


def test_counts(supernet, make_loader, one_process) -> None:
    network = extract(supernet, GENOTYPE).train()
    validation = batches(make_loader, 6)
    right, seen = count_correct(network, validation, TASK)
    assert network.training and seen == 12
    assert evaluate_accuracy(network, validation, TASK, one_process) == (right / 12, 12)
    with pytest.raises(ValueError, match="empty"):
        evaluate_accuracy(network, [], TASK, one_process)
