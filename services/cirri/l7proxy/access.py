"""From Envoy's access records to L7 records.  Pure.

Envoy tells of a request once, when it has been answered; that makes two records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from cirri.l7proxy.messages import END, LOGS, TLS_PROPERTIES
from cirri.l7proxy.routes import Verdict as Taken
from cirri.l7proxy.routes import verdict_of
from cirri.l7proxy.wire import BYTES, parts
from cirri.model import HttpFacts, L7Record, TlsFacts
from cirri.model.records import Verdict
from cirri.proxies import ProxyEndpoint

PROTOCOLS = {1: "HTTP/1.0", 2: "HTTP/1.1", 3: "HTTP/2", 4: "HTTP/3"}
METHODS = ("", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
BEGAN, ENDED = 1, 3
"""``AccessLogType`` of TCP connections: the server has been reached, the end."""
METHOD = b":method"
"""The header that is logged because Envoy's list of methods is short."""
REFUSED, SERVER = "route_not_found", "via_upstream"
"""Where an answer came from: no rule let the request pass, the server."""

Direction = Literal["ingress", "egress"]


class Source(NamedTuple):
    """What the name of a log says: whose records it has."""

    direction: Direction
    port: int
    what: str
    """``http``, ``refused`` (TLS connections that found no chain), ``tls ROUTE``."""

    @classmethod
    def of(cls, name: str) -> Source:
        """Reverses the name that a listener gives its log.  Raises: ValueError."""
        direction, port, what = name.split(" ", 2)
        return cls("ingress" if direction == "ingress" else "egress", int(port), what)


class Facts(NamedTuple):
    """What is known beside the record."""

    node: str
    endpoints: Mapping[str, ProxyEndpoint]
    """By address."""
    identity: Callable[[str], int]
    """Of an address; 0: not known."""


def count(message: bytes) -> int:
    """How many requests and connections *message* tells of, without reading them."""
    found = 0
    for number, wire, raw in parts(message):
        if number in (2, 3) and wire == BYTES:
            found += sum(1 for _ in parts(raw))
    return found


def records(source: Source, message: bytes, facts: Facts) -> Iterator[L7Record]:
    """The records that *message* makes.  Raises: ValueError if it is no message of access records."""
    from google.protobuf.message import DecodeError

    try:
        told = _messages().FromString(message)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    known: dict[tuple[bytes, bytes], dict[str, Any]] = {}
    """What is told of many requests of a connection is made once."""
    for entry in (*told.http_logs.log_entry, *told.tcp_logs.log_entry):
        common = entry.common_properties
        pair = common.downstream_remote_address, common.downstream_local_address
        if (ends := known.get(pair)) is None:
            ends = known[pair] = _ends(source, *pair, facts)
        yield from _tls(source, common, ends) if len(told.tcp_logs.log_entry) else _http(entry, ends)


@lru_cache(maxsize=1)
def _messages() -> Any:
    from cirri.l7proxy.bulk import message_class

    return message_class(LOGS)


def _ends(source: Source, remote: bytes, local: bytes, facts: Facts) -> dict[str, Any]:
    """Who spoke with whom."""
    (client, client_text), (server, server_text) = _end(remote), _end(local)
    own = facts.endpoints.get(server if source.direction == "ingress" else client)
    identities = {"source": facts.identity(client), "destination": facts.identity(server)}
    if own is not None:
        identities["destination" if source.direction == "ingress" else "source"] = own.identity
    return {
        "node": facts.node,
        "direction": source.direction,
        "endpoint": own.id if own else 0,
        "source": client_text,
        "destination": server_text,
        "source_identity": identities["source"],
        "destination_identity": identities["destination"],
    }


def _http(entry: Any, ends: dict[str, Any]) -> Iterator[L7Record]:
    common, request, response = entry.common_properties, entry.request, entry.response
    taken = verdict_of(_text(common.route_name))
    details, failure = _text(response.response_code_details), _text(common.upstream_transport_failure_reason)
    verdict, message = _judged(taken, details, failure)
    host = _text(request.authority)
    http: dict[str, Any] = {
        "method": _method(request),
        "url": f"{_text(request.scheme) or 'http'}://{host}{_text(request.path)}",
        "protocol": PROTOCOLS.get(entry.protocol_version, ""),
        "host": host,
    }
    server_name = _server_name(common.tls_properties)
    more = {
        **ends,
        "rule": taken.cookie if taken else 0,
        "log": taken.log if taken else "",
        "tls": TlsFacts(server_name=server_name) if server_name else None,
        "message": message,
    }
    began, took = _ns(common.start_time), _ns(common.duration)
    # What went wrong after the request had been let pass is about the answer.
    asked: Verdict = "forwarded" if taken else verdict
    yield L7Record(time=began, type="request", verdict=asked, http=HttpFacts(**http), **more)
    yield L7Record(
        time=began + took, type="response", verdict=verdict, latency_ns=took,
        http=HttpFacts(**http, code=response.response_code.value), **more,
    )  # fmt: skip


def _judged(taken: Taken | None, details: str, failure: str) -> tuple[Verdict, str]:
    """What became of a request, and what there is to say about it."""
    if taken is None:
        return ("dropped", "") if details == REFUSED else ("error", details)
    if details == SERVER:
        return "forwarded", taken.message
    return "error", "; ".join(filter(None, (taken.message, details, failure)))


def _tls(source: Source, common: Any, ends: dict[str, Any]) -> Iterator[L7Record]:
    kind = common.access_log_type
    if source.what == "refused" and not common.response_flags.no_route_found:
        return  # what did find its chain is told of there
    taken = verdict_of(source.what.removeprefix("tls ")) if source.what != "refused" else None
    began, took = _ns(common.start_time), _ns(common.duration)
    ends = ends | {"tls": TlsFacts(server_name=_server_name(common.tls_properties))}
    if taken is None:
        yield L7Record(time=began, type="request", verdict="dropped", **ends)
        return
    ends |= {"rule": taken.cookie, "log": taken.log}
    if kind == BEGAN:
        yield L7Record(time=began, type="request", verdict="forwarded", **ends)
    elif kind == ENDED:
        failure = _text(common.upstream_transport_failure_reason)
        verdict: Verdict = "error" if failure else "forwarded"
        yield L7Record(
            time=began + took, type="response", verdict=verdict, latency_ns=took, message=failure, **ends
        )


def _method(request: Any) -> str:
    """Of Envoy's list; what is not in it is among the headers."""
    if 0 < (number := request.request_method) < len(METHODS):
        return METHODS[number]
    return next((_text(each.value) for each in request.request_headers if each.key == METHOD), "")


@lru_cache(maxsize=4096)
def _server_name(raw: bytes) -> str:
    return str(TLS_PROPERTIES.decode(raw).get("tls_sni_hostname", ""))


@lru_cache(maxsize=16384)
def _end(raw: bytes) -> tuple[str, str]:
    """(address, address and port as text)"""
    told = END.decode(raw).get("socket_address", {})
    host, port = told.get("address", ""), told.get("port_value", 0)
    return host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _ns(time: Any) -> int:
    """A ``Duration`` or ``Timestamp`` in nanoseconds."""
    return int(time.seconds * 10**9 + time.nanos)
