"""A lab's hosts, addresses and names."""

import pytest

from cirri.lab.topology import BadLab, Topology, belongs, check_name, paths, pod_netns, routes


def test_hosts_of_a_lab() -> None:
    lab = Topology("lab", 2)

    assert [(h.netns, h.ipv4, h.ipv6, h.forwards) for h in (lab.fabric, *lab.hosts)] == [
        ("cirri-lab-fabric", "192.168.3.1", "fd00:192:168:3::1", False),
        ("cirri-lab-router", "192.168.3.2", "fd00:192:168:3::2", True),
        ("cirri-lab-client", "192.168.3.3", "fd00:192:168:3::3", False),
        ("cirri-lab-internet", "192.168.3.4", "fd00:192:168:3::4", False),
        ("cirri-lab-node1", "192.168.3.11", "fd00:192:168:3::b", True),
        ("cirri-lab-node2", "192.168.3.12", "fd00:192:168:3::c", True),
    ]


def test_everybody_sends_pod_ranges_to_the_router() -> None:
    lab = Topology("lab", 1)

    assert "10.52.0.0/16 via 192.168.3.2" in routes(lab, lab.fabric)
    assert "fd00:10:52::/104 via fd00:192:168:3::2" in routes(lab, lab.fabric)
    for name in ("client", "internet", "node1"):
        assert routes(lab, lab.host(name)) == ["0.0.0.0/0 via 192.168.3.2", "::/0 via fd00:192:168:3::2"]


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "a_b", "-a", "a-", "a--b", "a/b", "a.b", "x-pod-y", "a" * 41]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(BadLab):
        check_name(name)


@pytest.mark.parametrize("nodes", [0, -1, 65])
def test_bad_sizes(nodes: int) -> None:
    with pytest.raises(BadLab):
        Topology("lab", nodes)


def test_a_namespace_belongs_to_exactly_one_lab() -> None:
    names = ["a", "a-b", "a-node1", "ab"]
    for lab in names:
        own = [h.netns for h in (Topology(lab, 2).fabric, *Topology(lab, 2).hosts)]
        own.append(pod_netns(lab, "kube-system", "b-fabric"))
        assert all(belongs(netns, lab) for netns in own)
        assert not any(belongs(netns, other) for netns in own for other in names if other != lab)


def test_all_paths_carry_the_name(tmp_path: object) -> None:
    where = paths("x", tmp_path)  # type: ignore[arg-type]

    assert {p.name for p in (where.run, where.state, where.bpffs, where.cgroup)} == {"x"}
    assert where.pod_cgroup("node1", "default", "web").is_relative_to(where.node_cgroup("node1"))
