"""The training loop against plain loops: gradients, running statistics, the schedule, resuming."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.network import build_network
from subshot.train.fit import checkpoint_state, fit, restore_state, train_step
from subshot.train.paths import path_at
from subshot.train.recipe import Recipe, make_optimizer
from subshot.train.task import image_task
from subshot.train.trainable import select_trainable

RECIPE = Recipe(epochs=3, learning_rate=0.1, label_smoothing=0.0)


def plain_network(make_supernet):
    torch.manual_seed(0)
    return build_network(make_supernet().space.decode((1, 2, 2, 0, 1, 2, 1, 0)))


def state(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def test_a_step_is_the_average_over_shards(make_supernet, make_loader, one_process) -> None:
    """Gradients, loss, accuracy, BatchNorm statistics, and the SGD update itself, with momentum from nothing."""
    network, task = plain_network(make_supernet), image_task()
    start = state(network)
    optimizer = make_optimizer(network, list(network.parameters()), RECIPE)
    (shards,) = make_loader(steps=1).batches(0)
    copies, losses, right = [], [], 0
    for _, batch in shards:
        twin = copy.deepcopy(network).train()
        logits = twin(batch.images)
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()
        copies.append(twin)
        losses.append(loss.item())
        right += sum(int(row.argmax()) == int(label) for row, label in zip(logits, batch.labels, strict=True))
    loss, accuracy, *_ = train_step(network, optimizer, shards, RECIPE, task, one_process, 3)
    assert loss == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert accuracy == pytest.approx(right / 12)
    twins = zip(*(list(twin.parameters()) for twin in copies), strict=True)
    for (key, parameter), same in zip(network.named_parameters(), twins, strict=True):
        mean = sum(p.grad.double() for p in same) / 3
        torch.testing.assert_close(parameter.grad.double(), mean, rtol=1e-4, atol=1e-6)
        decay = RECIPE.weight_decay if parameter.dim() > 1 or key == "classifier.bias" else 0.0
        stepped = start[key] - RECIPE.learning_rate * (mean.float() + decay * start[key])
        torch.testing.assert_close(parameter.detach(), stepped, rtol=1e-5, atol=1e-6)
    for key, value in network.named_buffers():
        seen = [dict(twin.named_buffers())[key] for twin in copies]
        if value.is_floating_point():
            torch.testing.assert_close(value, sum(seen) / 3, rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, start[key])
        else:
            assert int(value) == 1


def test_clipping_scales_the_whole_gradient(make_supernet, make_loader, one_process) -> None:
    (shards,) = make_loader(steps=1).batches(0)
    gradients = []
    for clip in (0.0, 1e-2):
        network = plain_network(make_supernet)
        recipe = Recipe(epochs=1, learning_rate=0.1, clip_norm=clip)
        optimizer = make_optimizer(network, list(network.parameters()), recipe)
        train_step(network, optimizer, shards, recipe, image_task(), one_process, 3)
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert float(gradients[1].norm()) == pytest.approx(1e-2, rel=1e-3)
    torch.testing.assert_close(gradients[1] / 1e-2, gradients[0] / gradients[0].norm(), rtol=1e-3, atol=1e-5)


def test_supernet_statistics_are_untouched_and_the_counters_count_steps(
    make_supernet, make_loader, one_process
) -> None:
    supernet = make_supernet("projected", True)
    before = state(supernet)
    optimizer = make_optimizer(supernet, select_trainable(supernet, "all_bn"), RECIPE)
    path = supernet.path((1,) * 8)
    steps = list(fit(lambda _: path, optimizer, make_loader(), RECIPE, image_task(), one_process, 3))
    assert len(steps) == 12
    for key, value in supernet.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            assert torch.equal(value, before[key]), key
        if key.endswith("num_batches_tracked"):
            assert int(value) in (0, 12)
    scales = [m.weight for m in path.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(not torch.equal(scale, torch.ones_like(scale)) for scale in scales)


def test_steps_epochs_and_rates(make_supernet, make_loader, one_process) -> None:
    network = plain_network(make_supernet)
    optimizer = make_optimizer(network, list(network.parameters()), RECIPE)
    asked = []
    steps = list(
        fit(lambda step: asked.append(step) or network, optimizer, make_loader(), RECIPE, image_task(), one_process, 3)
    )
    assert asked == [result.step for result in steps] == list(range(12))
    assert [result.epoch for result in steps] == [step // 4 for step in range(12)]
    assert [result.learning_rate for result in steps] == pytest.approx([0.1 * (12 - step) / 12 for step in range(12)])
    assert all(0 <= result.accuracy <= 1 and result.seconds >= 0 for result in steps)
    assert sum(r.loss for r in steps[-4:]) < sum(r.loss for r in steps[:4])


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_resuming_equals_going_on(make_supernet, make_loader, one_process, tmp_path, stop, kind) -> None:
    """Stopped at an epoch's end and inside one; through a file that is loaded without pickle."""
    recipe = Recipe(epochs=2, learning_rate=0.05, optimizer=kind)

    def start():
        supernet = make_supernet("identity")
        parameters = select_trainable(supernet, "bn_classifier")
        return supernet, parameters, make_optimizer(supernet, parameters, recipe)

    def go(supernet, optimizer, done):
        def path(step):
            return supernet.path(path_at(supernet.space, step, 7, "uniform"))

        return fit(path, optimizer, make_loader(), recipe, image_task(), one_process, 3, done)

    whole, _, optimizer = start()
    losses = [result.loss for result in go(whole, optimizer, 0)]
    first, parameters, optimizer = start()
    for result in go(first, optimizer, 0):
        if result.step + 1 == stop:
            torch.save(checkpoint_state(stop, first, optimizer), tmp_path / "state.pt")
            break
    second, parameters, optimizer = start()
    done = restore_state(torch.load(tmp_path / "state.pt", weights_only=True), second, optimizer)
    assert done == stop
    assert [result.loss for result in go(second, optimizer, done)] == losses[stop:]
    for one, other in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_is_not_finite_stops_before_the_step(make_supernet, make_loader, one_process) -> None:
    network = plain_network(make_supernet)
    optimizer = make_optimizer(network, list(network.parameters()), RECIPE)
    before = state(network)
    (shards,) = make_loader(steps=1).batches(0)
    shards[1][1].images[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="loss is nan"):
        train_step(network, optimizer, shards, RECIPE, image_task(), one_process, 3)
    assert all(torch.equal(parameter, before[key]) for key, parameter in network.named_parameters())
    assert not optimizer.state


def test_no_epochs_no_steps(make_supernet, make_loader, one_process) -> None:
    network = plain_network(make_supernet)
    optimizer = make_optimizer(network, list(network.parameters()), RECIPE)
    recipe = Recipe(epochs=0, learning_rate=0.1)
    assert list(fit(lambda _: network, optimizer, make_loader(), recipe, image_task(), one_process, 3)) == []


def test_bfloat16_keeps_weights_in_float32(make_supernet, make_loader, one_process) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        network = plain_network(make_supernet)
        recipe = Recipe(epochs=1, learning_rate=0.1, precision=precision)
        optimizer = make_optimizer(network, list(network.parameters()), recipe)
        (shards,) = make_loader(steps=1).batches(0)
        losses.append(train_step(network, optimizer, shards, recipe, image_task(), one_process, 3)[0])
        assert (
            {p.dtype for p in network.parameters()} == {p.grad.dtype for p in network.parameters()} == {torch.float32}
        )
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.05)


def test_dropout_is_a_function_of_step_and_shard(one_process) -> None:
    """The same masks whatever the global random state; others at another step; and that state is left alone."""
    space = nasbench_macro(8, 4, 0.125)
    images, labels = torch.randn(8, 3, 8, 8), torch.randint(4, (8,))
    shards = [(i, SimpleNamespace(images=images[4 * i : 4 * i + 4], labels=labels[4 * i : 4 * i + 4])) for i in (0, 1)]

    def loss(noise: int, draws: int) -> float:
        torch.manual_seed(0)
        network = build_network(space.decode((1,) * 8), dropout=0.5)
        optimizer = make_optimizer(network, list(network.parameters()), RECIPE)
        torch.rand(draws)
        state = torch.get_rng_state()
        value, *_ = train_step(network, optimizer, shards, RECIPE, image_task(), one_process, 2, noise)
        assert torch.equal(state, torch.get_rng_state())
        return value

    assert loss(5, draws=1) == loss(5, draws=100)
    assert loss(5, draws=1) != loss(6, draws=1)
