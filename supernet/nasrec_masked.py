"""The NASRec supernet as the public code shares weights: full width, zero-padded inputs, masked outputs.

Written from torch's own modules and apart from `nasrec_ops`, as a check of the sliced supernet and the yardstick of its
speed. The weights can be copied from a sliced supernet. `masking` says what a path computes:

- `public`: what facebookresearch/NasRec @79bf6f9 (supernet.py, modules.py) does in supernet mode. Layer normalisation
  is over the full width, before the mask; attention has masked tokens among its keys; `dot_product` always takes its
  pairs among the tokens of the largest width; `sum` and `gating` see each input at its own place in a concatenation,
  so that left and right of `sum` meet different weights; no projection is left out where widths agree.
- `active`: the same at full width, but of the active entries only: the numbers of the extracted subnet.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.nasrec_network import Inputs
from subshot.supernet.nasrec_spec import MERGER_TOKENS, NONE, BlockSpec, NasrecSpec, dot_product_tokens, pairs
from subshot.supernet.space import Genotype

Masking = Literal["active", "public"]


class MaskedNorm(nn.LayerNorm):
    """Layer normalisation over the full width, or over the first `active` entries with zeros after them."""

    def partial(self, x: Tensor, active: int | None) -> Tensor:
        if active is None:
            full: Tensor = self(x)
            return full
        shape = (active,)
        normed = F.layer_norm(x[..., :active], shape, self.weight[:active], self.bias[:active], self.eps)
        return F.pad(normed, (0, x.shape[-1] - active))


class MaskedLinear(nn.Module):
    """A linear layer, its norm where there is one."""

    def __init__(self, read: int, out: int, norm: bool, bias: bool | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(read, out, bias=not norm if bias is None else bias)
        self.norm = MaskedNorm(out) if norm else None

    def forward(self, x: Tensor, active: int | None = None) -> Tensor:
        out: Tensor = self.linear(x)
        return out if self.norm is None else self.norm.partial(out, active)


def masked(x: Tensor, active: int) -> Tensor:
    """Zeros in the last axis from `active` on."""
    return x * (torch.arange(x.shape[-1], device=x.device) < active)


class MaskedBlock(nn.Module):
    """All operators of block `number` (from 1), as wide as they ever are."""

    def __init__(self, space: NasrecSpace, number: int, layer_norm: bool, masking: Masking) -> None:
        super().__init__()
        self.public = masking == "public"
        dim, tokens, embedding = space.dense_dims[-1], space.sparse_dims[-1], space.embedding_dim
        self.dim, self.count, self.embedding = dim, tokens, embedding
        self.norms = layer_norm
        self.widths = [space.dense_features] + [dim] * (number - 1)
        self.fields = [space.sparse_fields] + [tokens + MERGER_TOKENS] * (number - 1)
        wide, many = sum(self.widths), sum(self.fields)
        ops = {op for op in (*space.dense_ops, *space.sparse_ops) if op != NONE}
        if "fc" in ops:
            self.fc = MaskedLinear(wide, dim, layer_norm)
        if "dot_product" in ops:
            pair_tokens = dot_product_tokens(dim)
            self.dot_dense = MaskedLinear(wide, embedding, layer_norm)
            self.dot_tokens = MaskedLinear(many, pair_tokens, layer_norm)
            self.dot_out = MaskedLinear(pairs(pair_tokens), dim, layer_norm)
        if "gating" in ops:
            self.gate = nn.Linear(wide, wide)
            self.gating_out = MaskedLinear(wide, dim, layer_norm, bias=True)
        if "sum" in ops:
            self.sum_out = MaskedLinear(wide, dim, layer_norm)
        if "efc" in ops:
            self.efc = MaskedLinear(many, tokens, layer_norm)
        if "attention" in ops:
            self.attention_tokens = MaskedLinear(many, tokens, layer_norm)
            self.heads = nn.MultiheadAttention(embedding, 8, batch_first=True)
            self.first_norm, self.second_norm = nn.LayerNorm(embedding), nn.LayerNorm(embedding)
            self.first, self.second = nn.Linear(embedding, embedding), nn.Linear(embedding, embedding)
        self.fm = MaskedLinear(embedding, dim, layer_norm)
        self.to_sparse = MaskedLinear(dim, MERGER_TOKENS * embedding, layer_norm)

    def forward(
        self, dense: list[Tensor], tokens: list[Tensor], spec: NasrecSpec, block: BlockSpec
    ) -> tuple[Tensor, Tensor]:
        """dense [N, width] and tokens [N, count, embedding] of all earlier outputs, zero beyond what is active."""
        wide = dense[0].new_zeros(len(dense[0]), self.dim)
        many = dense[0].new_zeros(len(dense[0]), self.count, self.embedding)
        for op in block.dense_ops:
            wide = wide + masked(getattr(self, f"_{op}")(dense, tokens, spec, block), block.dense_dim)
        for op in block.sparse_ops:
            many = many + getattr(self, f"_{op}")(tokens, block)
        merged = many.new_zeros(len(many), MERGER_TOKENS, self.embedding)
        if block.dense_to_sparse:
            if not self.public and block.dense_dim == MERGER_TOKENS * self.embedding:
                merged = wide[:, : block.dense_dim].unflatten(1, (self.embedding, MERGER_TOKENS)).transpose(1, 2)
            else:
                merged = self.to_sparse(wide).unflatten(1, (MERGER_TOKENS, self.embedding))
        if block.fm:
            crossed = many.sum(dim=1).square() - many.square().sum(dim=1)
            if not self.public and block.dense_dim == self.embedding:
                wide = wide + F.pad(crossed, (0, self.dim - self.embedding))
            else:
                wide = wide + masked(self.fm(crossed, self._active(block.dense_dim)), block.dense_dim)
        return wide, torch.cat((many, merged), dim=1)

    def _active(self, width: int) -> int | None:
        return None if self.public else width

    @staticmethod
    def _joined(tensors: list[Tensor], chosen: tuple[int, ...], dim: int) -> Tensor:
        return torch.cat([x if j in chosen else torch.zeros_like(x) for j, x in enumerate(tensors)], dim=dim)

    def _fc(self, dense: list[Tensor], tokens: list[Tensor], spec: NasrecSpec, block: BlockSpec) -> Tensor:
        return F.relu(self.fc(self._joined(dense, block.dense_in, 1), self._active(block.dense_dim)))

    def _dot_product(self, dense: list[Tensor], tokens: list[Tensor], spec: NasrecSpec, block: BlockSpec) -> Tensor:
        count = dot_product_tokens(block.dense_dim)
        widths = [spec.dense_widths[j] for j in block.dense_in]
        if not self.public and sum(widths) == self.embedding:
            one = torch.cat([dense[j][:, :width] for j, width in zip(block.dense_in, widths, strict=True)], dim=1)
        else:
            one = self.dot_dense(self._joined(dense, block.dense_in, 1))
        if not self.public and sum(spec.token_counts[j] for j in block.sparse_in) == count:
            many = self._few_tokens(tokens, spec, block)
        else:
            projected = self.dot_tokens(self._joined(tokens, block.sparse_in, 1).transpose(1, 2), self._active(count))
            many = (projected if self.public else masked(projected, count)).transpose(1, 2)
        together = torch.cat((one.unsqueeze(1), many), dim=1)
        dots = together @ together.transpose(1, 2)
        later, earlier = torch.tril_indices(dots.shape[1], dots.shape[1], offset=-1, device=dots.device)
        below = dots[:, later, earlier]
        if not self.public and pairs(count) == block.dense_dim:
            out = F.pad(below[:, : pairs(count)], (0, self.dim - pairs(count)))
            norm = self.dot_out.norm
            return out if norm is None else norm.partial(out, block.dense_dim)
        whole: Tensor = self.dot_out(below, self._active(block.dense_dim))
        return whole

    def _few_tokens(self, tokens: list[Tensor], spec: NasrecSpec, block: BlockSpec) -> Tensor:
        """The active tokens as they are, each block's merger tokens first, up to the largest number with zeros."""
        active = []
        for j in block.sparse_in:
            if j == 0:
                active.append(tokens[0])
                continue
            source = spec.blocks[j - 1]
            if source.dense_to_sparse:
                active.append(tokens[j][:, -MERGER_TOKENS:])
            if source.sparse_ops:
                active.append(tokens[j][:, : source.sparse_dim])
        few = torch.cat(active, dim=1)
        return F.pad(few, (0, 0, 0, dot_product_tokens(self.dim) - few.shape[1]))

    def _gating(self, dense: list[Tensor], tokens: list[Tensor], spec: NasrecSpec, block: BlockSpec) -> Tensor:
        gate = torch.sigmoid(self.gate(self._joined(dense, block.left, 1)))
        gated = self._joined(dense, block.right, 1) * gate
        return self._unless_equal(gated, self.gating_out, spec, block)

    def _sum(self, dense: list[Tensor], tokens: list[Tensor], spec: NasrecSpec, block: BlockSpec) -> Tensor:
        left = self._joined(dense, block.left, 1)
        if not self.public and len(block.left) == 1:  # the left one moves to the right one's place
            (i,), (j,) = block.left, block.right
            before = sum(self.widths[:j])
            moved = dense[i][:, : self.widths[j]]
            left = F.pad(moved, (before, left.shape[1] - before - moved.shape[1]))
        return self._unless_equal(left + self._joined(dense, block.right, 1), self.sum_out, spec, block)

    def _unless_equal(self, joined: Tensor, out: MaskedLinear, spec: NasrecSpec, block: BlockSpec) -> Tensor:
        width = max(spec.dense_widths[j] for j in (*block.left, *block.right))
        if self.public or len(block.right) > 1 or width != block.dense_dim:
            projected: Tensor = out(joined, self._active(block.dense_dim))
            return projected
        before = sum(self.widths[: block.right[0]])
        same = joined[:, before : before + min(width, self.widths[block.right[0]])]
        same = F.pad(same, (0, self.dim - same.shape[1]))
        return same if out.norm is None else out.norm.partial(same, width)

    def _efc(self, tokens: list[Tensor], block: BlockSpec) -> Tensor:
        joined = self._joined(tokens, block.sparse_in, 1).transpose(1, 2)
        projected = F.relu(self.efc(joined, self._active(block.sparse_dim)))
        return masked(projected, block.sparse_dim).transpose(1, 2)

    def _attention(self, tokens: list[Tensor], block: BlockSpec) -> Tensor:
        joined = self._joined(tokens, block.sparse_in, 1).transpose(1, 2)
        projected = masked(self.attention_tokens(joined, self._active(block.sparse_dim)), block.sparse_dim)
        x = projected.transpose(1, 2)
        inactive = torch.arange(self.count, device=x.device) >= block.sparse_dim
        hidden = None if self.public else inactive.expand(len(x), -1)
        attended = self.first_norm(x + self.heads(x, x, x, key_padding_mask=hidden, need_weights=False)[0])
        out = self.second_norm(attended + self.second(F.relu(self.first(attended))))
        return masked(out.transpose(1, 2), block.sparse_dim).transpose(1, 2)


class MaskedSupernet(nn.Module):
    """The full-width supernet of a space. Takes and returns what `NasrecSupernet` does; new weights are torch's.

    A block that the classifier never reads is not computed; the public code computes it.
    """

    def __init__(self, space: NasrecSpace, masking: Masking, layer_norm: bool = True) -> None:
        super().__init__()
        self.space = space
        numbers = range(1, space.num_blocks + 1)
        self.blocks = nn.ModuleList(MaskedBlock(space, number, layer_norm, masking) for number in numbers)
        tokens = (space.sparse_dims[-1] + MERGER_TOKENS) * space.embedding_dim
        self.classifier = nn.Linear(space.dense_dims[-1] + tokens, 1)

    def forward(self, inputs: Inputs, chosen: Genotype | NasrecSpec) -> Tensor:
        spec = chosen if isinstance(chosen, NasrecSpec) else self.space.decode(chosen)
        dense, tokens = [inputs[0]], [inputs[1]]
        for module, block in zip(self.blocks, spec.blocks, strict=True):
            wide, many = module(dense, tokens, spec, block)
            dense.append(wide)
            tokens.append(many)
        logits: Tensor = self.classifier(torch.cat((dense[-1], tokens[-1].flatten(1)), dim=1))
        return logits.squeeze(1)
