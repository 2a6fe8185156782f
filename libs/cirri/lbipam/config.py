"""The key of ``cirri-config`` that concerns addresses of LoadBalancer Services."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_IPAM = "default-lb-service-ipam"
"""Who gives addresses to Services without a ``loadBalancerClass``."""
CHOICES = ("lbipam", "none")


def has_pools_by_default(data: Mapping[str, str]) -> bool:
    """Whether such Services have addresses of pools; what is no choice counts as not written."""
    return data.get(DEFAULT_IPAM, CHOICES[0]) != "none"
