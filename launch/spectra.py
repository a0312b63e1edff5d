"""The spectrum of every candidate of a supernet, as the rows that the run keeps and the report draws."""

from __future__ import annotations

from typing import Any

import torch

from subshot.supernet.network import ChainSupernet
from subshot.supernet.spectrum import measure_spectrum


def measure_spectra(supernet: ChainSupernet, seed: int) -> list[dict[str, Any]]:
    """One row a candidate: layer, op, phi, varphi, output_mean_square. BatchNorm at its present, un-recalibrated
    statistics.

    An identity without BatchNorm is left out: its phi is 1 and its varphi 0.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, layer in enumerate(supernet.space.layers):
        for choice, op in enumerate(layer.ops):
            block = supernet.block(number, choice)
            if not block.last_bns():
                continue
            spectrum = measure_spectrum(block, (layer.in_channels, layer.size, layer.size), generator)
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
