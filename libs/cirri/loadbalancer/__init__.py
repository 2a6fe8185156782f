"""Services: which frontends a node serves, and with which backends.  Pure.

``endpoints`` reads EndpointSlices, ``frontends`` expands a Service for one node, ``config`` holds the
cluster's switches.
"""

from cirri.loadbalancer.config import InvalidConfig, LoadBalancerConfig, NoBackend, complaint
from cirri.loadbalancer.endpoints import Backend, backends, choosable, service_of
from cirri.loadbalancer.frontends import Frontend, Here, Scope, Serving, frontends, host_ports, weights

__all__ = [
    "Backend",
    "Frontend",
    "Here",
    "InvalidConfig",
    "LoadBalancerConfig",
    "NoBackend",
    "Scope",
    "Serving",
    "backends",
    "choosable",
    "complaint",
    "frontends",
    "host_ports",
    "service_of",
    "weights",
]
