"""The blocks of ``cirri status --verbose``, from what a node's service says."""

from typing import NamedTuple

import pytest

from cirri.cli.details import details
from cirri.cli.health import Node
from cirri.datapath.features import features
from cirri.loadbalancer import LoadBalancerConfig

ADDRESSES = ("192.168.3.11", "fd00:192:168:3::11")
ATTACHED = {
    "uplink": "eth0",
    "services": "sockets below /sys/fs/cgroup",
    "attach": "tcx",
    "pod device": "veth",
}
REST = {
    "host firewall": "Disabled",
    "routing": "Tunnel [vxlan, port 8472, cirri_vxlan]",
    "kernel": "6.1.0-28-amd64",
    "kernel has": "JIT, BTF",
    "kernel lacks": "tcx (Linux 6.6)",
    "xdp device": "native [eth0, driver virtio_net]",
    "masquerading": "BPF [eth0] [IPv4: Enabled, IPv6: Enabled]",
}

WHOLE = """\
Node node1:
  KubeProxyReplacement:   True   [eth0   192.168.3.11 fd00:192:168:3::11 (Direct Routing)]
  Host firewall:          Disabled
  Routing:                Network: Tunnel [vxlan, port 8472, cirri_vxlan]   Host: BPF
  Attach Mode:            TCX
  Device Mode:            veth
  Masquerading:           BPF [eth0] [IPv4: Enabled, IPv6: Enabled]
  KubeProxyReplacement Details:
    Status:                 True
    Socket LB:              Enabled
    Socket LB Coverage:     Full
    Devices:                eth0   192.168.3.11 fd00:192:168:3::11 (Direct Routing)
    Mode:                   SNAT
    Backend Selection:      Random
    Session Affinity:       Enabled
    Graceful Termination:   Enabled
    NAT46/64 Support:       Disabled
    XDP Acceleration:       Disabled
    Services:
    - ClusterIP:      Enabled
    - NodePort:       Enabled (Range: 30000-32767)
    - LoadBalancer:   Enabled
    - externalIPs:    Enabled
    - HostPort:       Enabled
  Kernel:
    Release:                6.1.0-28-amd64
    Has:                    JIT, BTF
    Lacks:                  tcx (Linux 6.6)
    XDP of the uplink:      native [eth0, driver virtio_net]"""


class Case(NamedTuple):
    """Lines that differ from the whole: (configuration, what is attached, these lines)."""

    id: str
    config: dict[str, str]
    attached: dict[str, str]
    lines: set[str]


CASES = [
    Case("as it comes", {}, ATTACHED, set()),
    Case(
        "DSR by Maglev",
        {"bpf-lb-mode": "dsr", "bpf-lb-algorithm": "maglev", "bpf-lb-maglev-table-size": "65521"},
        ATTACHED,
        {
            "Mode:                   DSR",
            "  DSR Dispatch Mode:    IP Option/Extension",
            "Backend Selection:      Maglev (Table Size: 65521)",
        },
    ),
    Case(
        "hybrid in IPIP",
        {"bpf-lb-mode": "hybrid", "bpf-lb-dsr-dispatch": "ipip"},
        ATTACHED,
        {"Mode:                   Hybrid", "  DSR Dispatch Mode:    IPIP"},
    ),
    Case(
        "sockets of the node alone, other node ports",
        {"bpf-lb-sock-hostns-only": "true", "node-port-range": "30000,60000"},
        ATTACHED,
        {"Socket LB Coverage:     Hostns-only", "- NodePort:       Enabled (Range: 30000-60000)"},
    ),
    Case(
        "no cgroup2",
        {},
        {name: text for name, text in ATTACHED.items() if name != "services"},
        {
            "KubeProxyReplacement:   False   [eth0   192.168.3.11 fd00:192:168:3::11 (Direct Routing)]",
            "Status:                 False",
            "Socket LB:              Disabled",
            "Socket LB Coverage:     Disabled",
            "Session Affinity:       Disabled",
            "Graceful Termination:   Disabled",
            "- ClusterIP:      Disabled",
        },
    ),
    Case(
        "no uplink, and the older hook",
        {},
        {**{name: text for name, text in ATTACHED.items() if name != "uplink"}, "attach": "clsact"},
        {
            "KubeProxyReplacement:   False",
            "Attach Mode:            Legacy TC",
            "Status:                 False",
            "- NodePort:       Disabled",
            "- LoadBalancer:   Disabled",
            "- externalIPs:    Disabled",
            "- HostPort:       Disabled",
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_what_differs(case: Case) -> None:
    said = case.attached | features(LoadBalancerConfig.of(case.config), case.attached, ADDRESSES) | REST
    lines = details(Node(name="node1", features=said)).splitlines()

    assert {
        line[4:] if line.startswith("    ") else line.strip()
        for line in lines
        if line not in WHOLE.splitlines()
    } == case.lines
    if not case.lines:
        assert "\n".join(lines) == WHOLE


def test_a_node_that_is_silent_or_of_an_older_version() -> None:
    assert details(Node(name="node1")) == "Node node1: has not reported"
    old = details(Node(name="node1", features={"attach": "tcx"}))
    assert "  KubeProxyReplacement:   -" in old.splitlines()
    assert "    Release:                -" in old.splitlines()
