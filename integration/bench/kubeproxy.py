"""Services as kube-proxy has the kernel do them: chains of iptables, or verdict maps of nftables.

One port and one backend each, which is the least; what packets do not meet (marks for masquerading) is
left out, in the peers' favour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

CLUSTER_IPS = IPv4Address("10.96.0.10")
"""Of the first Service."""
BACKENDS = IPv4Address("10.128.0.0")
"""Of the Services that nobody asks."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One Service: an address and port over TCP, and who serves it."""

    address: str
    port: int
    backend: str
    backend_port: int


def strangers(count: int) -> list[Cluster]:
    """*count* Services that nobody asks."""
    return [
        Cluster(str(CLUSTER_IPS + number), 80, str(BACKENDS + number), 8080) for number in range(1, count + 1)
    ]


def iptables(services: Sequence[Cluster]) -> str:
    """What ``iptables-restore`` loads: the Service that is asked should be the last."""
    chains, rules = [":KUBE-SERVICES - [0:0]"], []
    for number, each in enumerate(services):
        chains += [f":KUBE-SVC-{number} - [0:0]", f":KUBE-SEP-{number} - [0:0]"]
        rules += [
            f"-A KUBE-SERVICES -d {each.address}/32 -p tcp -m tcp --dport {each.port} -j KUBE-SVC-{number}",
            *_iptables_chains(number, each),
        ]
    return "\n".join(["*nat", *chains, "-A PREROUTING -j KUBE-SERVICES", *rules, "COMMIT", ""])


def iptables_change(number: int, each: Cluster) -> str:
    """What ``iptables-restore --noflush`` loads when the backend of Service *number* changes."""
    chains = [f":KUBE-SVC-{number} - [0:0]", f":KUBE-SEP-{number} - [0:0]"]
    return "\n".join(["*nat", *chains, *_iptables_chains(number, each), "COMMIT", ""])


def _iptables_chains(number: int, each: Cluster) -> list[str]:
    return [
        f"-A KUBE-SVC-{number} -j KUBE-SEP-{number}",
        f"-A KUBE-SEP-{number} -p tcp -m tcp -j DNAT --to-destination {each.backend}:{each.backend_port}",
    ]


def nft(services: Sequence[Cluster]) -> str:
    """What ``nft -f`` loads."""
    chains = "".join(
        f" chain svc-{number} {{\n  {_nft_rule(each)}\n }}\n" for number, each in enumerate(services)
    )
    elements = ",\n".join(
        f"{each.address} . tcp . {each.port} : goto svc-{number}" for number, each in enumerate(services)
    )
    return f"""
table ip kube-proxy {{
{chains}
 map services {{
  type ipv4_addr . inet_proto . inet_service : verdict
  elements = {{ {elements} }}
 }}
 chain prerouting {{
  type nat hook prerouting priority dstnat; policy accept;
  ip daddr . meta l4proto . th dport vmap @services
 }}
}}
"""


def nft_change(number: int, each: Cluster) -> str:
    """What ``nft -f`` loads when the backend of Service *number* changes."""
    return f"flush chain ip kube-proxy svc-{number}\nadd rule ip kube-proxy svc-{number} {_nft_rule(each)}\n"


def _nft_rule(each: Cluster) -> str:
    return f"meta l4proto tcp dnat to {each.backend}:{each.backend_port}"
