"""Services: which frontends a node serves, and with which backends.  Pure.

``endpoints`` reads EndpointSlices, ``frontends`` expands a Service for one node, ``config`` holds the
cluster's switches, ``health`` what balancers outside are told,
``announced`` which addresses nodes tell the network about.
"""

from cirri.loadbalancer.annotations import annotation_faults
from cirri.loadbalancer.announced import (
    BGP_CLASS,
    L2_CLASS,
    Announced,
    announceable,
    announced,
    nodes_with_backends,
)
from cirri.loadbalancer.config import (
    NOT_DIRECT,
    Acceleration,
    InvalidConfig,
    LoadBalancerConfig,
    NoBackend,
    complaint,
)
from cirri.loadbalancer.endpoints import Backend, backends, choosable, service_of
from cirri.loadbalancer.frontends import (
    Frontend,
    Here,
    Scope,
    Seniority,
    Serving,
    frontends,
    host_ports,
    seniority,
    weights,
)
from cirri.loadbalancer.health import (
    HealthCheck,
    Said,
    eligible,
    health_check,
    proxy_answer,
    service_answer,
)

__all__ = [
    "BGP_CLASS",
    "L2_CLASS",
    "NOT_DIRECT",
    "Acceleration",
    "Announced",
    "Backend",
    "Frontend",
    "HealthCheck",
    "Here",
    "InvalidConfig",
    "LoadBalancerConfig",
    "NoBackend",
    "Said",
    "Scope",
    "Seniority",
    "Serving",
    "annotation_faults",
    "announceable",
    "announced",
    "backends",
    "choosable",
    "complaint",
    "eligible",
    "frontends",
    "health_check",
    "host_ports",
    "nodes_with_backends",
    "proxy_answer",
    "seniority",
    "service_answer",
    "service_of",
    "weights",
]
