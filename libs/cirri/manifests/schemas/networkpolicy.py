"""Kubernetes NetworkPolicy: everything the API server would refuse is refused here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cirri.labels import parse_prefix
from cirri.manifests.schema import TEXT, Fault, Fields, Integer, Items, Text
from cirri.manifests.schemas.meta import SELECTOR, STATUS, metadata
from cirri.manifests.words import PORT_OR_NAME, PREFIX, PROTOCOL


def _end_port(port: Mapping[str, Any]) -> Iterator[Fault]:
    if "endPort" not in port:
        return
    if "port" not in port:
        yield ("endPort",), "needs port, the first port of the range"
    elif isinstance(port["port"], str):
        yield ("endPort",), f'needs a port by number; "{port["port"]}" is a name'
    elif port["endPort"] < port["port"]:
        yield ("endPort",), f"{port['endPort']} is lower than port {port['port']}"


_PORT = Fields(
    {"port": PORT_OR_NAME, "endPort": Integer(1, 65535), "protocol": PROTOCOL},
    defaults={"protocol": "TCP"},
    rules=(_end_port,),
)


def _inside(block: Mapping[str, Any]) -> Iterator[Fault]:
    cidr = parse_prefix(block["cidr"], bare=False)
    for i, text in enumerate(block.get("except", [])):
        hole = parse_prefix(text, bare=False)
        if isinstance(cidr, str) or isinstance(hole, str):
            continue
        if hole == cidr or hole.version != cidr.version or not hole.subnet_of(cidr):  # type: ignore[arg-type]
            yield ("except", i), f'"{text}" is not a part of cidr {block["cidr"]}'


_IP_BLOCK = Fields({"cidr": PREFIX, "except": Items(PREFIX)}, required=("cidr",), rules=(_inside,))


def _one_peer(peer: Mapping[str, Any]) -> Iterator[Fault]:
    if not peer:
        yield (), "empty peer; allowed: podSelector, namespaceSelector or both, or ipBlock"
    elif "ipBlock" in peer and len(peer) > 1:
        yield (), "ipBlock stands alone: it cannot be combined with selectors; write two list items"


_PEERS = Items(
    Fields({"podSelector": SELECTOR, "namespaceSelector": SELECTOR, "ipBlock": _IP_BLOCK}, rules=(_one_peer,))
)


NETWORK_POLICY = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("NetworkPolicy", namespaced=True),
        "spec": Fields(
            {
                "podSelector": SELECTOR,
                "policyTypes": Items(Text(choices=("Ingress", "Egress")), high=2),
                "ingress": Items(
                    Fields(
                        {"from": _PEERS, "ports": Items(_PORT)},
                        absent={"to": 'an ingress rule has peers in "from"; "to" belongs to egress'},
                    )
                ),
                "egress": Items(
                    Fields(
                        {"to": _PEERS, "ports": Items(_PORT)},
                        absent={"from": 'an egress rule has peers in "to"; "from" belongs to ingress'},
                    )
                ),
            },
            required=("podSelector",),
        ),
        "status": STATUS,
    },
    required=("metadata", "spec"),
)
