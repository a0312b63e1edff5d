"""The spectrum of every candidate of a supernet, as the rows that the run keeps and the report draws."""

from __future__ import annotations

import copy
from typing import Any

import torch

from subshot.supernet.network import ChainSupernet
from subshot.supernet.spectrum import measure_spectrum
from subshot.train.evaluate import recalibrate_batchnorm
from subshot.train.task import PlainFront, Task

CALIBRATION_INPUTS = 32
WHITE = Task(
    inputs=lambda batch: batch,
    loss=lambda output, batch: output.square().mean(),
    correct=lambda output, batch: torch.tensor(0),
    size=len,
    front=PlainFront(lambda batch: batch),
)
"""White input is its own batch; only `inputs` is used."""


def measure_spectra(supernet: ChainSupernet, seed: int, recalibrate: bool = False) -> list[dict[str, Any]]:
    """One row a candidate: layer, op, phi, varphi, output_mean_square. The supernet is not touched.

    BatchNorm is at its initial statistics (0, 1), which a supernet never moves; with `recalibrate`, at those of white
    input, so that trained weights are measured behind the normalisation that they were trained with. An identity
    without BatchNorm is left out: its phi is 1 and its varphi 0.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, layer in enumerate(supernet.space.layers):
        shape = (layer.in_channels, layer.size, layer.size)
        for choice, op in enumerate(layer.ops):
            if not supernet.block(number, choice).last_bns():
                continue
            block = copy.deepcopy(supernet.block(number, choice)).cpu()
            if recalibrate:
                recalibrate_batchnorm(block, [torch.randn(CALIBRATION_INPUTS, *shape, generator=generator)], WHITE)
            spectrum = measure_spectrum(block, shape, generator)
            rows.append(
                {
                    "layer": layer.name,
                    "op": op.name,
                    "phi": spectrum.phi,
                    "varphi": spectrum.varphi,
                    "output_mean_square": spectrum.output_mean_square,
                }
            )
    return rows
