"""What happens to the node's endpoints and to addresses, as the observer API tells it.  Pure.

What is there when the service starts is no event.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from cirri.hubble.messages import AgentEvent as Message
from cirri.hubble.messages import AgentEventType as Kind
from cirri.hubble.source import AgentEvent
from cirri.model import Endpoint


class Happenings:
    """Compares endpoints with what was known of them, and tells what is new."""

    def __init__(
        self,
        node: str,
        tell: Callable[[AgentEvent], None],
        host: Callable[[str], str] = lambda node: "",
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        """*host*: (node) -> its address, "" if that is not known."""
        self._node, self._tell, self._host, self._now = node, tell, host, now
        self._known: dict[str, Endpoint] = {}

    def started(self) -> None:
        """The service has started."""
        event = Message(type=Kind.AGENT_STARTED)
        event.agent_start.time.FromNanoseconds(self._now())
        self._say(event)

    def endpoint(self, key: str, endpoint: Endpoint | None, *, quiet: bool = False) -> None:
        """Endpoint *key* is as *endpoint* says, or gone; with *quiet* nothing is told of it."""
        before = self._known.pop(key, None)
        if endpoint is not None:
            self._known[key] = endpoint
        if quiet or before == endpoint:
            return
        if self._node == (endpoint or before).node:  # type: ignore[union-attr]  # one of them is there
            for event in _of_endpoint(before, endpoint):
                self._say(event)
        for event in self._of_addresses(before, endpoint):
            self._say(event)

    def _of_addresses(self, before: Endpoint | None, after: Endpoint | None) -> Iterator[Any]:
        had, has = _identities(before), _identities(after)
        for cidr, identity in has.items():
            if had.get(cidr) != identity and after is not None:
                event = Message(type=Kind.IPCACHE_UPSERTED)
                told = event.ipcache_update
                told.cidr, told.identity = cidr, identity
                told.namespace, told.pod_name = after.namespace, after.pod
                told.host_ip = self._host(after.node)
                if cidr in had:
                    told.old_identity.value = had[cidr]
                yield event
        for cidr in had.keys() - has.keys():
            event = Message(type=Kind.IPCACHE_DELETED)
            event.ipcache_update.cidr, event.ipcache_update.identity = cidr, had[cidr]
            yield event

    def _say(self, event: Any) -> None:
        self._tell(AgentEvent(self._now(), event))


def _identities(endpoint: Endpoint | None) -> dict[str, int]:
    """Prefix of each address -> identity, if it has one."""
    if endpoint is None or not endpoint.identity:
        return {}
    addresses = ((endpoint.ipv4, 32), (endpoint.ipv6, 128))
    return {f"{address}/{bits}": endpoint.identity for address, bits in addresses if address}


def _of_endpoint(before: Endpoint | None, after: Endpoint | None) -> Iterator[Any]:
    if before is None or after is None:
        one = after or before
        assert one is not None
        event = Message(type=Kind.ENDPOINT_CREATED if after else Kind.ENDPOINT_DELETED)
        told = event.endpoint_update
        told.id, told.namespace, told.pod_name = one.id, one.namespace, one.pod
        told.labels.extend(one.labels)
        yield event
    if after is None:
        return
    if after.error and after.error != (before.error if before else ""):
        yield _regenerated(Kind.ENDPOINT_REGENERATE_FAILURE, after)
    elif after.state == "ready" and (before is None or _realized(before) != _realized(after)):
        yield _regenerated(Kind.ENDPOINT_REGENERATE_SUCCESS, after)


def _realized(endpoint: Endpoint) -> tuple[Any, ...]:
    return (
        endpoint.state,
        endpoint.identity,
        endpoint.ingress_enforced,
        endpoint.egress_enforced,
        endpoint.audit,
    )


def _regenerated(kind: int, endpoint: Endpoint) -> Any:
    event = Message(type=kind)
    told = event.endpoint_regenerate
    told.id, told.error = endpoint.id, endpoint.error
    told.labels.extend(endpoint.labels)
    return event
