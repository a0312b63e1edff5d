"""A chosen NASRec network, block by block, and the removal of what no classifier ever reads.

Every block puts out a dense tensor [N, width] and a sparse one [N, tokens, embedding]. Index 0 is the raw input, index
k the output of block k (counted from 1). A block holds operators and two mergers (facebookresearch/NasRec @79bf6f9,
nasrec/supernet/supernet.py):

- dense operators: `fc` reads dense_in; `dot_product` reads dense_in and sparse_in; `gating` and `sum` read left, right;
- sparse operators: `efc` and `attention` read sparse_in;
- `fm` adds a factorisation machine of the block's sparse operator to its dense output;
- `dense_to_sparse` puts 8 tokens, made from the block's dense operator, beside its sparse output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

MERGER_TOKENS = 8
DENSE_OPS = ("fc", "dot_product", "gating", "sum")
SPARSE_OPS = ("attention", "efc")
BINARY_OPS = ("gating", "sum")
NONE = "none"


def dot_product_tokens(dense_dim: int) -> int:
    """The sparse tokens among which `dot_product` of that width takes its pairs."""
    return round(math.sqrt(2 * dense_dim))


def pairs(tokens: int) -> int:
    """Pairs among that many sparse tokens and the dense one."""
    return tokens * (tokens + 1) // 2


@dataclass(frozen=True)
class BlockSpec:
    """One block. What is not computed is empty: no operators, no inputs, width 0.

    A searched block has at most one dense and one sparse operator and one left and right; the full path of the warm-up
    has them all, and sums the operators' outputs.
    """

    dense_ops: tuple[str, ...] = ()
    dense_dim: int = 0
    dense_in: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    sparse_ops: tuple[str, ...] = ()
    sparse_dim: int = 0
    """Tokens that the sparse operator puts out."""
    sparse_in: tuple[int, ...] = ()
    dense_to_sparse: bool = False
    fm: bool = False

    @property
    def dense_width(self) -> int:
        return self.dense_dim if self.dense_ops or self.fm else 0

    @property
    def tokens(self) -> int:
        return (self.sparse_dim if self.sparse_ops else 0) + (MERGER_TOKENS if self.dense_to_sparse else 0)


@dataclass(frozen=True)
class NasrecSpec:
    """What a builder needs to make the network; equal networks have equal specs. The classifier reads the last
    block."""

    dense_features: int
    sparse_fields: int
    embedding_dim: int
    blocks: tuple[BlockSpec, ...]

    @cached_property
    def dense_widths(self) -> tuple[int, ...]:
        """Widths of the dense tensors 0..num_blocks; 0 where there is none."""
        return (self.dense_features, *(block.dense_width for block in self.blocks))

    @cached_property
    def token_counts(self) -> tuple[int, ...]:
        """Tokens of the sparse tensors 0..num_blocks; 0 where there is none."""
        return (self.sparse_fields, *(block.tokens for block in self.blocks))


def pruned(spec: NasrecSpec) -> NasrecSpec:
    """The network without empty inputs and without what the classifier does not depend on.

    An operator with nothing to read puts out nothing: `fc` without dense input, `gating` and `sum` with an empty side,
    `efc`, `attention` and `dot_product` without tokens. `dot_product` needs a dense input too, unless the data have no
    dense features at all; its dense token is then zero.
    """
    return replace(spec, blocks=tuple(_live(_without_empty(spec.blocks, spec.dense_features))))


def _without_empty(blocks: Sequence[BlockSpec], dense_features: int) -> list[BlockSpec]:
    """From the input on: inputs that carry nothing are dropped, then operators that read nothing."""
    dense_there, sparse_there = [dense_features > 0], [True]
    found = []
    for block in blocks:
        dense_in = tuple(j for j in block.dense_in if dense_there[j])
        sparse_in = tuple(j for j in block.sparse_in if sparse_there[j])
        left = tuple(j for j in block.left if dense_there[j])
        right = tuple(j for j in block.right if dense_there[j])
        reads = {
            "fc": bool(dense_in),
            "dot_product": bool(sparse_in) and (bool(dense_in) or dense_features == 0),
            "gating": bool(left and right),
            "sum": bool(left and right),
        }
        dense_ops = tuple(op for op in block.dense_ops if reads[op])
        sparse_ops = block.sparse_ops if sparse_in else ()
        kept = BlockSpec(
            dense_ops=dense_ops,
            dense_dim=block.dense_dim,
            dense_in=dense_in,
            left=left,
            right=right,
            sparse_ops=sparse_ops,
            sparse_dim=block.sparse_dim,
            sparse_in=sparse_in,
            dense_to_sparse=block.dense_to_sparse and bool(dense_ops),
            fm=block.fm and bool(sparse_ops),
        )
        dense_there.append(kept.dense_width > 0)
        sparse_there.append(kept.tokens > 0)
        found.append(kept)
    return found


def _live(blocks: Sequence[BlockSpec]) -> list[BlockSpec]:
    """From the classifier back: of each block, what the outputs that are read depend on."""
    dense_read, sparse_read = {len(blocks)}, {len(blocks)}
    found = []
    for number, block in reversed(list(enumerate(blocks, start=1))):
        dense_to_sparse = block.dense_to_sparse and number in sparse_read
        fm = block.fm and number in dense_read
        dense_ops = block.dense_ops if number in dense_read or dense_to_sparse else ()
        sparse_ops = block.sparse_ops if number in sparse_read or fm else ()
        binary = any(op in BINARY_OPS for op in dense_ops)
        kept = BlockSpec(
            dense_ops=dense_ops,
            dense_dim=block.dense_dim if dense_ops or fm else 0,
            dense_in=block.dense_in if any(op not in BINARY_OPS for op in dense_ops) else (),
            left=block.left if binary else (),
            right=block.right if binary else (),
            sparse_ops=sparse_ops,
            sparse_dim=block.sparse_dim if sparse_ops else 0,
            sparse_in=block.sparse_in if sparse_ops or "dot_product" in dense_ops else (),
            dense_to_sparse=dense_to_sparse,
            fm=fm,
        )
        dense_read.update(kept.dense_in, kept.left, kept.right)
        sparse_read.update(kept.sparse_in)
        found.append(kept)
    return found[::-1]
