"""What Envoy is started with: where it finds the rest, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cirri.l7proxy.listeners import RECORDS

XDS_SOCKET, ADMIN_SOCKET = "xds.sock", "envoy-admin.sock"
"""In the run directory."""
XDS = "cirri.xds"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def bootstrap(node: str, run_dir: Path) -> dict[str, Any]:
    """The configuration file, as JSON."""
    backoff = {"retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"}}
    ads = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": XDS, "retry_policy": backoff}}],
        "set_node_on_first_message_only": True,
    }
    every = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": {"id": node, "cluster": "cirri"},
        "admin": {"address": {"pipe": {"path": str(run_dir / ADMIN_SOCKET), "mode": 0o600}}},
        "dynamic_resources": {"ads_config": ads, "lds_config": every, "cds_config": every},
        "static_resources": {
            "clusters": [_to_service(name, run_dir / XDS_SOCKET) for name in (XDS, RECORDS)],
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "cirri",
                    "static_layer": {
                        # Rules are checked when they are applied; RE2's own bound on memory stays.
                        "re2.max_program_size.error_level": 4294967295,
                        "re2.max_program_size.warn_level": 4294967295,
                        # Values of one header are one list (RFC 9110, section 5.3): else a client adds the
                        # value that a rule asks for to the one that the server acts upon.
                        "envoy.reloadable_features.match_headers_individually": False,
                    },
                }
            ]
        },
        # What the policy says decides how many there are, not a limit of the proxy's.
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 1000000,
                    },
                }
            ]
        },
    }


def _to_service(name: str, socket: Path) -> dict[str, Any]:
    """A cluster that is the service behind *socket*."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", **http2}
        },
    }
