"""What a pod sees in /etc."""

from cirri.lab.launch import hosts, resolv_conf


def test_resolv_conf() -> None:
    assert resolv_conf("kube-system", ["10.96.0.10"]) == (
        "nameserver 10.96.0.10\n"
        "search kube-system.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )


def test_hosts() -> None:
    assert hosts("web-1", ["10.52.0.1", "fd00::1"]).splitlines()[2:] == ["10.52.0.1\tweb-1", "fd00::1\tweb-1"]
