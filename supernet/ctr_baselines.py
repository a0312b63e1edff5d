"""The click-through-rate models that searched networks are compared with, as networks over looked-up embeddings.

Each takes one argument, (dense [N, D] float32, embedded [N, F, table dim] float32), and returns logits [N]; D may be 0.
Tables are not part of them. Models with a first-order term need one weight for every category: it is the last column
of the embedding, so that the same tables serve all. `table_dim` says how wide a model's tables are.

Sizes are defaults, and arguments. There is no dropout: the recipes here train for one epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

EMBEDDING_DIM = 16

Inputs = tuple[Tensor, Tensor]


class LogisticRegression(nn.Module):
    """logit = b + w . dense + sum over fields of the category's weight. embedded: [N, F, 1], whatever `dim` is."""

    def __init__(self, dense_features: int, sparse_fields: int, dim: int = EMBEDDING_DIM) -> None:
        super().__init__()
        self.dense = nn.Linear(dense_features, 1) if dense_features else Bias()

    def forward(self, inputs: Inputs) -> Tensor:
        dense, embedded = inputs
        logits: Tensor = self.dense(dense).squeeze(1) + embedded.sum(dim=(1, 2))
        return logits


class FactorizationMachine(nn.Module):
    """logit = b + first order + sum over pairs i < j of <v_i, v_j> x_i x_j. embedded: [N, F, dim + 1].

    Categories are one-hot, so x is 1 for those that a sample has. A dense feature has a vector here and is x itself.
    Source: Rendle (2010), Factorization Machines, equation 1; pairs as in its lemma 3.1.
    """

    def __init__(self, dense_features: int, sparse_fields: int, dim: int = EMBEDDING_DIM) -> None:
        super().__init__()
        self.first_order = LogisticRegression(dense_features, sparse_fields)
        self.vectors = nn.Parameter(torch.randn(dense_features, dim) / dim)

    def forward(self, inputs: Inputs) -> Tensor:
        dense, embedded = inputs
        return self.first_order((dense, embedded[:, :, -1:])) + pair_sum(self.features(inputs))

    def features(self, inputs: Inputs) -> Tensor:
        """v_i x_i of all features, dense ones first, [N, D + F, dim]."""
        dense, embedded = inputs
        return torch.cat((dense[:, :, None] * self.vectors, embedded[:, :, :-1]), dim=1)


class DeepFM(nn.Module):
    """A factorization machine plus a perceptron on the same vectors. embedded: [N, F, dim + 1].

    Source: Guo et al. (2017), DeepFM (arXiv 1703.04247), equations 1 to 4, with three hidden layers of 400 ReLUs.
    """

    def __init__(
        self,
        dense_features: int,
        sparse_fields: int,
        dim: int = EMBEDDING_DIM,
        hidden: Sequence[int] = (400, 400, 400),
    ) -> None:
        super().__init__()
        self.fm = FactorizationMachine(dense_features, sparse_fields, dim)
        self.deep = perceptron((dense_features + sparse_fields) * dim, (*hidden, 1))

    def forward(self, inputs: Inputs) -> Tensor:
        logits: Tensor = self.fm(inputs) + self.deep(self.fm.features(inputs).flatten(1)).squeeze(1)
        return logits


class DLRM(nn.Module):
    """Dot products of all pairs of vectors, the dense features having one through a perceptron. embedded: [N, F, dim].

    The top perceptron reads the dense vector and the products of all pairs i > j. Source: Naumov et al. (2019, arXiv
    1906.00091); sizes are those of facebookresearch/dlrm's Kaggle script (bottom 512-256-64-dim, top 512-256-1). A
    ReLU follows every layer but the last. Raises ValueError where there is no pair.
    """

    def __init__(
        self,
        dense_features: int,
        sparse_fields: int,
        dim: int = EMBEDDING_DIM,
        bottom: Sequence[int] = (512, 256, 64),
        top: Sequence[int] = (512, 256),
    ) -> None:
        super().__init__()
        vectors = sparse_fields + (dense_features > 0)
        if vectors < 2:
            raise ValueError(
                f"DLRM multiplies pairs of vectors, and {dense_features} dense features with {sparse_fields} "
                "categorical fields give none; it needs two fields, or one and a dense feature"
            )
        self.bottom = nn.Sequential(perceptron(dense_features, (*bottom, dim)), nn.ReLU()) if dense_features else None
        self.top = perceptron((dim if dense_features else 0) + vectors * (vectors - 1) // 2, (*top, 1))
        rows, columns = torch.tril_indices(vectors, vectors, offset=-1)
        self.pairs: Tensor
        self.register_buffer("pairs", rows * vectors + columns, persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        dense, vectors = inputs
        parts = []
        if self.bottom is not None:
            parts.append(self.bottom(dense))
            vectors = torch.cat((parts[0][:, None], vectors), dim=1)
        products = (vectors @ vectors.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        logits: Tensor = self.top(torch.cat((*parts, products), dim=1)).squeeze(1)
        return logits


class DCNv2(nn.Module):
    """Cross layers x_(l+1) = x_0 * (W_l x_l + b_l) + x_l beside a perceptron on x_0. embedded: [N, F, dim].

    x_0 is the dense features and all embeddings side by side; W_l is square. Source: Wang et al. (2021), DCN V2 (arXiv
    2008.13535), equation 1, in its parallel structure: a last linear layer reads both ends. Three cross layers, and
    DeepFM's perceptron, so that the two differ in the interaction alone; the paper tunes both sizes.
    """

    def __init__(
        self,
        dense_features: int,
        sparse_fields: int,
        dim: int = EMBEDDING_DIM,
        cross_layers: int = 3,
        hidden: Sequence[int] = (400, 400, 400),
    ) -> None:
        super().__init__()
        width = dense_features + sparse_fields * dim
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(cross_layers))
        self.deep = nn.Sequential(perceptron(width, hidden), nn.ReLU())
        self.last = nn.Linear(width + hidden[-1], 1)

    def forward(self, inputs: Inputs) -> Tensor:
        dense, embedded = inputs
        start = crossed = torch.cat((dense, embedded.flatten(1)), dim=1)
        for layer in self.cross:
            crossed = start * layer(crossed) + crossed
        logits: Tensor = self.last(torch.cat((crossed, self.deep(start)), dim=1)).squeeze(1)
        return logits


class Bias(nn.Module):
    """[N, anything] to [N, 1]: one learnt number, where there is nothing else to read."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), 1)


def perceptron(width: int, sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these output sizes, a ReLU between every two."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((width, *sizes)):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def pair_sum(vectors: Tensor) -> Tensor:
    """Sum over pairs i < j of <v_i, v_j>, of vectors [N, features, dim]; [N]. ((sum v)^2 - sum v^2) / 2, summed."""
    return 0.5 * (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=1)


BASELINES: dict[str, Callable[[int, int, int], nn.Module]] = {
    "logistic_regression": LogisticRegression,
    "fm": FactorizationMachine,
    "deepfm": DeepFM,
    "dlrm": DLRM,
    "dcn_v2": DCNv2,
}
"""(number of dense features, number of categorical fields, embedding dim) to the network, at its default sizes."""


def table_dim(name: str, dim: int = EMBEDDING_DIM) -> int:
    """How many columns a baseline's tables have, for embeddings of `dim`."""
    return {"logistic_regression": 1, "fm": dim + 1, "deepfm": dim + 1, "dlrm": dim, "dcn_v2": dim}[_known(name)]


def build_baseline(
    name: str, dense_features: int, sparse_fields: int, generator: torch.Generator, dim: int = EMBEDDING_DIM
) -> nn.Module:
    """A baseline at its default sizes, drawn on the CPU: weights Xavier's uniform, biases 0; in linear and
    factorisation terms 0 and normal of deviation 0.01, so that training starts near the base rate.

    Raises ValueError for an unknown name, for no field, and where DLRM has no pair of vectors.
    """
    if sparse_fields < 1 or dense_features < 0:
        raise ValueError(f"a baseline needs at least one categorical field; got {sparse_fields}")
    network = BASELINES[_known(name)](dense_features, sparse_fields, dim)
    for parameter in network.parameters():
        if parameter.ndim < 2 or parameter.numel() == 0:
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter, generator=generator)
    for module in network.modules():
        if isinstance(module, LogisticRegression):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
        if isinstance(module, FactorizationMachine):
            nn.init.normal_(module.vectors, std=0.01, generator=generator)
    return network


def adds_products(name: str) -> bool:
    """Whether a baseline's logit is a sum of embeddings and their products, so that its tables must start small."""
    return _known(name) in ("logistic_regression", "fm", "deepfm")


def _known(name: str) -> str:
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; there are {', '.join(BASELINES)}")
    return name
