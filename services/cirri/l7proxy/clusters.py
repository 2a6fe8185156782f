"""Envoy's clusters: on to where the client wanted to go, as it is or in TLS of the proxy's own."""

from __future__ import annotations

from typing import Any

from cirri.l7proxy.messages import ADS, CLUSTER, typed
from cirri.l7proxy.routes import DIRECT
from cirri.l7proxy.rules import Tls
from cirri.l7proxy.secrets import authority_name, certificate_name
from cirri.l7proxy.wire import Raw
from cirri.model.http import HttpSettings, S

ORIGINAL_DST, CLUSTER_PROVIDED = 4, 6
NO_LIMIT = 0xFFFFFFFF
"""Limits are the server's and the node's, not the proxy's."""
FORGET_S = 60
"""How long an address is remembered that nobody goes to."""

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def direct(settings: HttpSettings) -> Raw:
    """Speaks with the server what the client speaks."""
    options = {
        "use_downstream_protocol_config": {
            "http_protocol_options": {"enable_trailers": True},
            "http2_protocol_options": {"allow_connect": True},
        }
    }
    return Raw(CLUSTER.encode(_cluster(DIRECT, settings, options)))


def in_tls(name: str, tls: Tls, settings: HttpSettings, *, certificate: bool) -> Raw:
    """The same in TLS: the server shows a certificate for the requested host, signed by an authority of the
    Secret."""
    options = {
        "use_downstream_protocol_config": {"http_protocol_options": {"enable_trailers": True}},
        "upstream_http_protocol_options": {"auto_sni": True, "auto_san_validation": True},
    }
    common: dict[str, Any] = {
        "validation_context_sds_secret_config": {"name": authority_name(tls), "sds_config": ADS},
    }
    if certificate:
        common["tls_certificate_sds_secret_configs"] = [{"name": certificate_name(tls), "sds_config": ADS}]
    socket = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", {"common_tls_context": common}
        ),
    }
    return Raw(CLUSTER.encode({**_cluster(name, settings, options), "transport_socket": socket}))


def _cluster(name: str, settings: HttpSettings, options: dict[str, Any]) -> dict[str, Any]:
    limits = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), NO_LIMIT
    )
    common = {"idle_timeout": f"{settings.idle_timeout // S}s"} if settings.idle_timeout else {}
    return {
        "name": name,
        "type": ORIGINAL_DST,
        "lb_policy": CLUSTER_PROVIDED,
        "connect_timeout": settings.connect_timeout,
        "cleanup_interval": FORGET_S * S,
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": [
            {"key": _OPTIONS, "value": typed(_OPTIONS, {**options, "common_http_protocol_options": common})}
        ],
    }
