"""Measurements that score a subnet without training it to the end.

`PROXIES` is the table of all of them by name: a new proxy is one file with its formula, and one line here. Each can be
called alone, `PROXIES["snip"](model, batches)`; `measure` takes several and shares their passes, `plan` prints them.
"""

from subshot.proxies import (
    az_nas,
    fisher,
    gradsign,
    grasp,
    jacob_cov,
    linear_regions,
    meco,
    naswot,
    ntk,
    saliency,
    sigeo,
    structure,
    swap,
    synflow,
    vkdnw,
    zen,
    zico,
)
from subshot.proxies.base import ProxyUndefined, Setting
from subshot.proxies.measure import Proxy, measure, plan

PROXIES: dict[str, Proxy] = {
    proxy.name: proxy
    for proxy in (
        structure.PARAMS,
        structure.MACS,
        structure.NUM_LAYERS,
        structure.L2_NORM,
        structure.BN_INDICATOR,
        structure.BN_BLOCK_INDICATOR,
        saliency.GRAD_NORM,
        saliency.GRAD_NORM_GLOBAL,
        saliency.SNIP,
        saliency.PLAIN,
        fisher.PROXY,
        fisher.CHANNEL_SUM,
        grasp.PROXY,
        jacob_cov.PROXY,
        jacob_cov.EPE_NAS,
        naswot.PROXY,
        zico.PROXY,
        sigeo.PROXY,
        sigeo.ZICO_TERM,
        sigeo.FISHER_RAO,
        sigeo.LOSS,
        gradsign.GRADSIGN,
        gradsign.GRADALIGN1,
        gradsign.GRADALIGN2,
        gradsign.GRAD_ANGLE,
        vkdnw.PROXY,
        vkdnw.SINGLE,
        vkdnw.CODE,
        vkdnw.SINGLE_CODE,
        ntk.PROXY,
        ntk.EVAL,
        synflow.PROXY,
        synflow.LOG,
        synflow.FREEREA,
        synflow.BN,
        synflow.ZENNAS,
        zen.PROXY,
        zen.ZENNAS,
        az_nas.EXPRESSIVITY,
        az_nas.PROGRESSIVITY,
        az_nas.TRAINABILITY,
        az_nas.TRAINABILITY_NASBENCH201,
        linear_regions.PROXY,
        swap.PROXY,
        meco.PROXY,
    )
}

__all__ = ["PROXIES", "Proxy", "ProxyUndefined", "Setting", "measure", "plan"]
