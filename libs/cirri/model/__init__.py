"""The language of the bus: every struct that crosses it and every bucket, with its one writer.

Structs are frozen and typed; readers ignore unknown fields and new fields have defaults, so
services roll one by one.  One module per domain; this one re-exports them all.
"""

from typing import Any

from cirri.model.announcer import ANNOUNCERS, Announcer
from cirri.model.bucket import Bucket
from cirri.model.endpoint import ENDPOINTS, REPORTS, Endpoint, EndpointState
from cirri.model.flows import FLOW_LOGS, End, FlowBatch, Log, RuleRef, ServiceRef, Workload, flow_subject
from cirri.model.health import HEALTH, NodeHealth, PathHealth, PeerHealth
from cirri.model.identity import IDENTITIES, Identity
from cirri.model.lease import LEASES, Lease
from cirri.model.node import ACKS, NODES, POD_CIDRS, Ack, NodeStatus, PodCIDRs
from cirri.model.policy import (
    CONDITIONS,
    POLICIES,
    SELECTORS,
    Compiled,
    Direction,
    Origin,
    PolicyCondition,
    PolicyEntry,
    Rule,
    SelectorSet,
    SubjectPolicy,
)
from cirri.model.records import L7_RECORDS, DnsFacts, HttpFacts, L7Batch, L7Record, TlsFacts
from cirri.model.resource import RESOURCES, Resource, resource_key
from cirri.model.runtimeevents import RUNTIME_LOG, RuntimeBatch, RuntimeEvent, runtime_subject

BUCKETS: tuple[Bucket[Any], ...] = (
    RESOURCES,
    IDENTITIES,
    POD_CIDRS,
    SELECTORS,
    POLICIES,
    CONDITIONS,
    ENDPOINTS,
    NODES,
    ACKS,
    HEALTH,
    ANNOUNCERS,
    LEASES,
)

__all__ = [
    "ACKS",
    "ANNOUNCERS",
    "BUCKETS",
    "CONDITIONS",
    "ENDPOINTS",
    "FLOW_LOGS",
    "HEALTH",
    "IDENTITIES",
    "L7_RECORDS",
    "LEASES",
    "NODES",
    "POD_CIDRS",
    "POLICIES",
    "REPORTS",
    "RESOURCES",
    "RUNTIME_LOG",
    "SELECTORS",
    "Ack",
    "Announcer",
    "Bucket",
    "Compiled",
    "Direction",
    "DnsFacts",
    "End",
    "Endpoint",
    "EndpointState",
    "FlowBatch",
    "HttpFacts",
    "Identity",
    "L7Batch",
    "L7Record",
    "Lease",
    "Log",
    "NodeHealth",
    "NodeStatus",
    "Origin",
    "PathHealth",
    "PeerHealth",
    "PodCIDRs",
    "PolicyCondition",
    "PolicyEntry",
    "Resource",
    "Rule",
    "RuleRef",
    "RuntimeBatch",
    "RuntimeEvent",
    "SelectorSet",
    "ServiceRef",
    "SubjectPolicy",
    "TlsFacts",
    "Workload",
    "flow_subject",
    "resource_key",
    "runtime_subject",
]
