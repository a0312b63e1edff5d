"""Which parameters of a chain supernet train, by module identity.

- `last_bn`: scale and shift of the last BatchNorm of every candidate, and of the layer branches. BNNAS's released code.
- `all_bn`: every BatchNorm. Dynamical-isometry NAS.
- `bn_classifier`: every BatchNorm and the classifier.
- `all`: everything, as in SPOS; a layer branch's 1x1 shortcut stays frozen even then.

Frozen parameters have requires_grad False: no gradient is computed for them, and no optimiser holds state for them.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from subshot.supernet.network import ChainSupernet, LayerBranch

Trainable = Literal["last_bn", "all_bn", "bn_classifier", "all"]


def select_trainable(supernet: ChainSupernet, mode: Trainable) -> list[nn.Parameter]:
    """Sets requires_grad of every parameter, and returns those that train, in the order of `parameters()`."""
    chosen: set[nn.Parameter] = set()
    for module in supernet.modules():
        is_bn = isinstance(module, nn.BatchNorm2d)
        if mode == "all" or (is_bn and mode in ("all_bn", "bn_classifier")):
            chosen.update(module.parameters(recurse=False))
        if mode == "last_bn" and isinstance(module, LayerBranch):
            chosen.update(module.bn.parameters())
    if mode == "last_bn":
        for number, layer in enumerate(supernet.space.layers):
            for choice in range(len(layer.ops)):
                for bn in supernet.block(number, choice).last_bns():
                    chosen.update(bn.parameters())
    if mode == "bn_classifier":
        chosen.update(supernet.classifier.parameters())
    for module in supernet.modules():
        if isinstance(module, LayerBranch):
            chosen.difference_update(module.shortcut.parameters())
    for parameter in supernet.parameters():
        parameter.requires_grad_(parameter in chosen)
    return [parameter for parameter in supernet.parameters() if parameter in chosen]


def parameter_groups(model: nn.Module, parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Two optimiser groups: weights of convolutions and linear layers decay; BatchNorm scales and shifts do not.

    The classifier's bias decays with its weight, as in SPOS's and BNNAS's recipes for the classifier.
    """
    decaying = {
        parameter
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        for parameter in module.parameters(recurse=False)
    }
    return [
        {"params": [p for p in parameters if p in decaying], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p not in decaying], "weight_decay": 0.0},
    ]
