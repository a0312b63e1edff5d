"""The operators of a NASRec block, as modules whose weights come from elsewhere.

A network and a path through a supernet are built by the same code: every weight is asked for by its name and the slice
of the largest weight that it is (`Take`), and either made anew or a view. Inside a network sparse tensors lie as
[N, embedding, tokens], so that the token axis, along which NASRec projects and normalises, is the last one.

Source of the steps and their order: facebookresearch/NasRec @79bf6f9, nasrec/supernet/modules.py. Where this differs: a
projection has one weight for each block that it reads, and adds up their products, instead of one weight for their
concatenation; the numbers are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.supernet.nasrec_cost import HEADS
from subshot.supernet.nasrec_spec import dot_product_tokens, pairs

ATTENTION_GAMMA = 0.17


@dataclass(frozen=True)
class Fill:
    """How a new weight is filled: uniform in [-bound, bound], or, where bound is 0, with one value."""

    bound: float = 0.0
    value: float = 0.0


ZEROS, ONES = Fill(), Fill(value=1.0)

Take = Callable[[str, tuple[slice, ...], Fill], nn.Parameter]
"""(name, slice of each axis, how to fill a new one) -> the parameter, of the slice's shape."""


def within(prefix: str, take: Take) -> Take:
    """`take` for a submodule of that name."""
    return lambda name, index, fill: take(f"{prefix}.{name}", index, fill)


def first(count: int) -> slice:
    return slice(0, count)


def xavier(fan_in: int, fan_out: int) -> Fill:
    """Glorot and Bengio (2010), equation 16."""
    return Fill(bound=math.sqrt(6 / (fan_in + fan_out)))


@dataclass(frozen=True)
class Columns:
    """What a projection reads of one block: the columns of that block's weight, and the block's index for its name."""

    block: int
    columns: slice

    @property
    def width(self) -> int:
        return int(self.columns.stop - self.columns.start)


class Norm(nn.Module):
    """Layer normalisation over the last axis, as wide as it is at present."""

    def __init__(self, width: int, take: Take, gamma: float = 1.0) -> None:
        super().__init__()
        self.weight = take("weight", (first(width),), Fill(value=gamma))
        self.bias = take("bias", (first(width),), ZEROS)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)


class Projection(nn.Module):
    """y = norm(bias + sum over the blocks that it reads of x_j W_j^T), along the last axis.

    bias None: where no norm follows. Xavier's bound is that of the concatenated weights.
    """

    def __init__(self, reads: Sequence[Columns], out: int, take: Take, norm: bool, bias: bool | None = None) -> None:
        super().__init__()
        fill = xavier(sum(read.width for read in reads), out)
        self.names = tuple(f"from_{read.block}" for read in reads)
        for name, read in zip(self.names, reads, strict=True):
            self.register_parameter(name, take(name, (first(out), read.columns), fill))
        self.bias = take("bias", (first(out),), ZEROS) if (not norm if bias is None else bias) else None
        self.norm = Norm(out, within("norm", take)) if norm else None

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        weight = getattr(self, self.names[0])
        total = F.linear(inputs[0], weight, self.bias)
        for name, x in zip(self.names[1:], inputs[1:], strict=True):
            flat = torch.addmm(total.flatten(0, -2), x.flatten(0, -2), getattr(self, name).t())
            total = flat.view(total.shape)
        return total if self.norm is None else self.norm(total)


class FullyConnected(nn.Module):
    """Projection, norm, ReLU: `fc` on dense tensors and `efc` along the token axis of sparse ones."""

    def __init__(self, reads: Sequence[Columns], out: int, take: Take, norm: bool) -> None:
        super().__init__()
        self.out = Projection(reads, out, within("out", take), norm)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return F.relu(self.out(inputs))


class DotProduct(nn.Module):
    """All pairwise products of round(sqrt(2 dim)) tokens and a dense one, projected to `dim`; no activation.

    The dense inputs become one token by a projection, and the sparse ones that many tokens, unless they have that
    width already. Pairs are ordered by their later member, the dense token being the first, so those among fewer
    tokens come first.
    """

    def __init__(
        self, dense: Sequence[Columns], tokens: Sequence[Columns], dim: int, embedding: int, take: Take, norm: bool,
        skip: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.count = dot_product_tokens(dim)
        width, number = sum(read.width for read in dense), sum(read.width for read in tokens)
        self.dense = self.tokens = self.out = self.norm = None
        if width and not (skip and width == embedding):
            self.dense = Projection(dense, embedding, within("dense", take), norm)
        if not (skip and number == self.count):
            self.tokens = Projection(tokens, self.count, within("tokens", take), norm)
        if not (skip and pairs(self.count) == dim):
            below = [Columns(0, first(pairs(self.count)))]
            self.out = Projection(below, dim, within("out", take), norm=False, bias=not norm)
        if norm:
            self.norm = Norm(dim, within("norm", take))

    def forward(self, dense: Sequence[Tensor], tokens: Sequence[Tensor]) -> Tensor:
        many = torch.cat(tuple(tokens), dim=-1) if self.tokens is None else self.tokens(tokens)
        if not dense:
            one = many.new_zeros(many.shape[:2])
        else:
            one = torch.cat(tuple(dense), dim=-1) if self.dense is None else self.dense(dense)
        together = torch.cat((one.unsqueeze(-1), many), dim=-1)
        dots = torch.bmm(together.transpose(1, 2), together)
        later, earlier = torch.tril_indices(self.count + 1, self.count + 1, offset=-1, device=dots.device)
        below = dots.flatten(1).index_select(1, later * (self.count + 1) + earlier)
        if self.out is not None:
            below = self.out([below])
        return below if self.norm is None else self.norm(below)


class Gating(nn.Module):
    """right * sigmoid(left W^T + bias), both zero-padded to the wider of them, W square; no activation.

    A projection to `dim` follows unless a single result has that width, then the norm. Of several lefts and rights (the
    full path), the gate is the sum over the lefts, one for all rights, and the projections of all rights are added.
    """

    def __init__(
        self, left: dict[int, int], right: dict[int, int], dim: int, take: Take, norm: bool, skip: bool
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = max(*left.values(), *right.values())
        whole = first(self.width)
        self.gate = Projection([Columns(j, whole) for j in left], self.width, within("gate", take), norm=False)
        self.out = None
        if not (skip and len(right) == 1 and self.width == dim):
            reads = [Columns(j, whole) for j in right]
            self.out = Projection(reads, dim, within("out", take), norm=False, bias=True)
        self.norm = Norm(dim, within("norm", take)) if norm else None

    def forward(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        gate = torch.sigmoid(self.gate([padded(x, self.width) for x in left]))
        gated = [padded(x, self.width) * gate for x in right]
        wide: Tensor = gated[0] if self.out is None else self.out(gated)
        return wide if self.norm is None else self.norm(wide)


class Sum(nn.Module):
    """left + right, zero-padded to the wider of them; then a projection and a norm as in `Gating`.

    Of several pairs (the full path) the projections are added.
    """

    def __init__(
        self, left: dict[int, int], right: dict[int, int], dim: int, take: Take, norm: bool, skip: bool
    ) -> None:  # fmt: skip
        super().__init__()
        self.widths = [max(pair) for pair in zip(left.values(), right.values(), strict=True)]
        self.out = None
        if not (skip and self.widths == [dim]):
            reads = [Columns(j, first(width)) for j, width in zip(right, self.widths, strict=True)]
            self.out = Projection(reads, dim, within("out", take), norm=False, bias=not norm)
        self.norm = Norm(dim, within("norm", take)) if norm else None

    def forward(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        pairs = zip(left, right, self.widths, strict=True)
        added = [padded(one, width) + padded(other, width) for one, other, width in pairs]
        wide: Tensor = added[0] if self.out is None else self.out(added)
        return wide if self.norm is None else self.norm(wide)


def padded(x: Tensor, width: int) -> Tensor:
    """x [N, at most width] with zeros up to that width."""
    return x if x.shape[1] == width else F.pad(x, (0, width - x.shape[1]))


class Heads(nn.Module):
    """Multi-head self-attention of 8 heads over tokens [N, tokens, embedding]."""

    def __init__(self, embedding: int, take: Take) -> None:
        super().__init__()
        square = (first(embedding), first(embedding))
        self.in_weight = take("in_weight", (first(3 * embedding), first(embedding)), xavier(embedding, 3 * embedding))
        self.in_bias = take("in_bias", (first(3 * embedding),), ZEROS)
        self.out_weight = take("out_weight", square, xavier(embedding, embedding))
        self.out_bias = take("out_bias", (first(embedding),), ZEROS)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, embedding = x.shape
        joined = F.linear(x, self.in_weight, self.in_bias)
        query, key, value = joined.view(count, tokens, 3, HEADS, embedding // HEADS).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(query, key, value)
        return F.linear(heads.transpose(1, 2).reshape(count, tokens, embedding), self.out_weight, self.out_bias)


class Attention(nn.Module):
    """Token projection, norm, self-attention, residual and norm, two linear layers, residual and norm.

    The two norms after residuals are there also where layer normalisation is off; their scales begin at 0.17. Attention
    is over the tokens that there are; the public supernet attends to its masked tokens too.
    """

    def __init__(self, reads: Sequence[Columns], out: int, embedding: int, take: Take, norm: bool) -> None:
        super().__init__()
        whole = [Columns(0, first(embedding))]
        self.tokens = Projection(reads, out, within("tokens", take), norm)
        self.heads = Heads(embedding, within("heads", take))
        self.first_norm = Norm(embedding, within("first_norm", take), ATTENTION_GAMMA)
        self.first = Projection(whole, embedding, within("first", take), norm=False)
        self.second = Projection(whole, embedding, within("second", take), norm=False)
        self.second_norm = Norm(embedding, within("second_norm", take), ATTENTION_GAMMA)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        projected = self.tokens(inputs).transpose(1, 2).contiguous()
        attended = self.first_norm(projected + self.heads(projected))
        out: Tensor = self.second_norm(attended + self.second([F.relu(self.first([attended]))]))
        return out.transpose(1, 2).contiguous()


class FactorizationMachine(nn.Module):
    """(sum over tokens)^2 - sum over tokens of squares, without the usual half, projected to `dim` where that is not
    the embedding's width; the norm belongs to the projection."""

    def __init__(self, dim: int, embedding: int, take: Take, norm: bool, skip: bool) -> None:
        super().__init__()
        self.out = None
        if not (skip and dim == embedding):
            self.out = Projection([Columns(0, first(embedding))], dim, within("out", take), norm)

    def forward(self, tokens: Tensor) -> Tensor:
        crossed = tokens.sum(dim=-1).square() - tokens.square().sum(dim=-1)
        if self.out is None:
            return crossed
        projected: Tensor = self.out([crossed])
        return projected


class DenseToSparse(nn.Module):
    """Tokens made from a dense tensor by a projection, unless it has as many elements already.

    Elements are dealt out as [embedding, tokens] here and as [tokens, embedding] in the public code: another numbering
    of the projection's outputs.
    """

    def __init__(self, dim: int, tokens: int, embedding: int, take: Take, norm: bool, skip: bool) -> None:
        super().__init__()
        self.shape = (embedding, tokens)
        self.out = None
        if not (skip and dim == tokens * embedding):
            self.out = Projection([Columns(0, first(dim))], tokens * embedding, within("out", take), norm)

    def forward(self, dense: Tensor) -> Tensor:
        wide: Tensor = dense if self.out is None else self.out([dense])
        return wide.unflatten(1, self.shape)
