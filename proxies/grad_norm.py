"""Gradient norm: the length of the loss gradient at the weights as they are.

    score = sum over convolution and linear layers of ||dL/dW_layer||_2,     higher is better

Source: Abdelfattah et al. (2021, arXiv 2101.08134); SamsungLabs/zero-cost-nas @a43bfbc. It is the sum of the layers'
norms, not the norm of all gradients together. BatchNorm in train mode, mean loss of one labelled batch.
"""

from __future__ import annotations

from torch import nn

from subshot.proxies.base import Probe, Proxy, weight_gradients


def grad_norm(model: nn.Module, probe: Probe) -> float:
    """The sum of layer norms for the first batch; a layer that the loss does not depend on adds nothing."""
    gradients = weight_gradients(model.train(), probe.batches[0], probe.loss)
    return float(sum(gradient.double().norm() for gradient in gradients if gradient is not None))


PROXY = Proxy(
    name="grad_norm",
    fn=grad_norm,
    maximize=True,
    min_batches=1,
    needs_labels=True,
    source="Abdelfattah et al. 2021, arXiv 2101.08134",
)
