"""Measurements that score a subnet without training it to the end.

`PROXIES` is the table of all of them by name: a new proxy is one file with its formula, and one line here.
"""

from subshot.proxies import az_nas, grad_norm, jacob_cov, naswot, sigeo, synflow, zen, zico
from subshot.proxies.base import Proxy

PROXIES: dict[str, Proxy] = {
    proxy.name: proxy
    for proxy in (
        naswot.PROXY,
        synflow.PROXY,
        synflow.LOG,
        synflow.FREEREA,
        grad_norm.PROXY,
        zen.PROXY,
        jacob_cov.PROXY,
        zico.PROXY,
        sigeo.PROXY,
        az_nas.EXPRESSIVITY,
        az_nas.PROGRESSIVITY,
        az_nas.TRAINABILITY,
    )
}
