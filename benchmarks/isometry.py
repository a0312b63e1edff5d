"""How isometric is each construction, and how fair to the candidates of a layer? Measured spectra, no belief.

    python benchmarks/isometry.py [--spaces nasbench-macro,mobilenetv2,shufflenetv2] [--extremes]

For every space (64 pixels, half width; NAS-Bench-Macro as it is), activation and construction, over all candidates
of all
layers at initialisation: the mean and the largest deviation of phi (mean eigenvalue of J J^T) from 1, varphi (variance)
relative to phi squared, and two fairness figures, each a mean over layers of largest minus smallest candidate: the
spread of phi, and of the output's mean square. --extremes adds the smallest and largest singular value of the middle
layer's candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import tyro

from subshot.supernet import SPACES
from subshot.supernet.chain import IDENTITY, ChainSpace
from subshot.supernet.isometry import CONSTRUCTIONS, Construction, initialise
from subshot.supernet.network import ChainSupernet
from subshot.supernet.spectrum import Spectrum, measure_spectrum


@dataclass(frozen=True)
class Arguments:
    spaces: str = "nasbench-macro,mobilenetv2,shufflenetv2"
    seed: int = 0
    extremes: bool = False


def spectra(
    space: ChainSpace, activation: str, construction: Construction, seed: int, extremes: bool
) -> list[list[Spectrum]]:
    """[layer][candidate], identities left out."""
    generator = torch.Generator().manual_seed(seed)
    supernet = ChainSupernet(space, activation=activation)
    initialise(supernet, construction, generator)
    middle = len(space.layers) // 2
    return [
        [
            measure_spectrum(
                supernet.block(number, choice),
                (layer.in_channels, layer.size, layer.size),
                generator,
                extremes and number == middle,
            )
            for choice, op in enumerate(layer.ops)
            if op.name != IDENTITY
        ]
        for number, layer in enumerate(space.layers)
    ]


def spread(rows: list[list[Spectrum]], name: str) -> float:
    """Mean over layers of the largest minus the smallest candidate."""
    values = [[getattr(spectrum, name) for spectrum in row] for row in rows]
    return float(np.mean([max(row) - min(row) for row in values]))


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    header = f"{'space':16}{'activation':13}{'construction':14}{'phi':>7}{'max|phi-1|':>12}{'varphi/phi2':>13}"
    print(header + f"{'spread phi':>12}{'spread out':>12}")
    for name in arguments.spaces.split(","):
        space = SPACES[name](32, 10, 1.0, 0) if name == "nasbench-macro" else SPACES[name](64, 10, 0.5, 1)
        for activation in (space.activation, "scaled_tanh"):
            for construction in CONSTRUCTIONS:
                rows = spectra(space, activation, construction, arguments.seed, arguments.extremes)
                flat = [spectrum for row in rows for spectrum in row]
                phi = np.array([spectrum.phi for spectrum in flat])
                varphi = np.mean([spectrum.varphi / spectrum.phi**2 for spectrum in flat])
                print(
                    f"{name:16}{activation:13}{construction:14}{phi.mean():7.3f}{np.abs(phi - 1).max():12.3f}"
                    f"{varphi:13.3f}{spread(rows, 'phi'):12.3f}{spread(rows, 'output_mean_square'):12.3f}",
                    flush=True,
                )
                for spectrum in flat if arguments.extremes else ():
                    if spectrum.largest_singular is not None and spectrum.smallest_singular is not None:
                        print(
                            f"    singular values {spectrum.smallest_singular:.3f} to {spectrum.largest_singular:.3f}"
                        )


if __name__ == "__main__":
    main()
