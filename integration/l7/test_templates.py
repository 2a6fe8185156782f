"""Every template is taken by a real Envoy, and is there what it is here."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from integration.l7.test_requests import LISTENERS

from cirri.testing.proxied import Proxied


def test_envoy_has_what_it_was_told(world: Proxied) -> None:
    """Its own words for it: a field of a wrong number would be missing here, or be another one."""
    world.publish(LISTENERS)
    assert not world.serving.failed
    argv = [
        "curl",
        "-sS",
        "--unix-socket",
        str(world.run_dir / "envoy-admin.sock"),
        "http://envoy/config_dump",
    ]
    dump = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)["configs"]
    told = {key: value for part in dump for key, value in part.items()}
    (listener,) = [
        each["active_state"]["listener"] for each in told["dynamic_listeners"] if each["name"] == "10100"
    ]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 10100}}
    assert {
        key: listener[key] for key in listener.keys() - {"@type", "filter_chains", "listener_filters"}
    } == {
        "name": "10100",
        "stat_prefix": "l7",
        "address": address,
        "additional_addresses": [
            {"address": {"socket_address": {"address": "::1", "port_value": 10100}}},
        ],
        "transparent": True,
        "socket_options": [
            {"description": "mark", "level": "1", "name": "36", "int_value": str(0x0A00)},
        ],
        "listener_filters_timeout": "15s",
        "traffic_direction": "INBOUND",
        "connection_balance_config": {"exact_balance": {}},
        "enable_reuse_port": False,
        "tcp_backlog_size": 4096,
    }
    (table,) = [
        each["route_config"]
        for each in told["dynamic_route_configs"]
        if each["route_config"]["name"] == "10100"
    ]
    (host,) = table["virtual_hosts"]
    assert host["retry_policy"]["num_retries"] == 3
    assert table["validate_clusters"] is False
    tree = host["matcher"]["matcher_tree"]
    assert tree["input"]["typed_config"]["header_name"] == ":path"
    lists = [each["action"]["typed_config"]["routes"] for each in tree["prefix_match_map"]["map"].values()]
    lists.append(host["matcher"]["on_no_match"]["action"]["typed_config"]["routes"])
    every = [route for each in lists for route in each]
    routes = {json.dumps(route["match"], sort_keys=True): route for route in every}
    wanted: list[dict[str, Any]] = [
        {"name": ":path", "string_match": {"exact": "/tenant"}},
        {"name": "x-tenant", "string_match": {"exact": "acme"}},
        {"name": "x-trace", "present_match": True},
    ]
    tenant = routes[json.dumps({"headers": wanted, "prefix": ""}, sort_keys=True)]
    assert tenant["route"] == {"cluster": "direct", "timeout": "3600s"}
    assert tenant["name"] == '[7,"shop",""]'
    changed = [route for route in every if "REPLACE" in route.get("name", "")]
    assert changed[0]["request_headers_to_add"] == [
        {
            "header": {"key": "X-A", "value": "1"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            "keep_empty_value": True,
        }
    ]
