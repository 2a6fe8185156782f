"""``cirri node list``."""

from typing import Any

from cirri.cli.node import HEADER, described, row
from cirri.cli.reach import ClusterHealth, NodeReach
from cirri.model import NODES, NodeStatus, PodCIDRs

ONE = NodeStatus(
    node="node1",
    addresses=("192.168.3.11", "192.168.4.11", "fd00::11"),
    pod_cidrs=("10.52.0.0/24", "fd00:10:52::/120"),
    features={"routing": "Native"},
)
HEALTH = ClusterHealth(
    nodes=(NodeReach(name="node1", state="reachable"), NodeReach(name="node2", state="unreachable"))
)


def test_rows() -> None:
    given = {"node2": PodCIDRs(node="node2", cidrs=("10.52.1.0/24",))}
    found = described(["node2", "node1", "node3"], {"node1": ONE}, given, HEALTH)

    assert [row(each) for each in found] == [
        [
            "node1",
            ["192.168.3.11", "192.168.4.11"],
            ["10.52.0.0/24"],
            ["fd00::11"],
            ["fd00:10:52::/120"],
            "Native",
            "reachable",
        ],
        ["node2", "-", ["10.52.1.0/24"], "-", "-", "-", "unreachable"],
        ["node3", "-", "-", "-", "-", "-", "-"],
    ]
    assert [each.errors for each in found] == [(), ("has not reported",), ("has not reported",)]


def test_where_nodes_are_not_probed_health_is_not_known() -> None:
    (found,) = described(["node1"], {"node1": ONE}, {}, ClusterHealth(nodes=HEALTH.nodes, enabled=False))
    assert found.health == ""


def test_list_from_the_bus(served: Any) -> None:
    served.own(NODES, ONE)

    lines = [" ".join(line.split()) for line in served.ok("node", "list").splitlines()]
    assert lines[0] == " ".join(HEADER)
    assert lines[1].startswith("node1 192.168.3.11 10.52.0.0/24 fd00::11 fd00:10:52::/120 Native")
    assert '"podCIDRs"' in served.ok("node", "list", "-o", "json")
