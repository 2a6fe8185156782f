"""Access records of Envoy become L7 records."""

from typing import Any

import pytest

from cirri.l7proxy.access import Facts, Source, count, records
from cirri.l7proxy.messages import LOGS
from cirri.l7proxy.routes import Verdict, route_name
from cirri.model import HttpFacts, L7Record, TlsFacts
from cirri.proxies import ProxyEndpoint

POD = ProxyEndpoint(id=7, identity=300, addresses=("10.0.0.2", "fd00::2"))
FACTS = Facts("n1", dict.fromkeys(POD.addresses, POD), lambda a: {"10.0.0.1": 400, "fd00::1": 401}.get(a, 0))
ROUTE = route_name(Verdict(9, "shop", ""))


def entry(route: str = ROUTE, code: int = 200, details: str = "via_upstream", **more: Any) -> dict[str, Any]:
    ends = [
        {"socket_address": {"address": a, "port_value": p}} for a, p in (("10.0.0.1", 5000), ("10.0.0.2", 80))
    ]
    common = {
        "downstream_remote_address": ends[0], "downstream_local_address": ends[1], "start_time": 1000,
        "duration": 30, "route_name": route, **more,
    }  # fmt: skip
    asked = {"request_method": 1, "scheme": "http", "authority": "api", "path": "/x?y"}
    response = {"response_code": code, "response_code_details": details}
    return {"common_properties": common, "protocol_version": 2, "request": asked, "response": response}


def connection(**more: Any) -> dict[str, Any]:
    return {"common_properties": entry(**more)["common_properties"]}


def told(log: str, *entries: dict[str, Any], kind: str = "http_logs") -> list[L7Record]:
    message = LOGS.encode({kind: {"log_entry": entries}})
    assert count(message) == len(entries)
    return list(records(Source.of(log), message, FACTS))


def test_a_request_that_passed() -> None:
    http: dict[str, Any] = {"method": "GET", "url": "http://api/x?y", "protocol": "HTTP/1.1", "host": "api"}
    both: dict[str, Any] = {
        "node": "n1", "direction": "ingress", "endpoint": 7, "source": "10.0.0.1:5000", "rule": 9,
        "log": "shop", "destination": "10.0.0.2:80", "source_identity": 400, "destination_identity": 300,
        "verdict": "forwarded",
    }  # fmt: skip
    assert told("ingress 10100 http", entry()) == [
        L7Record(time=1000, type="request", http=HttpFacts(**http), **both),
        L7Record(time=1030, type="response", latency_ns=30, http=HttpFacts(**http, code=200), **both),
    ]


def test_egress_turns_the_ends() -> None:
    request, _ = told("egress 10100 http", entry())
    assert (request.direction, request.endpoint, request.source_identity) == ("egress", 0, 400)


@pytest.mark.parametrize(
    ("given", "verdicts", "message"),
    [
        (entry("", 403, "route_not_found"), ("dropped", "dropped"), ""),
        (entry("", 400, "http1.codec_error"), ("error", "error"), "http1.codec_error"),
        (entry("", 307, "path_normalization"), ("error", "error"), "path_normalization"),
        (entry(code=503, details="upstream_reset_before_response_started",
               upstream_transport_failure_reason="refused"),
         ("forwarded", "error"), "upstream_reset_before_response_started; refused"),
        (entry(route_name(Verdict(9, "", "LOG X-A"))), ("forwarded", "forwarded"), "LOG X-A"),
    ],
)  # fmt: skip
def test_verdicts(given: dict[str, Any], verdicts: tuple[str, str], message: str) -> None:
    found = told("ingress 10100 http", given)
    assert tuple(one.verdict for one in found) == verdicts
    assert found[1].message == message


def test_tls_connections() -> None:
    name = {"tls_properties": {"tls_sni_hostname": "a.example"}}
    began, ended = (connection(access_log_type=kind, **name) for kind in (1, 3))
    found = told(f"egress 10100 tls {ROUTE}", began, ended, kind="tcp_logs")
    assert [(one.type, one.verdict, one.rule, one.tls) for one in found] == [
        ("request", "forwarded", 9, TlsFacts(server_name="a.example")),
        ("response", "forwarded", 9, TlsFacts(server_name="a.example")),
    ]
    refused = connection(access_log_type=3, response_flags={"no_route_found": True}, **name)
    (dropped,) = told("egress 10100 refused", refused, ended, kind="tcp_logs")
    assert (dropped.verdict, dropped.rule, dropped.tls) == ("dropped", 0, TlsFacts(server_name="a.example"))


def test_ipv6() -> None:
    one = entry()
    one["common_properties"]["downstream_remote_address"] = {
        "socket_address": {"address": "fd00::1", "port_value": 1}
    }
    request, _ = told("ingress 10100 http", one)
    assert (request.source, request.source_identity) == ("[fd00::1]:1", 401)
