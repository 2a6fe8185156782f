"""Flows of the observer API as events of the kernel, for ``cirri monitor`` while a service reads the ring.

Flows do not say everything: lengths, cookies of rules and identifiers of pings stay with the service.
"""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cirri.cli.drops import DROPS
from cirri.cli.flowlines import enum_name
from cirri.cli.flowrequest import EVERYTHING
from cirri.cli.observer import NODE_SOCKET, Server, connected
from cirri.cli.pins import Node
from cirri.cli.records import protocol_text
from cirri.errors import CirriError
from cirri.layout import PolicyMatch

OBSERVER = "observer.Observer"
DROP, TRACE, VERDICT = 1, 4, 5
"""``CiliumEventType.type`` of what comes from the kernel."""
_KINDS = {DROP: "drop", TRACE: "trace", VERDICT: "policy-verdict"}
_PROTOCOLS = {"ICMPv4": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}
_VERDICTS = {"DROPPED": "deny", "ERROR": "deny", "AUDIT": "audit", "REDIRECTED": "redirect"}


class Told:
    """A node's events as its service ``flows`` tells them."""

    def __init__(self, node: Node, stack: ExitStack, *, everything: bool) -> None:
        """Raises: ``Unreachable``, if nobody tells them."""
        from cirri.hubble.messages import GetFlowsRequest

        self.node = node
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lost = 0
        server = Server(f"unix://{Path(node.run_dir) / NODE_SOCKET}")
        observer = stack.enter_context(connected(server))
        asked = GetFlowsRequest(follow=True, number=EVERYTHING if everything else 0)
        for kind in _KINDS:
            asked.whitelist.add().event_type.add(type=kind)
        self._answers = observer.stream(OBSERVER, "GetFlows", asked)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for answer in self._answers:
                self._news.put(answer)
        except CirriError as error:
            self._news.put(error)

    def events(self) -> list[dict[str, Any]]:
        """What has come.  Raises what ended it."""
        found = []
        while not self._news.empty():
            answer = self._news.get()
            if isinstance(answer, CirriError):
                raise answer
            match answer.WhichOneof("response_types"):
                case "flow":
                    found.append(event_of(answer.flow))
                case "lost_events":
                    self._lost += answer.lost_events.num_events_lost
        return found

    def lost(self) -> int:
        """How many were lost since the last call."""
        lost, self._lost = self._lost, 0
        return lost


def event_of(flow: Any) -> dict[str, Any]:
    """A flow that came from the kernel as :func:`cirri.cli.monitor.describe` words events."""
    kind = flow.event_type.type
    protocol = flow.l4.WhichOneof("protocol")
    told: Any = getattr(flow.l4, protocol) if protocol else None
    ports = (told.source_port, told.destination_port) if protocol in ("TCP", "UDP", "SCTP") else (0, 0)
    event: dict[str, Any] = {
        "time": flow.time.ToJsonString(),
        "type": _KINDS.get(kind, f"type {kind}"),
        "source": flow.IP.source,
        "sourcePort": ports[0],
        "destination": flow.IP.destination,
        "destinationPort": ports[1],
        "protocol": protocol_text(_PROTOCOLS.get(protocol or "", 0)),
        "sourceIdentity": flow.source.identity,
        "destinationIdentity": flow.destination.identity,
        "sourceLabels": list(flow.source.labels),
        "destinationLabels": list(flow.destination.labels),
        "endpoint": _endpoint(flow),
        "direction": {1: "ingress", 2: "egress"}.get(flow.traffic_direction, ""),
        "tcpFlags": [field.name for field, _ in told.flags.ListFields()] if protocol == "TCP" else [],
        "rule": _rule(flow),
    }
    if kind == VERDICT:
        event["verdict"] = _VERDICTS.get(enum_name(flow, "verdict"), "allow")
        event["proxyPort"] = flow.proxy_port
        event["match"] = _match(flow.policy_match_type)
    if kind == TRACE:
        point, state = enum_name(flow, "trace_observation_point"), enum_name(flow, "trace_reason")
        event["point"] = point.lower().replace("_", "-").removesuffix("-point")
        event["state"] = state.lower().removeprefix("trace_reason_")
    if reason := flow.drop_reason_desc:
        event["reason"], event["reasonText"] = reason, DROPS.get(reason, f"reason {reason}")
    if protocol in ("ICMPv4", "ICMPv6"):
        event["icmpType"] = told.type
    return event


def _endpoint(flow: Any) -> int:
    """The local one that it is about."""
    here = flow.source.ID if enum_name(flow, "traffic_direction") == "EGRESS" else flow.destination.ID
    return int(here or flow.destination.ID or flow.source.ID)


def _rule(flow: Any) -> dict[str, Any] | None:
    for field in ("ingress_allowed_by", "ingress_denied_by", "egress_allowed_by", "egress_denied_by"):
        for policy in getattr(flow, field):
            return {"kind": policy.kind, "namespace": policy.namespace, "name": policy.name}
    return None


def _match(number: int) -> str:
    return PolicyMatch(number).text if number in PolicyMatch._value2member_map_ else str(number)
