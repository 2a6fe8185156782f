"""The cluster's switches for Services."""

import pytest

from cirri.loadbalancer import InvalidConfig, LoadBalancerConfig, complaint

WRONG = [
    ("bpf-lb-algorithm", "fair", "random, maglev"),
    ("bpf-lb-acceleration", "generic", "disabled, native, best-effort"),
    ("bpf-lb-maglev-table-size", "1000", "251, 509"),
    ("bpf-lb-maglev-hash-seed", "cirri", "12 bytes in base64"),
    ("bpf-lb-maglev-hash-seed", "AAAA", "12 bytes in base64"),
    ("bpf-lb-mode", "nat", "snat, dsr, hybrid"),
    ("bpf-lb-dsr-dispatch", "geneve", "opt, ipip"),
    ("service-no-backend-response", "ignore", "reject, drop"),
    ("bpf-lb-sock-hostns-only", "yes", "true, false"),
    ("node-port-range", "30000-32767", "two ports"),
    ("node-port-range", "32767,30000", "the smaller first"),
    ("node-port-range", "0,70000", "from 1 to 65535"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG)
def test_wrong_values(key: str, value: str, allowed: str) -> None:
    with pytest.raises(InvalidConfig, match=f"cirri-config: {key}: .*{allowed}"):
        LoadBalancerConfig.of({key: value})
    assert allowed in complaint(key)(value)
    assert not complaint(key)("")


def test_values() -> None:
    data = {
        "bpf-lb-algorithm": "maglev",
        "bpf-lb-maglev-table-size": "65521",
        "bpf-lb-maglev-hash-seed": "AAAAAAAAAAAAAAAA",
        "bpf-lb-acceleration": "best-effort",
        "bpf-lb-mode": "hybrid",
        "bpf-lb-dsr-dispatch": "ipip",
        "service-no-backend-response": "drop",
        "bpf-lb-sock-hostns-only": "true",
        "node-port-range": "20000,20099",
        "enable-health-check-nodeport": "false",
    }
    found = LoadBalancerConfig.of(data)
    assert (found.algorithm, found.table_size, found.mode, found.dispatch) == (
        "maglev",
        65521,
        "hybrid",
        "ipip",
    )
    assert found.acceleration == "best-effort"
    assert found.seed == "AAAAAAAAAAAAAAAA"
    assert (found.no_backend, found.host_namespace_only, len(found.node_ports)) == ("drop", True, 100)
    assert not found.health_check_node_ports
    assert LoadBalancerConfig.of({}) == LoadBalancerConfig()
