"""The choices of scored networks as factors with levels, for search/marginal_effects.py, with names to be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subshot.search.marginal_effects import OFF
from subshot.supernet.chain import ChainSpace
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.nasrec_spec import BINARY_OPS, BlockSpec
from subshot.supernet.space import Decision, Genotype, SearchSpace

OP_NAMES = {"fc": "FC", "dot_product": "dot product", "gating": "gating", "sum": "sum", "efc": "EFC"}
"""NASRec's operators, as a page names them."""
MOST_LEVELS = 8
"""A decision of more numbers than these is told by RANGES ranges of them."""
RANGES = 4


@dataclass(frozen=True)
class Factor:
    """group: stage or block. name: what is decided there. place: both, as a sentence has them. levels: names, by index.
    taken: [networks], the level of each network, or OFF. macs: of each level, where they are exact and do not depend on
    the other factors."""

    group: str
    name: str
    place: str
    levels: tuple[str, ...]
    taken: NDArray[np.int64]
    macs: tuple[float, ...] | None = None

    @property
    def reference(self) -> int:
        """The level beside which the others stand: of those that occur the one with the fewest MACs, or the first."""
        present = sorted(set(self.taken.tolist()) - {OFF})
        if not present:
            return 0
        macs = self.macs
        return present[0] if macs is None else min(present, key=lambda level: macs[level])


def factors_of(space: SearchSpace, genotypes: Sequence[Genotype]) -> list[Factor]:
    """Of canonical genotypes; decisions that cannot differ are left out."""
    if isinstance(space, NasrecSpace):
        return nasrec_factors(space, genotypes)
    taken = np.asarray(genotypes, dtype=np.int64)
    found = []
    for column, decision in enumerate(space.decisions):
        if len(decision.choices) < 2:
            continue
        if isinstance(space, ChainSpace):
            macs = space.costs["macs"].table[column]
            group, name = _stage_and_layer(decision.name)
            place = f"{group}, {name}" if name else group
            found.append(Factor(group, name, place, decision.choices, taken[:, column], macs))
        else:
            found.append(_plain(decision, taken[:, column]))
    return found


def _stage_and_layer(name: str) -> tuple[str, str]:
    """`stage 2` and `layer 1`, counted from 1 as people count, of `stage2.layer0`."""
    found = re.fullmatch(r"stage(\d+)\.layer(\d+)", name)
    return (f"stage {found[1]}", f"layer {int(found[2]) + 1}") if found else (name, "")


def _plain(decision: Decision, taken: NDArray[np.int64]) -> Factor:
    """A decision of any other space; many numbers become a few ranges of them."""
    group, _, name = decision.name.rpartition(".")
    levels = decision.choices
    if len(levels) > MOST_LEVELS and all(level.isdigit() for level in levels):
        size = -(-len(levels) // RANGES)
        taken = taken // size
        ranges = [levels[first : first + size] for first in range(0, len(levels), size)]
        levels = tuple(f"{part[0]} to {part[-1]}" if len(part) > 1 else part[0] for part in ranges)
    return Factor(group or "the cell", name, decision.name, levels, taken)


def nasrec_factors(space: NasrecSpace, genotypes: Sequence[Genotype]) -> list[Factor]:
    """Operators, sizes and mergers of each block, and a factor for each earlier output that it may read. What the
    classifier does not depend on is OFF."""
    blocks = [space.decode(genotype).blocks for genotype in genotypes]
    found = []
    for number in range(1, space.num_blocks + 1):
        mine = [spec[number - 1] for spec in blocks]
        found += [factor for factor in _of_block(space, number, mine) if len(set(factor.taken.tolist()) - {OFF}) > 1]
    return found


def _of_block(space: NasrecSpace, number: int, blocks: Sequence[BlockSpec]) -> list[Factor]:
    group = f"block {number}"

    def factor(name: str, levels: Sequence[str], taken: Sequence[int]) -> Factor:
        return Factor(group, name, f"{group}, {name}", tuple(levels), np.asarray(taken, dtype=np.int64))

    def operator(ops: tuple[str, ...], choices: tuple[str, ...]) -> int:
        return choices.index(ops[0]) if ops else OFF

    def size(dim: int, dims: tuple[int, ...]) -> int:
        return dims.index(dim) if dim else OFF

    def alive(block: BlockSpec) -> bool:
        return bool(block.dense_width or block.tokens)

    def reads_dense(block: BlockSpec, source: int) -> int:
        if not block.dense_ops:
            return OFF
        sides = (*block.left, *block.right) if block.dense_ops[0] in BINARY_OPS else block.dense_in
        return int(source in sides)

    found = [
        factor(
            "dense operator",
            list(map(_spoken, space.dense_ops)),
            [operator(b.dense_ops, space.dense_ops) for b in blocks],
        ),
        factor("dense width", list(map(str, space.dense_dims)), [size(b.dense_dim, space.dense_dims) for b in blocks]),
        factor(
            "sparse operator",
            list(map(_spoken, space.sparse_ops)),
            [operator(b.sparse_ops, space.sparse_ops) for b in blocks],
        ),
        factor(
            "sparse tokens", list(map(str, space.sparse_dims)), [size(b.sparse_dim, space.sparse_dims) for b in blocks]
        ),
    ]
    for source in range(number):
        said = "the input" if source == 0 else f"block {source}"
        dense = [reads_dense(b, source) for b in blocks]
        sparse = [int(source in b.sparse_in) if b.sparse_in else OFF for b in blocks]
        found += [
            factor(f"dense operator reads {said}", ("no", "yes"), dense),
            factor(f"sparse inputs read {said}", ("no", "yes"), sparse),
        ]
    found += [
        factor("FM", ("off", "on"), [int(b.fm) if alive(b) else OFF for b in blocks]),
        factor("8 dense tokens", ("off", "on"), [int(b.dense_to_sparse) if alive(b) else OFF for b in blocks]),
    ]
    return found


def _spoken(op: str) -> str:
    return OP_NAMES.get(op, op)
