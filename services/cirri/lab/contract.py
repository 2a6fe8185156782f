"""The contracts of everybody who speaks on a lab's bus: the services', and the lab's own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from cirri.manifests.api import APPLY, DELETE
from cirri.model import NODES, POD_CIDRS, RESOURCES
from cirri.model.optional import left_out
from cirri.runtime.contract import Service

LAB = Service(
    name="lab",
    summary="Runs Pods, and keeps Deployments, EndpointSlices and cluster DNS true, on one machine.",
    scope="node",  # it needs no leader: one lab, one supervisor, one controller
    reads=(RESOURCES, POD_CIDRS, NODES),
    calls=(APPLY, DELETE),
)
SERVICES = (
    "kubernetes",
    "identity",
    "ipam",
    "policy",
    "datapath",
    "dnsproxy",
    "l7proxy",
    "bgp",
    "health",
    "l2",
    "flows",
    "relay",
    "sensor",
)
"""Services of a lab, in the order in which they are started."""


def contracts(config: Mapping[str, str]) -> tuple[Service, ...]:
    """The contract of each service that *config* does not leave out, then the lab's."""
    names = [name for name in SERVICES if name not in left_out(config)]
    return (*(import_module(f"cirri.{name}").SERVICE for name in names), LAB)
