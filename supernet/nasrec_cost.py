"""Exact costs of a NASRec network from its spec alone: nothing is built, nothing is run.

Conventions, for one sample, embedding tables and their look-ups not counted:

- `macs`: multiply-accumulates of projections, of the classifier, and of matrix products between activations: all
  (t + 1)^2 dot products of t tokens and the dense one, as they are computed, and both products of attention. Norms,
  activations, gates, sums and factorisation machines count 0.
- `params`: weights and biases of projections, attention and classifier, scales and shifts of layer normalisation.
- `activation_elements`: what projections, matrix products and the classifier put out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from subshot.supernet.cost import Cost
from subshot.supernet.nasrec_spec import (
    BINARY_OPS,
    MERGER_TOKENS,
    BlockSpec,
    NasrecSpec,
    dot_product_tokens,
    pairs,
)

HEADS = 8


@dataclass(frozen=True)
class LayerCost:
    """One module of the network, by name; a matrix product between activations has no parameters."""

    name: str
    macs: int
    params: int
    activation_elements: int


def network_cost(spec: NasrecSpec, layer_norm: bool) -> Cost:
    """The sum over the layers."""
    layers = network_layers(spec, layer_norm)
    return Cost(
        macs=sum(layer.macs for layer in layers),
        params=sum(layer.params for layer in layers),
        activation_elements=sum(layer.activation_elements for layer in layers),
    )


def network_layers(spec: NasrecSpec, layer_norm: bool) -> list[LayerCost]:
    """Every module with weights, and every matrix product between activations, in order of computation."""
    found: list[LayerCost] = []
    for index, block in enumerate(spec.blocks):
        for layer in _block_layers(spec, block, layer_norm):
            found.append(LayerCost(f"blocks.{index}.{layer.name}", *_numbers(layer)))
    last = spec.blocks[-1]
    read = last.dense_width + last.tokens * spec.embedding_dim
    return [*found, LayerCost("classifier", read, read + 1, 1)]


def _numbers(layer: LayerCost) -> tuple[int, int, int]:
    return layer.macs, layer.params, layer.activation_elements


def _projection(
    name: str, read: int, out: int, norm: bool, rows: int = 1, bias: bool | None = None
) -> Iterator[LayerCost]:
    """A linear layer applied to `rows` rows; bias None: where no layer normalisation follows."""
    biased = not norm if bias is None else bias
    yield LayerCost(name, rows * read * out, read * out + out * biased, rows * out)
    if norm:
        yield _norm(f"{name}.norm", out)


def _norm(name: str, width: int) -> LayerCost:
    return LayerCost(name, 0, 2 * width, 0)


def _block_layers(spec: NasrecSpec, block: BlockSpec, norm: bool) -> Iterator[LayerCost]:
    embedding, dim = spec.embedding_dim, block.dense_dim
    for op in block.dense_ops:
        if op == "fc":
            yield from _projection("fc", sum(spec.dense_widths[j] for j in block.dense_in), dim, norm)
        elif op == "dot_product":
            yield from _dot_product(spec, block, norm)
        else:
            assert op in BINARY_OPS
            yield from _binary(spec, block, op, norm)
    tokens = sum(spec.token_counts[j] for j in block.sparse_in)
    for op in block.sparse_ops:
        yield from _projection(op, tokens, block.sparse_dim, norm, rows=embedding)
        if op == "attention":
            yield from _attention(block.sparse_dim, embedding)
    if block.fm and dim != embedding:
        yield from _projection("fm", embedding, dim, norm)
    if block.dense_to_sparse and dim != MERGER_TOKENS * embedding:
        yield from _projection("dense_to_sparse", dim, MERGER_TOKENS * embedding, norm)


def _dot_product(spec: NasrecSpec, block: BlockSpec, norm: bool) -> Iterator[LayerCost]:
    embedding, dim = spec.embedding_dim, block.dense_dim
    dense = sum(spec.dense_widths[j] for j in block.dense_in)
    if dense not in (0, embedding):
        yield from _projection("dot_product.dense", dense, embedding, norm)
    tokens, wanted = sum(spec.token_counts[j] for j in block.sparse_in), dot_product_tokens(dim)
    if tokens != wanted:
        yield from _projection("dot_product.tokens", tokens, wanted, norm, rows=embedding)
    yield LayerCost("dot_product.dots", (wanted + 1) ** 2 * embedding, 0, (wanted + 1) ** 2)
    if pairs(wanted) != dim:
        yield from _projection("dot_product.out", pairs(wanted), dim, norm=False, bias=not norm)
    if norm:
        yield _norm("dot_product.norm", dim)


def _binary(spec: NasrecSpec, block: BlockSpec, op: str, norm: bool) -> Iterator[LayerCost]:
    dim = block.dense_dim
    left, right = ([spec.dense_widths[j] for j in side] for side in (block.left, block.right))
    if op == "gating":
        widths = [max(*left, *right)] * len(right)
        yield from _projection("gating.gate", len(left) * widths[0], widths[0], norm=False)
    else:
        widths = [max(pair) for pair in zip(left, right, strict=True)]
    if widths != [dim]:
        yield from _projection(f"{op}.out", sum(widths), dim, norm=False, bias=op == "gating" or not norm)
    if norm:
        yield _norm(f"{op}.norm", dim)


def _attention(tokens: int, embedding: int) -> Iterator[LayerCost]:
    """What follows the token projection: multi-head attention, two norms and two linear layers, all with biases."""
    yield LayerCost(
        "attention.heads",
        macs=tokens * 4 * embedding**2 + 2 * tokens**2 * embedding,
        params=4 * (embedding**2 + embedding),
        activation_elements=tokens * 5 * embedding + HEADS * tokens**2,
    )
    yield _norm("attention.first_norm", embedding)
    yield from _projection("attention.first", embedding, embedding, norm=False, rows=tokens)
    yield from _projection("attention.second", embedding, embedding, norm=False, rows=tokens)
    yield _norm("attention.second_norm", embedding)
