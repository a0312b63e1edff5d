"""The weights of a sliced supernet, laid out for the masked one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from subshot.supernet.nasrec_masked import MaskedBlock, MaskedLinear, MaskedSupernet
from subshot.supernet.nasrec_spec import MERGER_TOKENS
from subshot.supernet.nasrec_supernet import NasrecSupernet


@torch.no_grad()
def copy_weights(sliced: NasrecSupernet, target: MaskedSupernet) -> None:
    """Makes the masked supernet compute with the sliced one's weights, as far as it has them.

    Both must be of one space, with layer normalisation on in both or in neither. The square of `gating` is laid out
    for every pair of a right and a left; what a narrow right would only multiply by its padding has no place.
    """
    values = {name: weight.detach() for name, weight in sliced.full.named_parameters()}
    for parameter in target.parameters():
        parameter.zero_()
    for index, module in enumerate(target.blocks):
        assert isinstance(module, MaskedBlock)
        prefix = f"blocks.{index}."
        own = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
        _copy_block(module, own)
    embedding = sliced.space.embedding_dim
    tokens = _operator_first(values["classifier.tokens"]).t().flatten()
    assert len(tokens) % embedding == 0
    target.classifier.weight.copy_(torch.cat((values["classifier.dense"][0], tokens))[None])
    target.classifier.bias.copy_(values["classifier.bias"])


def _operator_first(columns: Tensor) -> Tensor:
    """Merger tokens are the first columns of a sliced weight, and the last of a block's place in a masked one."""
    return torch.cat((columns[:, MERGER_TOKENS:], columns[:, :MERGER_TOKENS]), dim=1)


def _starts(widths: list[int]) -> list[int]:
    return [sum(widths[:j]) for j in range(len(widths))]


def _copy_block(block: MaskedBlock, own: dict[str, Tensor]) -> None:
    if hasattr(block, "fc"):
        _columns(block.fc.linear, own, "fc.out", block.widths)
        _rest(block.fc, own, "fc.out", "fc.out.norm")
    if hasattr(block, "dot_dense"):
        _columns(block.dot_dense.linear, own, "dot_product.dense", block.widths)
        _rest(block.dot_dense, own, "dot_product.dense", "dot_product.dense.norm")
        _columns(block.dot_tokens.linear, own, "dot_product.tokens", block.fields, tokens=True)
        _rest(block.dot_tokens, own, "dot_product.tokens", "dot_product.tokens.norm")
        block.dot_out.linear.weight.copy_(own["dot_product.out.from_0"])
        _rest(block.dot_out, own, "dot_product.out", "dot_product.norm")
    if hasattr(block, "gate"):
        _copy_gate(block, own)
        _columns(block.gating_out.linear, own, "gating.out", block.widths)
        _rest(block.gating_out, own, "gating.out", "gating.norm")
    if hasattr(block, "sum_out"):
        _columns(block.sum_out.linear, own, "sum.out", block.widths)
        _rest(block.sum_out, own, "sum.out", "sum.norm")
    if hasattr(block, "efc"):
        _columns(block.efc.linear, own, "efc.out", block.fields, tokens=True)
        _rest(block.efc, own, "efc.out", "efc.out.norm")
    if hasattr(block, "heads"):
        _copy_attention(block, own)
    block.fm.linear.weight.copy_(own["fm.out.from_0"])
    _rest(block.fm, own, "fm.out", "fm.out.norm")
    _copy_to_sparse(block, own)


def _columns(linear: nn.Linear, own: dict[str, Tensor], name: str, widths: list[int], tokens: bool = False) -> None:
    """Each block's weight to its place in the concatenation; padding beyond a block's width has none."""
    for j, (start, width) in enumerate(zip(_starts(widths), widths, strict=True)):
        part = own[f"{name}.from_{j}"]
        part = _operator_first(part) if tokens and j else part
        linear.weight[:, start : start + width] = part[:, :width]


def _rest(layer: MaskedLinear, own: dict[str, Tensor], linear: str, norm: str) -> None:
    if layer.linear.bias is not None:
        layer.linear.bias.copy_(own[f"{linear}.bias"])
    if layer.norm is not None:
        layer.norm.weight.copy_(own[f"{norm}.weight"])
        layer.norm.bias.copy_(own[f"{norm}.bias"])


def _copy_gate(block: MaskedBlock, own: dict[str, Tensor]) -> None:
    starts = _starts(block.widths)
    for right, height in zip(starts, block.widths, strict=True):
        block.gate.bias[right : right + height] = own["gating.gate.bias"][:height]
        for j, (left, width) in enumerate(zip(starts, block.widths, strict=True)):
            square = own[f"gating.gate.from_{j}"]
            block.gate.weight[right : right + height, left : left + width] = square[:height, :width]


def _copy_attention(block: MaskedBlock, own: dict[str, Tensor]) -> None:
    _columns(block.attention_tokens.linear, own, "attention.tokens", block.fields, tokens=True)
    _rest(block.attention_tokens, own, "attention.tokens", "attention.tokens.norm")
    heads = block.heads
    heads.in_proj_weight.copy_(own["attention.heads.in_weight"])
    heads.in_proj_bias.copy_(own["attention.heads.in_bias"])
    heads.out_proj.weight.copy_(own["attention.heads.out_weight"])
    heads.out_proj.bias.copy_(own["attention.heads.out_bias"])
    for name, norm in (("first_norm", block.first_norm), ("second_norm", block.second_norm)):
        norm.weight.copy_(own[f"attention.{name}.weight"])
        norm.bias.copy_(own[f"attention.{name}.bias"])
    for name, layer in (("first", block.first), ("second", block.second)):
        layer.weight.copy_(own[f"attention.{name}.from_0"])
        layer.bias.copy_(own[f"attention.{name}.bias"])


def _copy_to_sparse(block: MaskedBlock, own: dict[str, Tensor]) -> None:
    """The outputs are numbered [embedding, tokens] in the sliced weight, [tokens, embedding] in the masked one."""

    def renumbered(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (block.embedding, MERGER_TOKENS)).transpose(0, 1).flatten(0, 1)

    layer = block.to_sparse
    layer.linear.weight.copy_(renumbered(own["dense_to_sparse.out.from_0"]))
    if layer.linear.bias is not None:
        layer.linear.bias.copy_(renumbered(own["dense_to_sparse.out.bias"]))
    if layer.norm is not None:
        layer.norm.weight.copy_(renumbered(own["dense_to_sparse.out.norm.weight"]))
        layer.norm.bias.copy_(renumbered(own["dense_to_sparse.out.norm.bias"]))
