"""The messages of Envoy's API that are used here, as tables: (number, type) of each field.

Names and numbers are those of Envoy's ``api/`` (v3); a test has Envoy dump what it was given and
compares.  What Envoy takes as an extension is written as ``TypedStruct``: JSON that Envoy checks against
its own definitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cirri.l7proxy.wire import BLOB, BOOL, DOUBLE, NUMBER, STRING, Field, Message, Scalar, Sealed, Type

TYPES = "type.googleapis.com/"
TYPED_STRUCT = TYPES + "xds.type.v3.TypedStruct"
LISTENER_TYPE = TYPES + "envoy.config.listener.v3.Listener"
ROUTE_TYPE = TYPES + "envoy.config.route.v3.RouteConfiguration"
CLUSTER_TYPE = TYPES + "envoy.config.cluster.v3.Cluster"
SECRET_TYPE = TYPES + "envoy.extensions.transport_sockets.tls.v3.Secret"
BUCKET_TYPE = TYPES + "envoy.type.v3.TokenBucket"
RESOURCE_TYPES = (CLUSTER_TYPE, SECRET_TYPE, BUCKET_TYPE, ROUTE_TYPE, LISTENER_TYPE)
"""In the order in which they are told: what is named, before what names it."""

ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
"""Where what is referred to comes from: who refers to it waits, for ever, and does not serve without it."""


def one(number: int, type_: Type) -> Field:
    """A field."""
    return Field(number, type_)


def some(number: int, type_: Type) -> Field:
    """A repeated field."""
    return Field(number, type_, repeated=True)


def choice(number: int, type_: Scalar) -> Field:
    """A scalar in a oneof: that it is there says something."""
    return Field(number, type_, optional=True)


class _Wrapped(Message):
    """``BoolValue``, ``UInt32Value``: in dicts the bare value."""

    def __init__(self, name: str, scalar: Scalar) -> None:
        super().__init__(name, value=Field(1, scalar))
        self._zero = scalar.zero

    def encode(self, value: Any) -> bytes:
        return super().encode({"value": value})

    def decode(self, data: Any) -> Any:
        return super().decode(data).get("value", self._zero)


class _Time(Message):
    """``Duration`` and ``Timestamp``: in dicts the number of nanoseconds."""

    def __init__(self, name: str) -> None:
        super().__init__(name, seconds=Field(1, NUMBER), nanos=Field(2, NUMBER))

    def encode(self, value: Any) -> bytes:
        seconds, nanos = divmod(value, 10**9)
        return super().encode({"seconds": seconds, "nanos": nanos})

    def decode(self, data: Any) -> Any:
        found = super().decode(data)
        return found.get("seconds", 0) * 10**9 + found.get("nanos", 0)


class _Map(Message):
    """An entry of a map from strings to strings: in dicts (key, value)."""

    def __init__(self) -> None:
        super().__init__("entry", key=Field(1, STRING), value=Field(2, STRING))

    def encode(self, value: Any) -> bytes:
        return super().encode({"key": value[0], "value": value[1]})

    def decode(self, data: Any) -> Any:
        found = super().decode(data)
        return found.get("key", ""), found.get("value", "")


class _Value(Message):
    """``google.protobuf.Value``: JSON."""

    def __init__(self) -> None:
        super().__init__(
            "google.protobuf.Value",
            null_value=choice(1, NUMBER), number_value=choice(2, DOUBLE), string_value=choice(3, STRING),
            bool_value=choice(4, BOOL),
        )  # fmt: skip

    def encode(self, value: Any) -> bytes:
        match value:
            case bool():
                return super().encode({"bool_value": value})
            case int() | float():
                return super().encode({"number_value": float(value)})
            case str():
                return super().encode({"string_value": value})
            case Mapping():
                return super().encode({"struct_value": value})
            case list() | tuple():
                return super().encode({"list_value": value})
        return super().encode({"null_value": 0})


class _List(Message):
    def encode(self, value: Any) -> bytes:
        return super().encode({"values": value})


class _Struct(Message):
    def encode(self, value: Any) -> bytes:
        return super().encode({"fields": [{"key": key, "value": each} for key, each in value.items()]})


VALUE = _Value()
STRUCT = _Struct(
    "google.protobuf.Struct",
    fields=some(1, Message("google.protobuf.Struct.Entry", key=one(1, STRING), value=one(2, VALUE))),
)
VALUE.fields["struct_value"] = one(5, STRUCT)
VALUE.fields["list_value"] = one(6, _List("google.protobuf.ListValue", values=some(1, VALUE)))

BOOL_VALUE = _Wrapped("google.protobuf.BoolValue", BOOL)
NUMBER_VALUE = _Wrapped("google.protobuf.UInt32Value", NUMBER)
STRING_VALUE = _Wrapped("google.protobuf.StringValue", STRING)
DURATION = _Time("google.protobuf.Duration")
ENTRY = _Map()
ANY = Message("google.protobuf.Any", type_url=one(1, STRING), value=one(2, BLOB))
_TYPED_STRUCT = Message("xds.type.v3.TypedStruct", type_url=one(1, STRING), value=one(2, STRUCT))


def typed(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The ``Any`` of extension *name* (``envoy.…``), configured by *value* as in JSON."""
    inner = _TYPED_STRUCT.encode({"type_url": TYPES + name, "value": value})
    return {"type_url": TYPED_STRUCT, "value": inner}


def plain(name: str, kind: Message, value: Mapping[str, Any]) -> dict[str, Any]:
    """The ``TypedExtensionConfig`` *name* that holds *value* as a message of its own *kind*."""
    return {
        "name": name,
        "typed_config": {"type_url": TYPES + kind.name, "value": kind.encode(value)},
    }


def string_value(text: str) -> dict[str, Any]:
    """The ``Any`` of a bare string."""
    return {"type_url": f"{TYPES}google.protobuf.StringValue", "value": STRING_VALUE.encode(text)}


EXTENSION = Message(
    "envoy.config.core.v3.TypedExtensionConfig", name=one(1, STRING), typed_config=one(2, ANY)
)
"""Also ``xds.core.v3.TypedExtensionConfig``, which looks the same."""
FILTER = Message("envoy.config.listener.v3.Filter", name=one(1, STRING), typed_config=one(4, ANY))
ACCESS_LOG = Message("envoy.config.accesslog.v3.AccessLog", name=one(1, STRING), typed_config=one(4, ANY))
TRANSPORT_SOCKET = Message(
    "envoy.config.core.v3.TransportSocket", name=one(1, STRING), typed_config=one(3, ANY)
)
SOCKET_ADDRESS = Message(
    "envoy.config.core.v3.SocketAddress", address=one(2, STRING), port_value=choice(3, NUMBER)
)
ADDRESS = Message("envoy.config.core.v3.Address", socket_address=one(1, SOCKET_ADDRESS))
SOCKET_OPTION = Message(
    "envoy.config.core.v3.SocketOption",
    description=one(1, STRING), level=one(2, NUMBER), name=one(3, NUMBER), int_value=choice(4, NUMBER),
    state=one(6, NUMBER),
)  # fmt: skip
REGEX = Message("envoy.type.matcher.v3.RegexMatcher", regex=one(2, STRING))
STRING_MATCH = Message(
    "envoy.type.matcher.v3.StringMatcher",
    exact=choice(1, STRING), prefix=choice(2, STRING), safe_regex=one(5, REGEX), ignore_case=one(6, BOOL),
)  # fmt: skip
XDS_STRING_MATCH = Message(
    "xds.type.matcher.v3.StringMatcher",
    exact=choice(1, STRING),
    safe_regex=one(5, Message("xds.type.matcher.v3.RegexMatcher",
                              google_re2=one(1, Message("GoogleRE2")), regex=one(2, STRING))),
)  # fmt: skip

MATCHER = Message("xds.type.matcher.v3.Matcher")
_PREDICATE = Message(
    "xds.type.matcher.v3.Matcher.MatcherList.Predicate",
    single_predicate=one(1, Message("SinglePredicate", input=one(1, EXTENSION),
                                    value_match=one(2, XDS_STRING_MATCH))),
)  # fmt: skip
_ON_MATCH = Message("xds.type.matcher.v3.Matcher.OnMatch", action=one(2, EXTENSION))
_FIELD_MATCHER = Message(
    "xds.type.matcher.v3.Matcher.MatcherList.FieldMatcher",
    predicate=one(1, _PREDICATE), on_match=one(2, _ON_MATCH),
)  # fmt: skip
MATCH_MAP = Message(
    "xds.type.matcher.v3.Matcher.MatcherTree.MatchMap",
    map=some(1, Message("Entry", key=one(1, STRING), value=one(2, _ON_MATCH))),
)
MATCHER.fields |= {
    "matcher_list": one(1, Message("MatcherList", matchers=some(1, _FIELD_MATCHER))),
    "matcher_tree": one(
        2, Message("MatcherTree", input=one(1, EXTENSION), prefix_match_map=one(3, MATCH_MAP))
    ),
    "on_no_match": one(3, _ON_MATCH),
}

FILTER_CHAIN = Message(
    "envoy.config.listener.v3.FilterChain",
    filter_chain_match=one(1, Message("FilterChainMatch", transport_protocol=one(9, STRING))),
    filters=some(3, FILTER), transport_socket=one(6, TRANSPORT_SOCKET), name=one(7, STRING),
)  # fmt: skip
LISTENER = Message(
    "envoy.config.listener.v3.Listener",
    name=one(1, STRING), address=one(2, ADDRESS),
    additional_addresses=some(33, Message("AdditionalAddress", address=one(1, ADDRESS))),
    stat_prefix=one(28, STRING), filter_chains=some(3, FILTER_CHAIN), filter_chain_matcher=one(32, MATCHER),
    listener_filters=some(9, Message("ListenerFilter", name=one(1, STRING), typed_config=one(3, ANY))),
    listener_filters_timeout=one(15, DURATION), continue_on_listener_filters_timeout=one(17, BOOL),
    transparent=one(10, BOOL_VALUE), socket_options=some(13, SOCKET_OPTION),
    traffic_direction=one(16, NUMBER),
    connection_balance_config=one(20, Message("ConnectionBalanceConfig",
                                              exact_balance=one(1, Message("ExactBalance")))),
    enable_reuse_port=one(29, BOOL_VALUE), access_log=some(22, ACCESS_LOG),
    tcp_backlog_size=one(24, NUMBER_VALUE),
)  # fmt: skip

HEADER_MATCH = Message(
    "envoy.config.route.v3.HeaderMatcher",
    name=one(1, STRING), present_match=choice(7, BOOL), string_match=one(13, STRING_MATCH),
    invert_match=one(8, BOOL),
)  # fmt: skip
HEADER_OPTION = Message(
    "envoy.config.core.v3.HeaderValueOption",
    header=one(1, Message("HeaderValue", key=one(1, STRING), value=one(2, STRING))),
    append_action=one(3, NUMBER), keep_empty_value=one(4, BOOL),
)  # fmt: skip
ROUTE_MATCH = Message(
    "envoy.config.route.v3.RouteMatch",
    prefix=choice(1, STRING), connect_matcher=one(12, Message("ConnectMatcher")),
    headers=some(6, HEADER_MATCH),
    filter_state=some(16, Message("FilterStateMatcher", key=one(1, STRING),
                                  string_match=one(2, STRING_MATCH))),
)  # fmt: skip
ROUTE_ACTION = Message(
    "envoy.config.route.v3.RouteAction",
    cluster=choice(1, STRING), timeout=one(8, DURATION), idle_timeout=one(24, DURATION),
    max_grpc_timeout=one(23, DURATION),
)  # fmt: skip
DATA_SOURCE = Message(
    "envoy.config.core.v3.DataSource", inline_bytes=choice(2, BLOB), inline_string=choice(3, STRING)
)
ROUTE = Message(
    "envoy.config.route.v3.Route",
    name=one(14, STRING), match=one(1, ROUTE_MATCH), route=one(2, ROUTE_ACTION),
    request_headers_to_add=some(9, HEADER_OPTION), request_headers_to_remove=some(12, STRING),
)  # fmt: skip
RETRY_POLICY = Message(
    "envoy.config.route.v3.RetryPolicy", retry_on=one(1, STRING), num_retries=one(2, NUMBER_VALUE)
)
HEADER_INPUT = Message("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=one(1, STRING))
ROUTE_LIST = Message("envoy.config.route.v3.RouteList", routes=some(1, ROUTE))
VIRTUAL_HOST = Message(
    "envoy.config.route.v3.VirtualHost",
    name=one(1, STRING), domains=some(2, STRING), routes=some(3, ROUTE), retry_policy=one(16, RETRY_POLICY),
    matcher=one(21, MATCHER),
)  # fmt: skip
ROUTES = Message(
    "envoy.config.route.v3.RouteConfiguration",
    name=one(1, STRING), virtual_hosts=some(2, VIRTUAL_HOST), validate_clusters=one(7, BOOL_VALUE),
)  # fmt: skip

_THRESHOLDS = Message(
    "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
    max_connections=one(2, NUMBER_VALUE), max_pending_requests=one(3, NUMBER_VALUE),
    max_requests=one(4, NUMBER_VALUE), max_retries=one(5, NUMBER_VALUE),
)  # fmt: skip
CLUSTER = Message(
    "envoy.config.cluster.v3.Cluster",
    name=one(1, STRING), type=one(2, NUMBER), connect_timeout=one(4, DURATION), lb_policy=one(6, NUMBER),
    circuit_breakers=one(10, Message("CircuitBreakers", thresholds=some(1, _THRESHOLDS))),
    cleanup_interval=one(20, DURATION), transport_socket=one(24, TRANSPORT_SOCKET),
    typed_extension_protocol_options=some(36, Message("Entry", key=one(1, STRING), value=one(2, ANY))),
)  # fmt: skip

SECRET = Message(
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    name=one(1, STRING),
    tls_certificate=one(2, Message("TlsCertificate", certificate_chain=one(1, DATA_SOURCE),
                                   private_key=one(2, DATA_SOURCE))),
    validation_context=one(4, Message("CertificateValidationContext", trusted_ca=one(1, DATA_SOURCE))),
)  # fmt: skip

TOKEN_BUCKET = Message(
    "envoy.type.v3.TokenBucket",
    max_tokens=one(1, NUMBER), tokens_per_fill=one(2, NUMBER_VALUE), fill_interval=one(3, DURATION),
)  # fmt: skip

DELTA_REQUEST = Message(
    "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    type_url=one(2, STRING), resource_names_subscribe=some(3, STRING),
    resource_names_unsubscribe=some(4, STRING), initial_resource_versions=some(5, ENTRY),
    response_nonce=one(6, STRING),
    error_detail=one(7, Message("google.rpc.Status", code=one(1, NUMBER), message=one(2, STRING))),
)  # fmt: skip
DELTA_RESPONSE = Message(
    "envoy.service.discovery.v3.DeltaDiscoveryResponse",
    resources=some(2, Message("envoy.service.discovery.v3.Resource", name=one(3, STRING),
                              version=one(1, STRING), resource=one(2, ANY))),
    type_url=one(4, STRING), nonce=one(5, STRING), removed_resources=some(6, STRING),
)  # fmt: skip

END = Sealed(ADDRESS.name, **ADDRESS.fields)
TLS_PROPERTIES = Sealed("TLSProperties", tls_sni_hostname=one(3, STRING))
COMMON_LOG = Message(
    "envoy.data.accesslog.v3.AccessLogCommon",
    downstream_remote_address=one(2, END), downstream_local_address=one(3, END),
    tls_properties=one(4, TLS_PROPERTIES),
    start_time=one(5, DURATION), upstream_transport_failure_reason=one(18, STRING),
    route_name=one(19, STRING), duration=one(23, DURATION),
    access_log_type=one(33, NUMBER),
    response_flags=one(16, Message("envoy.data.accesslog.v3.ResponseFlags", no_route_found=one(9, BOOL))),
)  # fmt: skip
HTTP_LOG = Message(
    "envoy.data.accesslog.v3.HTTPAccessLogEntry",
    common_properties=one(1, COMMON_LOG), protocol_version=one(2, NUMBER),
    request=one(3, Message("HTTPRequestProperties", request_method=one(1, NUMBER), scheme=one(2, STRING),
                           authority=one(3, STRING), path=one(5, STRING), user_agent=one(6, STRING),
                           request_headers=some(13, ENTRY))),
    response=one(4, Message("HTTPResponseProperties", response_code=one(1, NUMBER_VALUE),
                            response_code_details=one(6, STRING))),
)  # fmt: skip
TCP_LOG = Message("envoy.data.accesslog.v3.TCPAccessLogEntry", common_properties=one(1, COMMON_LOG))
LOGS = Message(
    "envoy.service.accesslog.v3.StreamAccessLogsMessage",
    identifier=one(1, Message("Identifier", log_name=one(2, STRING))),
    http_logs=one(2, Message("HTTPAccessLogEntries", log_entry=some(1, HTTP_LOG))),
    tcp_logs=one(3, Message("TCPAccessLogEntries", log_entry=some(1, TCP_LOG))),
)  # fmt: skip
