"""``cirri status --verbose``: what each node does with packets, in the field's words.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cirri.cli.health import Node

ATTACH = {"tcx": "TCX", "clsact": "Legacy TC"}
UNKNOWN = "-"
"""The node has not said it."""


def details(node: Node) -> str:
    """Routing, attachment, masquerading, the replacement of kube-proxy, and the kernel of *node*."""
    if not node.features:
        return f"Node {node.name}: has not reported"
    lines = [f"Node {node.name}:"]
    for parts in (_network(node.features), _replacement(node.features), _kernel(node.features)):
        lines += [f"  {line}" for line in parts]
    return "\n".join(lines)


def _network(features: Mapping[str, str]) -> Iterator[str]:
    status, devices = features.get("kube-proxy replacement", UNKNOWN), features.get("devices", "")
    attach = features.get("attach", "")
    yield from _pairs(
        {
            "KubeProxyReplacement": f"{status}   [{devices}]" if devices else status,
            "Host firewall": features.get("host firewall", UNKNOWN),
            "Routing": f"Network: {features.get('routing', UNKNOWN)}   Host: BPF",
            "Attach Mode": ATTACH.get(attach, attach or UNKNOWN),
            "Device Mode": features.get("pod device", UNKNOWN),
            "Masquerading": features.get("masquerading", "Disabled"),
        },
        24,
    )


def _replacement(features: Mapping[str, str]) -> Iterator[str]:
    """The block as ``cilium-dbg status --verbose`` prints it."""
    socket, ports = features.get("socket lb", UNKNOWN), features.get("node ports", UNKNOWN)
    mode, _, dispatch = features.get("lb mode", UNKNOWN).partition(" [")
    inside = socket if socket in ("Disabled", UNKNOWN) else "Enabled"
    outside = UNKNOWN if ports == UNKNOWN else "Enabled" if ports else "Disabled"
    pairs = {
        "Status": features.get("kube-proxy replacement", UNKNOWN),
        "Socket LB": inside,
        "Socket LB Coverage": socket,
        "Devices": features.get("devices", ""),
        "Mode": mode,
        "  DSR Dispatch Mode": dispatch.removesuffix("]"),
        "Backend Selection": features.get("backend selection", UNKNOWN),
        "Session Affinity": inside,
        "Graceful Termination": inside,
        "NAT46/64 Support": "Disabled",
        "XDP Acceleration": features.get("xdp acceleration", "Disabled"),
    }
    yield "KubeProxyReplacement Details:"
    for line in _pairs({name: value for name, value in pairs.items() if value}, 24):
        yield f"  {line}"
    yield "  Services:"
    services = {
        "ClusterIP": inside,
        "NodePort": f"Enabled (Range: {ports})" if outside == "Enabled" else outside,
        "LoadBalancer": outside,
        "externalIPs": outside,
        "HostPort": outside,
    }
    for line in _pairs(services, 16):
        yield f"  - {line}"


def _kernel(features: Mapping[str, str]) -> Iterator[str]:
    yield "Kernel:"
    pairs = {
        "Release": features.get("kernel", UNKNOWN),
        "Has": features.get("kernel has", UNKNOWN),
        "Lacks": features.get("kernel lacks", "") or "nothing that is asked for",
        "XDP of the uplink": features.get("xdp device", UNKNOWN),
    }
    for line in _pairs(pairs, 24):
        yield f"  {line}"


def _pairs(pairs: Mapping[str, str], width: int) -> Iterator[str]:
    for name, value in pairs.items():
        yield f"{f'{name}:':{width}}{value}"
