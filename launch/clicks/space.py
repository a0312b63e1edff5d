"""The NASRec space that a configuration names, for data of some fields."""

from __future__ import annotations

from dataclasses import replace

from subshot.launch.clicks.config import ClickSpaceConfig
from subshot.supernet import CLICK_SPACES
from subshot.supernet.nasrec import NasrecSpace


def make_click_space(config: ClickSpaceConfig, dense_features: int, sparse_fields: int) -> NasrecSpace:
    """Raises ValueError where the limits on the widths leave none."""
    space = CLICK_SPACES[config.name](dense_features, sparse_fields, config.blocks)
    dense = tuple(dim for dim in space.dense_dims if dim <= config.max_dense_dim)
    sparse = tuple(dim for dim in space.sparse_dims if dim <= config.max_sparse_dim)
    if not dense or not sparse:
        raise ValueError(
            f"space.max_dense_dim {config.max_dense_dim} and max_sparse_dim {config.max_sparse_dim} leave no width; "
            f"the smallest are {min(space.dense_dims)} and {min(space.sparse_dims)}"
        )
    return replace(space, dense_dims=dense, sparse_dims=sparse)
