"""Search spaces and their weight-sharing supernets. `SPACES`, for images: name to builder(input_size, classes, width,
reduced_strides). `CLICK_SPACES`, for clicks: name to builder(dense_features, sparse_fields, num_blocks)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from subshot.supernet.chain import ChainSpace
from subshot.supernet.darts import DartsSpace
from subshot.supernet.mobilenetv2 import mobilenetv2, mobilenetv2_mobile
from subshot.supernet.nasbench101 import NasBench101Space
from subshot.supernet.nasbench201 import NasBench201Space
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.nasrec import NasrecSpace, autoctr_in_nasrec, nasrec_full, nasrec_small
from subshot.supernet.network_space import NetworkSpace
from subshot.supernet.shufflenetv2 import shufflenetv2
from subshot.supernet.zennas import ZenSpace

SPACES: dict[str, Callable[[int, int, float, int], ChainSpace]] = {
    "mobilenetv2": mobilenetv2,
    "mobilenetv2-fixed-depth": partial(mobilenetv2, depth="fixed"),
    "mobilenetv2-mobile": mobilenetv2_mobile,
    "shufflenetv2": shufflenetv2,
    "nasbench-macro": nasbench_macro,
}

CLICK_SPACES: dict[str, Callable[[int, int, int], NasrecSpace]] = {
    "nasrec-small": nasrec_small,
    "nasrec-full": nasrec_full,
    "autoctr": autoctr_in_nasrec,
}

BENCHMARK_SPACES: dict[str, Callable[[int, int], NetworkSpace]] = {
    "nasbench101": NasBench101Space,
    "darts": DartsSpace,
    "nasbench201": NasBench201Space,
    "zennas-cifar": ZenSpace,
}
"""Spaces of published benchmarks and of training-free searches: name to builder(input_size, classes)."""
