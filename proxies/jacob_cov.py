"""How independent the samples' input gradients J_i = d(sum of the batch's outputs) / dx_i, flattened, are of one
another.

    jacob_cov   R = correlations of the J_i, [N, N];  -sum over eigenvalues v of R of [log(v + k) + 1 / (v + k)]
    epe_nas     R_c the same within class c;  sum over classes of |sum over entries of log(|R_c| + k)|,   k = 1e-5
                with more than 100 classes: mean over classes of the sum of differences between the classes' sums

Higher is better for both; BatchNorm in train mode; epe_nas reads the labels to tell classes apart, not for a loss.
Source: Mellor et al. (first version of arXiv 2006.04647) with SamsungLabs/zero-cost-nas @a43bfbc, which takes the
eigenvalues with a solver for non-symmetric matrices; Lopes et al. (2021, arXiv 2102.08099) with NASLib's epe_nas.
Classes of one sample say nothing and are left out, in the code by an exception that is swallowed.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from subshot.proxies.base import ProxyUndefined
from subshot.proxies.batch_pass import InputGradient, Targets
from subshot.proxies.measure import Proxy

SMALL = 1e-5
MANY_CLASSES = 100


def jacob_cov(jacobian: Tensor) -> float:
    """The score of input gradients, float64 [N, D]. Raises ProxyUndefined where one of them is constant."""
    eigenvalues = torch.linalg.eigvalsh(correlations(jacobian)) + SMALL
    return -float((eigenvalues.log() + 1.0 / eigenvalues).sum())


def epe_nas(jacobian: Tensor, targets: Tensor) -> float:
    """The score of input gradients, float64 [N, D], of classes, [N]. Raises ProxyUndefined where no class has two."""
    sums = []
    for label in targets.unique().tolist():
        rows = jacobian[targets == label]
        if len(rows) > 1:
            sums.append(float((correlations(rows).abs() + SMALL).log().sum()))
    if not sums:
        raise ProxyUndefined("no class of the batch has two samples, whose gradients could be correlated")
    if len(sums) <= MANY_CLASSES:
        return sum(abs(value) for value in sums)
    return sum(abs(one - other) for one, other in combinations(sums, 2)) / len(sums)


def correlations(jacobian: Tensor) -> Tensor:
    """[N, N] of the rows. Raises ProxyUndefined where a row is constant."""
    found = torch.atleast_2d(torch.corrcoef(jacobian))
    if not found.isfinite().all():
        raise ProxyUndefined("the input gradient of a sample is constant, so it has no correlation with the others")
    return found


PROXY = Proxy(
    name="jacob_cov",
    readings=(InputGradient(),),
    formula=jacob_cov,
    maximize=True,
    source="Mellor et al. 2020, arXiv 2006.04647v1; Abdelfattah et al. 2021, arXiv 2101.08134",
    layers="inputs",
)
EPE_NAS = Proxy(
    name="epe_nas",
    readings=(InputGradient(), Targets()),
    formula=epe_nas,
    maximize=True,
    source="Lopes et al. 2021, arXiv 2102.08099; automl/NASLib @8c45f19",
    layers="inputs",
)
