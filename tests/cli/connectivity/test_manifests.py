"""What tests apply is right, each variant of it, and says what it should."""

import pytest

from cirri.cli.connectivity.catalogue import Case, cases
from cirri.cli.connectivity.manifests import policies, varied, workloads
from cirri.cli.connectivity.runner import FACTS
from cirri.manifests import resources

ADDRESSES = {
    "EXTERNAL_IP": "203.0.113.19",
    "EXTERNAL_IP6": "2001:db8::13",
    "EXTERNAL_OTHER_IP": "203.0.113.14",
    "EXTERNAL_OTHER_IP6": "2001:db8::14",
    "EXTERNAL_CIDR": "203.0.113.0/27",
    "EXTERNAL_CIDR6": "2001:db8::/60",
    "OUTSIDE_IP": "192.168.3.3",
    "OUTSIDE_IP6": "fd00::3",
}
WORLD = dict.fromkeys(FACTS, "some.name") | {"NAMESPACE": "tried"} | ADDRESSES


def test_all_of_it_is_what_a_cluster_takes() -> None:
    import yaml

    from cirri.engine.parse import faults, unsupported

    for case in (each for each in cases() if each.policies):
        text = yaml.safe_dump_all(policies(case, WORLD))
        found = resources(("-",), text, unsupported=lambda policy: [*faults(policy), *unsupported(policy)])
        assert len(found) >= len(case.policies), case.test


def test_what_refers_comes_after_what_is_referred_to() -> None:
    case = next(each for each in cases() if each.test == "client-egress-to-cidrgroup-deny")

    kinds = [each["kind"] for each in policies(case, WORLD)]

    assert kinds == ["CiliumCIDRGroup", "CiliumNetworkPolicy", "CiliumNetworkPolicy"]


def test_workloads_stand_where_they_are_told() -> None:
    there = workloads(WORLD | {"NODE": "n1", "OTHER_NODE": "n2"})

    nodes = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/hostname"]
        for each in there
        if each["kind"] == "Deployment"
    }
    assert {name for name, node in nodes.items() if node == "n2"} == {"client3", "echo-other-node"}
    assert there[0]["kind"] == "Namespace"


PORTS = [{"port": "8080"}, {"port": "53"}, {"port": "web"}]
RULE = {"fromEndpoints": [{"matchLabels": {"name": "b"}}, {}], "toPorts": [{"ports": PORTS}]}
POLICY = {
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "p"},
    "spec": {"endpointSelector": {}, "ingress": [RULE]},
}


def test_clusterwide_means_the_same() -> None:
    changed = varied(POLICY, "ccnp", "tried")

    here = {"k8s:io.kubernetes.pod.namespace": "tried"}
    assert changed["kind"] == "CiliumClusterwideNetworkPolicy"
    assert changed["metadata"]["name"] == "tried-p"
    assert changed["spec"]["endpointSelector"] == {"matchLabels": here}
    peers = changed["spec"]["ingress"][0]["fromEndpoints"]
    assert peers == [{"matchLabels": {"name": "b", **here}}, {"matchLabels": here}]
    assert POLICY["kind"] == "CiliumNetworkPolicy"


def test_ranges_hold_the_port_and_leave_dns_and_names_alone() -> None:
    changed = varied(POLICY, "port-range", "tried")

    ports = changed["spec"]["ingress"][0]["toPorts"][0]["ports"]
    assert ports == [{"port": "8077", "endPort": 8083}, {"port": "53"}, {"port": "web"}]


@pytest.mark.parametrize("case", [c for c in cases() if c.variant], ids=lambda c: c.test)
def test_a_variant_is_another_policy(case: Case) -> None:
    import msgspec

    plain = msgspec.structs.replace(case, variant=None)

    assert policies(case, WORLD) != policies(plain, WORLD)
