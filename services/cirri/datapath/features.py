"""What the node does for Services, in the words of `cirri status --verbose`.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cirri.loadbalancer import LoadBalancerConfig

DISPATCH = {"opt": "IP Option/Extension", "ipip": "IPIP"}


def features(
    config: LoadBalancerConfig, attached: Mapping[str, str], addresses: Sequence[str]
) -> dict[str, str]:
    """Lines for NodeStatus.features.

    *attached*: those that tell what programs are on (``uplink``, ``services``); *addresses*: the node's own.
    """
    device, sockets = attached.get("uplink", ""), "services" in attached
    coverage = "Hostns-only" if config.host_namespace_only else "Full"
    mode = config.mode.title() if config.mode == "hybrid" else config.mode.upper()
    dispatch = "" if config.mode == "snat" else f" [{DISPATCH[config.dispatch]}]"
    ports = config.node_ports
    return {
        "kube-proxy replacement": "True" if device and sockets else "False",
        "socket lb": coverage if sockets else "Disabled",
        "devices": "   ".join((device, f"{' '.join(addresses)} (Direct Routing)")) if device else "",
        "lb mode": mode + dispatch,
        "backend selection": (
            f"Maglev (Table Size: {config.table_size})" if config.algorithm == "maglev" else "Random"
        ),
        "node ports": f"{ports.start}-{ports.stop - 1}" if device else "",
    }
