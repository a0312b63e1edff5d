"""NASRec networks: what a spec says, run on dense features and embedded categories.

A network takes one argument, (dense [N, dense features], embedded [N, fields, embedding]), float32, and returns logits
[N]. Embedding tables are not part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from subshot.supernet.nasrec_ops import (
    ZEROS,
    Attention,
    Columns,
    DenseToSparse,
    DotProduct,
    FactorizationMachine,
    Fill,
    FullyConnected,
    Gating,
    Sum,
    Take,
    first,
    within,
    xavier,
)
from subshot.supernet.nasrec_spec import MERGER_TOKENS, BlockSpec, NasrecSpec

Inputs = tuple[Tensor, Tensor]


def token_columns(spec: NasrecSpec, block: int) -> slice:
    """The part of a weight along a block's tokens that its present output takes.

    A block's 8 merger tokens come first, then those of its operator, so that both kinds of output, with and without
    merger, are one slice of the same weight.
    """
    if block == 0:
        return first(spec.sparse_fields)
    chosen = spec.blocks[block - 1]
    start = 0 if chosen.dense_to_sparse else MERGER_TOKENS
    return slice(start, MERGER_TOKENS + (chosen.sparse_dim if chosen.sparse_ops else 0))


class Block(nn.Module):
    """One block: its operators' outputs added up, then the two mergers. Returns None for what it does not put out."""

    def __init__(self, spec: NasrecSpec, block: BlockSpec, take: Take, norm: bool, skip: bool) -> None:
        super().__init__()
        self.block = block
        embedding, dim = spec.embedding_dim, block.dense_dim
        dense = [Columns(j, first(spec.dense_widths[j])) for j in block.dense_in]
        tokens = [Columns(j, token_columns(spec, j)) for j in block.sparse_in]
        for op in block.dense_ops:
            own = within(op, take)
            if op == "fc":
                module: nn.Module = FullyConnected(dense, dim, own, norm)
            elif op == "dot_product":
                module = DotProduct(dense, tokens, dim, embedding, own, norm, skip)
            else:
                left = {j: spec.dense_widths[j] for j in block.left}
                right = {j: spec.dense_widths[j] for j in block.right}
                module = (Gating if op == "gating" else Sum)(left, right, dim, own, norm, skip)
            self.add_module(op, module)
        for op in block.sparse_ops:
            if op == "efc":
                self.add_module(op, FullyConnected(tokens, block.sparse_dim, within(op, take), norm))
            else:
                self.add_module(op, Attention(tokens, block.sparse_dim, embedding, within(op, take), norm))
        if block.dense_to_sparse:
            own = within("dense_to_sparse", take)
            self.dense_to_sparse = DenseToSparse(dim, MERGER_TOKENS, embedding, own, norm, skip)
        if block.fm:
            self.fm = FactorizationMachine(dim, embedding, within("fm", take), norm, skip)

    def forward(self, dense: list[Tensor | None], tokens: list[Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
        block = self.block
        wide = self._dense(dense, tokens)
        many: Tensor | None = None
        for op in block.sparse_ops:
            out = getattr(self, op)(_chosen(tokens, block.sparse_in))
            many = out if many is None else many + out
        merged = None if not block.dense_to_sparse else self.dense_to_sparse(wide)
        if block.fm:
            crossed = self.fm(many)
            wide = crossed if wide is None else wide + crossed
        if merged is not None:
            many = merged if many is None else torch.cat((merged, many), dim=-1)
        return wide, many

    def _dense(self, dense: list[Tensor | None], tokens: list[Tensor | None]) -> Tensor | None:
        block, total = self.block, None
        for op in block.dense_ops:
            module = getattr(self, op)
            if op == "fc":
                out = module(_chosen(dense, block.dense_in))
            elif op == "dot_product":
                out = module(_chosen(dense, block.dense_in), _chosen(tokens, block.sparse_in))
            else:
                out = module(_chosen(dense, block.left), _chosen(dense, block.right))
            total = out if total is None else total + out
        return total


def _chosen(tensors: list[Tensor | None], indices: tuple[int, ...]) -> list[Tensor]:
    found = []
    for index in indices:
        tensor = tensors[index]
        assert tensor is not None, "a pruned spec reads nothing that is not there"
        found.append(tensor)
    return found


class Classifier(nn.Module):
    """The linear layer from the last block's dense tensor and flattened tokens to the logit."""

    def __init__(self, spec: NasrecSpec, take: Take) -> None:
        super().__init__()
        last = spec.blocks[-1]
        fill = xavier(last.dense_width + last.tokens * spec.embedding_dim, 1)
        self.dense = self.tokens = None
        if last.dense_width:
            self.dense = take("dense", (first(1), first(last.dense_width)), fill)
        if last.tokens:
            columns = token_columns(spec, len(spec.blocks))
            self.tokens = take("tokens", (first(spec.embedding_dim), columns), fill)
        self.bias = take("bias", (first(1),), ZEROS)

    def forward(self, dense: Tensor | None, tokens: Tensor | None) -> Tensor:
        logits: Tensor = self.bias
        if self.dense is not None:
            assert dense is not None
            logits = logits + dense @ self.dense[0]
        if self.tokens is not None:
            assert tokens is not None
            logits = logits + tokens.flatten(1) @ self.tokens.flatten()
        return logits


class NasrecNetwork(nn.Module):
    """The network of a pruned spec, its weights taken from `take`.

    skip: projections between equal widths are left out, as in the published subnets; off, they are all there, which is
    how a supernet finds out about every weight that some path reads.
    """

    def __init__(self, spec: NasrecSpec, take: Take, layer_norm: bool, skip: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.layer_norm = layer_norm
        self.blocks = nn.ModuleList(
            Block(spec, block, within(f"blocks.{index}", take), layer_norm, skip)
            for index, block in enumerate(spec.blocks)
        )
        self.classifier = Classifier(spec, within("classifier", take))

    def forward(self, inputs: Inputs) -> Tensor:
        features, embedded = inputs
        dense: list[Tensor | None] = [features]
        tokens: list[Tensor | None] = [embedded.transpose(1, 2).contiguous()]
        for block in self.blocks:
            wide, many = block(dense, tokens)
            dense.append(wide)
            tokens.append(many)
        logits: Tensor = self.classifier(dense[-1], tokens[-1])
        return logits


def new_weights(generator: torch.Generator | None) -> Take:
    """Weights of their own, filled on the CPU with the generator's numbers (without one: with torch's own)."""

    def take(name: str, index: tuple[slice, ...], fill: Fill) -> nn.Parameter:
        weight = torch.full([part.stop - part.start for part in index], fill.value)
        if fill.bound:
            weight.uniform_(-fill.bound, fill.bound, generator=generator)
        return nn.Parameter(weight)

    return take


def build_nasrec(spec: NasrecSpec, generator: torch.Generator | None, layer_norm: bool = False) -> NasrecNetwork:
    """A stand-alone network, to be trained from scratch and deployed: published ones have no layer normalisation.

    Linear layers and attention begin at Xavier's uniform, biases at 0.
    """
    return NasrecNetwork(spec, new_weights(generator), layer_norm)
