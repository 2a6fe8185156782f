"""The observer API's messages and services, as classes made from ``protos/``.

Annotations say ``Any``: the classes exist only when the protos have been compiled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.internal import enum_type_wrapper

from cirri import protos

POOL: Any = protos.load(Path(__file__).parent / "build" / "hubble.binpb")
"""Of all classes here; ``json_format`` needs it for ``Any`` fields."""


def message(name: str) -> Any:
    """The class of message *name* (``flow.Flow``).  Raises: KeyError."""
    return protos.message_class(POOL, name)


def enum(name: str) -> Any:
    """Enum *name* (``flow.Verdict``): ``Name(2)``, ``Value("DROPPED")``, ``.DROPPED``.  Raises: KeyError."""
    return enum_type_wrapper.EnumTypeWrapper(POOL.FindEnumTypeByName(name))


def methods(service: str) -> protos.Methods:
    """Of *service* (``observer.Observer``).  Raises: KeyError."""
    return protos.methods(POOL, service)


OBSERVER, PEER, HEALTH = "observer.Observer", "peer.Peer", "grpc.health.v1.Health"
"""Services."""

Timestamp = message("google.protobuf.Timestamp")
FieldMask = message("google.protobuf.FieldMask")

Flow = message("flow.Flow")
FlowFilter = message("flow.FlowFilter")
EventTypeFilter = message("flow.EventTypeFilter")
HTTPHeader = message("flow.HTTPHeader")
NetworkInterface = message("flow.NetworkInterface")
TCPFlags = message("flow.TCPFlags")
Workload = message("flow.Workload")
Endpoint = message("flow.Endpoint")
Service = message("flow.Service")
LostEvent = message("flow.LostEvent")
AgentEvent = message("flow.AgentEvent")

AgentEventType = enum("flow.AgentEventType")
DropReason = enum("flow.DropReason")
FlowType = enum("flow.FlowType")
IPVersion = enum("flow.IPVersion")
L7FlowType = enum("flow.L7FlowType")
LostEventSource = enum("flow.LostEventSource")
TraceObservationPoint = enum("flow.TraceObservationPoint")
TraceReason = enum("flow.TraceReason")
TrafficDirection = enum("flow.TrafficDirection")
Verdict = enum("flow.Verdict")

GetFlowsRequest = message("observer.GetFlowsRequest")
GetFlowsResponse = message("observer.GetFlowsResponse")
GetAgentEventsRequest = message("observer.GetAgentEventsRequest")
GetAgentEventsResponse = message("observer.GetAgentEventsResponse")
GetDebugEventsRequest = message("observer.GetDebugEventsRequest")
GetNodesRequest = message("observer.GetNodesRequest")
GetNodesResponse = message("observer.GetNodesResponse")
Node = message("observer.Node")
GetNamespacesRequest = message("observer.GetNamespacesRequest")
GetNamespacesResponse = message("observer.GetNamespacesResponse")
Namespace = message("observer.Namespace")
ServerStatusRequest = message("observer.ServerStatusRequest")
ServerStatusResponse = message("observer.ServerStatusResponse")
ExportEvent = message("observer.ExportEvent")

NodeStatusEvent = message("relay.NodeStatusEvent")
NodeState = enum("relay.NodeState")

NotifyRequest = message("peer.NotifyRequest")
ChangeNotification = message("peer.ChangeNotification")
ChangeNotificationType = enum("peer.ChangeNotificationType")

HealthCheckResponse = message("grpc.health.v1.HealthCheckResponse")
