"""Published rank correlations on NAS-Bench-201, to stand beside our own.

Names are those of subshot.proxies.PROXIES, of the ensembles in search/aggregation.py, and of the costs params and macs.
A value belongs to a set of networks and to an accuracy; on others it differs by up to 0.08 of tau.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DATASETS = ("c10", "c100", "in16")
"""CIFAR-10, CIFAR-100, ImageNet16-120."""

Figures = tuple[float, float | None, float | None]
"""Kendall's tau, Spearman's rho, nDCG of the first 1,000; None: not published."""


@dataclass(frozen=True)
class Published:
    """One published row. source: the short name that is printed."""

    source: str
    tau: float
    rho: float | None
    ndcg: float | None


@dataclass(frozen=True)
class Table:
    """A published table. networks: the set of the benchmark. accuracy: of a column's name, without the data set; None:
    the table does not say. rows: by name, figures by data set."""

    source: str
    networks: str
    accuracy: str | None
    rows: Mapping[str, Mapping[str, Figures]]


def _three(*figures: Figures | None) -> dict[str, Figures]:
    return {dataset: figure for dataset, figure in zip(DATASETS, figures, strict=True) if figure is not None}


def _taus(c10: float, c100: float, in16: float) -> dict[str, Figures]:
    return _three((c10, None, None), (c100, None, None), (in16, None, None))


def _rho_tau(c10: tuple[float, float], c100: tuple[float, float], in16: tuple[float, float]) -> dict[str, Figures]:
    """Of a table that gives Spearman's rho first."""
    return _three(*((tau, rho, None) for rho, tau in (c10, c100, in16)))


TABLES = (
    Table(
        # ondratybl/VKDNW, table1.png and paper_preparation.ipynb @779a3a8; means of 5 seeds. Computed by Zen-NAS's and
        # AZ-NAS's code, whose gradient norm is the global one, and by the authors' own for VKDNW.
        "VKDNW, Table 1",
        "filtered",
        "test_200",
        {
            "macs": _three((0.623, 0.799, 0.745), (0.586, 0.763, 0.576), (0.545, 0.718, 0.403)),
            "grad_norm_global": _three((0.328, 0.438, 0.509), (0.341, 0.451, 0.278), (0.310, 0.418, 0.265)),
            "grasp": _three((0.352, 0.505, 0.518), (0.349, 0.498, 0.284), (0.359, 0.502, 0.281)),
            "snip": _three((0.431, 0.591, 0.513), (0.440, 0.597, 0.286), (0.389, 0.521, 0.286)),
            "synflow": _three((0.561, 0.758, 0.709), (0.553, 0.750, 0.594), (0.531, 0.719, 0.511)),
            "jacob_cov": _three((0.616, 0.800, 0.540), (0.639, 0.820, 0.402), (0.602, 0.779, 0.356)),
            "naswot": _three((0.571, 0.762, 0.607), (0.607, 0.799, 0.475), (0.605, 0.794, 0.490)),
            "zen_zennas": _three((0.102, 0.103, 0.120), (0.079, 0.072, 0.115), (0.091, 0.109, 0.073)),
            "zico": _three((0.607, 0.802, 0.751), (0.614, 0.809, 0.607), (0.587, 0.779, 0.523)),
            "te_nas": _three((0.536, 0.722, 0.602), (0.537, 0.723, 0.327), (0.523, 0.709, 0.330)),
            "az_nas": _three((0.712, 0.892, 0.749), (0.696, 0.880, 0.549), (0.673, 0.859, 0.534)),
            "num_layers": _three((0.626, 0.767, 0.671), (0.646, 0.787, 0.525), (0.623, 0.764, 0.497)),
            "vkdnw_single_code": _three((0.618, 0.815, 0.751), (0.634, 0.829, 0.617), (0.622, 0.814, 0.608)),
            "vkdnw_agg": _three((0.750, 0.919, 0.785), (0.753, 0.919, 0.636), (0.743, 0.906, 0.664)),
            "az_expressivity": _three(None, None, (0.587, 0.778, None)),
            "az_progressivity": _three(None, None, (0.459, 0.630, None)),
            "az_trainability_nasbench201": _three(None, None, (0.353, 0.517, None)),
        },
    ),
    Table(
        "VKDNW, all networks",  # ondratybl/VKDNW, paper_preparation.ipynb @f2c352d
        "all",
        "test_200",
        {
            "num_layers": _three((0.580, 0.723, 0.631), (0.594, 0.737, 0.491), (0.574, 0.716, 0.483)),
            "macs": _three((0.578, 0.753, 0.729), (0.551, 0.727, 0.565), (0.517, 0.691, 0.386)),
            "grad_norm_global": _three((0.356, 0.483, 0.407), (0.359, 0.489, 0.202), (0.322, 0.441, 0.192)),
            "grasp": _three((0.315, 0.454, 0.439), (0.322, 0.461, 0.224), (0.333, 0.470, 0.207)),
            "snip": _three((0.454, 0.615, 0.433), (0.462, 0.620, 0.221), (0.403, 0.539, 0.212)),
            "synflow": _three((0.571, 0.769, 0.691), (0.565, 0.761, 0.584), (0.555, 0.747, 0.504)),
            "naswot": _three((0.556, 0.742, 0.572), (0.579, 0.768, 0.449), (0.583, 0.768, 0.459)),
            "te_nas": _three((0.489, 0.676, 0.481), (0.481, 0.664, 0.214), (0.459, 0.641, 0.143)),
            "zen_zennas": _three((0.244, 0.321, 0.110), (0.232, 0.300, 0.110), (0.250, 0.344, 0.065)),
            "zico": _three((0.590, 0.785, 0.732), (0.600, 0.794, 0.597), (0.594, 0.787, 0.516)),
            "jacob_cov": _three((0.545, 0.712, 0.362), (0.554, 0.720, 0.249), (0.537, 0.701, 0.240)),
            "az_nas": _three((0.739, 0.912, 0.702), (0.722, 0.899, 0.473), (0.694, 0.876, 0.482)),
            "vkdnw_single_code": _three((0.604, 0.798, 0.715), (0.607, 0.802, 0.558), (0.602, 0.793, 0.566)),
            "vkdnw_agg": _three((0.740, 0.911, 0.743), (0.735, 0.905, 0.576), (0.722, 0.893, 0.614)),
            "az_expressivity": _three(None, None, (0.497, None, None)),
            "az_progressivity": _three(None, None, (0.466, None, None)),
            "az_trainability_nasbench201": _three(None, None, (0.427, None, None)),
        },
    ),
    Table(
        "GradAlign paper",  # arXiv 2411.19819; the number of networks is not stated
        "all",
        None,
        {
            "gradalign1": _taus(0.617, 0.633, 0.623),
            "gradalign2": _taus(0.599, 0.622, 0.607),
            "gradsign": _taus(0.561, 0.595, 0.596),
            "naswot": _taus(0.587, 0.621, 0.594),
            "te_nas": _taus(0.387, 0.377, 0.345),
            "fisher": _taus(0.377, 0.404, 0.367),
            "grad_norm": _taus(0.437, 0.464, 0.427),
            "grasp": _taus(0.319, 0.379, 0.411),
            "jacob_cov": _taus(0.553, 0.549, 0.554),
            "snip": _taus(0.435, 0.466, 0.432),
            "synflow": _taus(0.540, 0.568, 0.561),
            "zen": _taus(0.180, 0.188, 0.219),
        },
    ),
    Table(
        "AZ-NAS paper",  # arXiv 2403.19232, the ablation of its scores
        "all",
        "test_200",
        {
            "az_expressivity": _taus(0.569, 0.563, 0.506),
            "az_progressivity": _taus(0.521, 0.508, 0.489),
            "az_trainability_nasbench201": _taus(0.349, 0.353, 0.407),
            "macs": _taus(0.578, 0.551, 0.517),
            "az_nas": _three((0.741, 0.913, None), (0.723, 0.900, None), (0.710, 0.886, None)),
        },
    ),
    Table(
        "SiGeo paper",  # ICLR 2024 submission, without warm-up; the 1,000 networks of NAS-Bench-Suite-Zero, seed 9000
        "all",
        None,
        {
            "epe_nas": _rho_tau((0.70, 0.52), (0.60, 0.43), (0.33, 0.23)),
            "fisher": _rho_tau((0.50, 0.37), (0.54, 0.40), (0.48, 0.36)),
            "macs": _rho_tau((0.69, 0.50), (0.71, 0.52), (0.67, 0.48)),
            "grad_norm": _rho_tau((0.58, 0.42), (0.63, 0.47), (0.57, 0.42)),
            "grasp": _rho_tau((0.51, 0.35), (0.54, 0.38), (0.55, 0.39)),
            "jacob_cov": _rho_tau((0.75, 0.57), (0.71, 0.54), (0.71, 0.54)),
            "l2_norm": _rho_tau((0.68, 0.49), (0.72, 0.52), (0.69, 0.50)),
            "naswot": _rho_tau((0.77, 0.58), (0.80, 0.62), (0.77, 0.59)),
            "params": _rho_tau((0.72, 0.54), (0.73, 0.55), (0.69, 0.52)),
            "plain": _rho_tau((-0.26, -0.18), (-0.21, -0.14), (-0.22, -0.15)),
            "snip": _rho_tau((0.58, 0.43), (0.63, 0.47), (0.57, 0.42)),
            "synflow": _rho_tau((0.73, 0.54), (0.76, 0.57), (0.75, 0.56)),
            "zen": _rho_tau((0.35, 0.27), (0.35, 0.28), (0.39, 0.29)),
            "zico": _rho_tau((0.74, 0.54), (0.78, 0.58), (0.79, 0.60)),
            "sigeo": _rho_tau((0.78, 0.58), (0.82, 0.62), (0.80, 0.61)),
        },
    ),
)

SAME_ORDER = {"log_synflow": "synflow"}
"""Names of scores that rank as another one does."""


def published(name: str, networks: str, accuracy: str) -> list[Published]:
    """What is published of a score on this set of NAS-Bench-201 and this accuracy, a column's name as c10_test_200."""
    dataset, _, kind = accuracy.partition("_")
    found = []
    for table in TABLES:
        figures = table.rows.get(SAME_ORDER.get(name, name), {}).get(dataset)
        if figures is not None and table.networks == networks and table.accuracy in (None, kind):
            found.append(Published(table.source, *figures))
    return found
