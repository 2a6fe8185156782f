"""Envoy's listeners: where it takes connections, and what reads them.

What a listener looks like depends on the kind of its rules, not on what they list: that is in the
route table (http) or among the conditions on its chains (tls), so that a change of rules leaves
connections alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from msgspec import structs

from cirri.l7proxy import match
from cirri.l7proxy.access import METHOD
from cirri.l7proxy.messages import ADS, LISTENER, string_value, typed
from cirri.l7proxy.routes import DIRECT, Verdict, cluster_name, route_name
from cirri.l7proxy.rules import Allow, Rules, Tls, for_all
from cirri.l7proxy.sampling import only_some
from cirri.l7proxy.secrets import certificate_name
from cirri.l7proxy.wire import Raw
from cirri.model.http import HttpSettings, S
from cirri.proxies import Listener

CLIENT_MARK = {"ingress": 0x0A00, "egress": 0x0B00}
SERVER_MARK = {"ingress": 0x0A01, "egress": 0x0B01}
"""SO_MARK of the sockets that face the client and the server: what the kernel's programs know them by."""
DIRECTION = {"ingress": 1, "egress": 2}
ADDRESSES = ("127.0.0.1", "::1")
SOL_SOCKET, SO_MARK = 1, 36
RECORDS = "cirri.records"
"""The static cluster that access records go to."""
HELLO_S = 15
"""How long a client may take to say whom it wants."""

REFUSED = "Access denied"
"""Body of a 403."""
_REFUSAL = {
    "filter": {"response_flag_filter": {"flags": ["NR"]}},
    "status_code": 403,
    "body": {"inline_string": REFUSED},
}
"""What is answered where there is no route."""
_FILTERS = "envoy.extensions.filters"
_TLS = "envoy.extensions.transport_sockets.tls.v3"


def listener(
    given: Listener, rules: Rules, settings: HttpSettings, *, ipv6: bool = True
) -> tuple[Raw, list[str]]:
    """The listener of *given*, encoded; and what in *rules* it cannot carry out.

    *ipv6*: whether the machine has ``::1``.
    """
    if given.kind == "tls":
        return _encoded(given, _tls(given, rules), ipv6=ipv6), []
    contexts = tuple(dict.fromkeys(allow.terminating for allow in rules.allows if allow.terminating))
    problems = []
    if len(contexts) > 1:
        # Which certificate to show cannot be told before the rules have been asked.
        problems.append("its rules name several TLS certificates: no TLS connection is taken")
        contexts = ()
    return _http(structs.replace(given, rules=""), contexts, settings, ipv6), problems


def _encoded(given: Listener, special: dict[str, Any], *, ipv6: bool) -> Raw:
    also = {"additional_addresses": [{"address": _address(ADDRESSES[1], given.port)}]} if ipv6 else {}
    return Raw(LISTENER.encode({**_common(given), **also, **special}))


def _common(given: Listener) -> dict[str, Any]:
    """What all have: addresses, marks, both original ends, a socket that bpf_sk_assign takes."""
    mark = {
        "description": "mark",
        "level": SOL_SOCKET,
        "name": SO_MARK,
        "int_value": CLIENT_MARK[given.direction],
        "state": 0,
    }
    return {
        "name": str(given.port),
        "stat_prefix": "l7",
        "address": _address(ADDRESSES[0], given.port),
        "transparent": True,
        "socket_options": [mark],
        "traffic_direction": DIRECTION[given.direction],
        # One socket for all workers: kernels before 6.6 do not assign packets to a group of sockets,
        # and a hot restart hands it over with what waits in it.
        "enable_reuse_port": False,
        "connection_balance_config": {"exact_balance": {}},
        "tcp_backlog_size": 4096,
        "listener_filters_timeout": HELLO_S * S,
    }


def _listener_filters(given: Listener, *, inspect: bool) -> list[dict[str, Any]]:
    source = {"mark": SERVER_MARK[given.direction]}
    found = [
        _extension(
            "envoy.filters.listener.original_dst", f"{_FILTERS}.listener.original_dst.v3.OriginalDst", {}
        ),
        _extension(
            "envoy.filters.listener.original_src", f"{_FILTERS}.listener.original_src.v3.OriginalSrc", source
        ),
    ]
    if inspect:
        kind = f"{_FILTERS}.listener.tls_inspector.v3.TlsInspector"
        found.append(_extension("envoy.filters.listener.tls_inspector", kind, {}))
    return found


@lru_cache(maxsize=1024)
def _http(given: Listener, contexts: tuple[Tls, ...], settings: HttpSettings, ipv6: bool) -> Raw:
    """The same for other rules, so *given* is without."""
    manager = _manager(given, settings)
    plain = {"name": "plain", "filters": [manager]}
    chains: list[dict[str, Any]] = [plain]
    if contexts:
        state = _extension(
            "envoy.filters.network.set_filter_state",
            f"{_FILTERS}.network.set_filter_state.v3.Config",
            {
                "on_new_connection": [
                    {
                        "object_key": match.SERVER_NAME,
                        "factory_key": "envoy.string",
                        "format_string": {"text_format_source": {"inline_string": "%REQUESTED_SERVER_NAME%"}},
                    }
                ]
            },
        )
        chains.insert(
            0,
            {
                "name": "tls",
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": _downstream(contexts[0], ("h2", "http/1.1")),
                "filters": [state, manager],
            },
        )
    filters = _listener_filters(given, inspect=bool(contexts))
    return _encoded(given, {"filter_chains": chains, "listener_filters": filters}, ipv6=ipv6)


def _manager(given: Listener, settings: HttpSettings) -> dict[str, Any]:
    """The HTTP connection manager: it changes nothing about a request that the rules do not."""
    manager: dict[str, Any] = {
        "stat_prefix": "http",
        "codec_type": "AUTO",
        "rds": {"route_config_name": str(given.port), "config_source": ADS},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"type.googleapis.com/{_FILTERS}.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
        "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
        "http_protocol_options": {
            "accept_http_10": True,
            "default_host_for_http_10": "localhost",
            "enable_trailers": True,
        },
        "http2_protocol_options": {"allow_connect": True},
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "use_remote_address": False,
        "skip_xff_append": True,
        "internal_address_config": {},
        "stream_idle_timeout": _duration(settings.stream_idle_timeout),
        "common_http_protocol_options": {"idle_timeout": _duration(settings.idle_timeout)},
        "access_log": [_access_log("http", given)],
        "local_reply_config": {"mappers": [_REFUSAL]},
    }
    if settings.normalize_path:
        manager |= {
            "normalize_path": True,
            "merge_slashes": True,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        }
    else:
        manager["normalize_path"] = False
    kind = f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"
    return _extension("envoy.filters.network.http_connection_manager", kind, manager)


def _tls(given: Listener, rules: Rules) -> dict[str, Any]:
    """Connections are told apart by the name that their client asks for; the others find no chain."""
    common = for_all(rules)
    if rules.any and common == Allow():
        every = {"filter_chains": [_chain(given, "any", None)]}
        return {**every, "listener_filters": _listener_filters(given, inspect=False)}
    chains: dict[str, dict[str, Any]] = {}
    matchers = []
    otherwise = ""
    for allow in (common,) if rules.any else rules.allows:
        if allow.requests == ():
            continue
        name = _chain_name(allow)
        chains[name] = _chain(given, name, allow)
        if allow.serverNames:
            matchers.append(_when_named(allow, name))
        else:
            otherwise = otherwise or name
    if not matchers:
        # Envoy wants a condition: this one is never met, and leads nowhere if it were.
        nobody = Allow(serverNames=("nobody",))
        chains["nobody"] = _chain(given, "nobody", nobody, cluster="nobody")
        matchers.append(_when_named(nobody, "nobody"))
    condition: dict[str, Any] = {"matcher_list": {"matchers": matchers}}
    if otherwise:
        condition["on_no_match"] = {"action": _to_chain(otherwise)}
    return {
        "filter_chains": list(chains.values()),
        "filter_chain_matcher": condition,
        "listener_filters": _listener_filters(given, inspect=True),
        "access_log": [_access_log("refused", given)],
    }


def _chain_name(allow: Allow) -> str:
    parts = [route_name(Verdict(allow.cookie, allow.log)), cluster_name(allow)]
    return " ".join([*parts, certificate_name(allow.terminating)] if allow.terminating else parts)


def _chain(given: Listener, name: str, allow: Allow | None, cluster: str = "") -> dict[str, Any]:
    """A chain that passes bytes on, to *cluster* if that is given."""
    verdict = Verdict(allow.cookie, allow.log) if allow else Verdict()
    proxy = {
        "stat_prefix": "tls",
        "cluster": cluster or (cluster_name(allow) if allow else DIRECT),
        "idle_timeout": "0s",
        "access_log": [_access_log(f"tls {route_name(verdict)}", given)],
        "access_log_options": {"flush_access_log_on_connected": True},
    }
    kind = f"{_FILTERS}.network.tcp_proxy.v3.TcpProxy"
    chain: dict[str, Any] = {
        "name": name,
        "filters": [_extension("envoy.filters.network.tcp_proxy", kind, proxy)],
    }
    if allow and allow.terminating:
        chain["transport_socket"] = _downstream(allow.terminating, ())
    return chain


def _when_named(allow: Allow, chain: str) -> dict[str, Any]:
    asked = {
        "name": "server name",
        "typed_config": typed("envoy.extensions.matching.common_inputs.network.v3.ServerNameInput", {}),
    }
    expression = match.server_name_match(allow.serverNames)["safe_regex"]["regex"]
    value = {"safe_regex": {"google_re2": {}, "regex": expression}}
    return {
        "predicate": {"single_predicate": {"input": asked, "value_match": value}},
        "on_match": {"action": _to_chain(chain)},
    }


def _to_chain(name: str) -> dict[str, Any]:
    # As a message of its own: Envoy aborts when it dumps this type as a TypedStruct.
    return {"name": "chain", "typed_config": string_value(name)}


def _downstream(tls: Tls, protocols: tuple[str, ...]) -> dict[str, Any]:
    context = {
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [{"name": certificate_name(tls), "sds_config": ADS}],
            "alpn_protocols": list(protocols),
        }
    }
    return _extension("envoy.transport_sockets.tls", f"{_TLS}.DownstreamTlsContext", context)


def _access_log(what: str, given: Listener) -> dict[str, Any]:
    """Records by gRPC; their name says which listener and direction they are about."""
    http = what == "http"
    common = {
        "log_name": f"{given.direction} {given.port} {what}",
        "grpc_service": {"envoy_grpc": {"cluster_name": RECORDS}},
        "transport_api_version": "V3",
        "buffer_flush_interval": "0.2s",
        "buffer_size_bytes": 16384,
    }
    kind = "HttpGrpcAccessLogConfig" if http else "TcpGrpcAccessLogConfig"
    name = f"envoy.access_loggers.{'http' if http else 'tcp'}_grpc"
    full = f"envoy.extensions.access_loggers.grpc.v3.{kind}"
    config: dict[str, Any] = {"common_config": common}
    if not http and what == "refused":
        return _extension(name, full, config)
    if http:
        config["additional_request_headers_to_log"] = [METHOD.decode()]
    inner = {"@type": f"type.googleapis.com/{full}", **config}
    return {"name": name, "typed_config": inner, **({"filter": only_some()} if http else {})}


def _extension(name: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": typed(kind, config)}


def _address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _duration(nanoseconds: int) -> str:
    return f"{nanoseconds // S}s"
