"""Who takes part and with which identity."""

from typing import Any

import pytest
from tests.whatif.building import SPEC, deployment, entry, make, node, pod, policy, replicas, world

from cirri.engine import INGRESS
from cirri.whatif.endpoints import party
from cirri.whatif.party import Setting, in_host_network
from cirri.whatif.port import Port
from cirri.whatif.world import Contradiction, SameName


def test_pods_and_what_makes_pods_have_a_name_each() -> None:
    made = world(
        deployment("web"),
        pod("web"),
        replicas("web-1", owner="web"),
        replicas("lone", owner="gone"),
        make("CronJob", "night", {"jobTemplate": {"spec": {"template": {"spec": SPEC}}}}),
    )  # fmt: skip
    assert {name: one.many for name, one in made.parties.items()} == {
        "shop/web": False, "shop/deployment/web": True, "shop/lone": True, "shop/night": True,
    }  # fmt: skip


def test_pods_in_their_nodes_network_take_no_part() -> None:
    resources = [make("Pod", "a", {**SPEC, "hostNetwork": True}), pod("b")]
    resources.append(make("DaemonSet", "c", {"template": {"spec": {**SPEC, "hostNetwork": True}}}))
    assert list(world(*resources).parties) == ["shop/b"]
    assert in_host_network(resources) == ["shop/a", "shop/c"]


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(SameName, match='"shop/web" names two endpoints'):
        world(pod("web"), extra=(entry("shop/web", "k8s:a=b"),))


def test_labels_that_do_not_count_make_no_identity() -> None:
    for prefixes, alike in (("", False), ("!app", True)):
        made = world(pod("a", app="x"), pod("b", app="y"), labels=prefixes)
        assert (made.number(made.parties["shop/a"]) == made.number(made.parties["shop/b"])) == alike


def test_a_node_is_the_host_to_its_own_pods_alone() -> None:
    made = world(
        pod("a", node="n1"), pod("b", node="n2"), pod("c"), node("n1", "172.18.0.2", role="edge"), node("n2")
    )
    nodes = made.parties["node:n1"], made.parties["node:n2"]
    seen = {
        name: [made.number(one, made.parties[name]) for one in nodes]
        for name in ("shop/a", "shop/b", "shop/c")
    }
    host = made.number(nodes[0])
    assert host > 255, "it has a label of its own"
    assert seen == {"shop/a": [host, 6], "shop/b": [6, 1], "shop/c": [6, 6]}
    assert not made.has_policy(nodes[0])
    assert world(node("n1"), enable_host_firewall="true").policy(nodes[1]).identity == 1


def test_an_address_alone_is_whoever_has_it() -> None:
    made = world(
        pod("a", ip="10.0.0.1"),
        node("n1", "172.18.0.2"),
        extra=(
            party({"name": "pod", "ip": "10.0.0.1"}, Setting()),
            party({"name": "node", "ip": "172.18.0.2"}, Setting()),
            party({"name": "other", "ip": "172.18.0.3"}, Setting()),
            entry("said", "reserved:world", ip="10.0.0.1"),
        ),
    )
    assert made.parties["pod"].labels == made.parties["shop/a"].labels
    assert made.parties["node"].remote == frozenset({"reserved:remote-node"})
    assert [made.number(made.parties[name]) for name in ("other", "said")] == [9, 9]


def test_another_clusters_pods_are_peers_only() -> None:
    made = world(policy("none", {}), extra=(entry("far", "k8s:io.cilium.k8s.policy.cluster=far"),))
    assert not made.has_policy(made.parties["far"])


def test_reserved_endpoints_have_policies_of_their_own() -> None:
    names = ("init", "health", "ingress", "unmanaged", "world", "remote-node", "host", "kube-apiserver")
    everybody = policy("none", {}, kind="CiliumClusterwideNetworkPolicy")
    made = world(everybody, extra=tuple(entry(name, f"reserved:{name}") for name in names))
    subjects = [name for name in names if made.has_policy(made.parties[name])]
    assert subjects == ["init", "health", "ingress"]
    assert all(made.policy(made.parties[name]).ingress.enforced for name in subjects)


def test_verdicts_name_the_rule() -> None:
    made = world(policy("a", {"fromEndpoints": [{}]}), pod("web"), pod("db", app="db"))
    web, db = made.parties["shop/web"], made.parties["shop/db"]
    found = made.verdict(db, INGRESS, web, Port(6, 80))
    assert found.cause == "allow-rule"
    origin = made.origin(db, found.rule)
    assert origin is not None
    assert origin.section == "spec.ingress[0]"
    assert made.origin(db, 0) is None


def test_a_rule_that_allows_is_named_where_everything_else_passes_too() -> None:
    open_ = {
        "endpointSelector": {},
        "enableDefaultDeny": {"ingress": False},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "web"}}]}],
    }
    made = world(make("CiliumNetworkPolicy", "a", open_), pod("web", app="web"), pod("db"), pod("tmp"))
    web, db, tmp = (made.parties[f"shop/{name}"] for name in ("web", "db", "tmp"))
    named, other = (made.verdict(db, INGRESS, peer, Port(6, 80)) for peer in (web, tmp))
    assert (named.allowed, named.cause, other.allowed, other.cause) == (
        True,
        "allow-rule",
        True,
        "not-enforced",
    )
    origin = made.origin(db, named.rule)
    assert origin is not None
    assert origin.section == "spec.ingress[0]"


def test_policies_that_contradict_each_other_have_no_answer() -> None:
    def requests(**rules: Any) -> dict[str, Any]:
        return {"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": rules}]}

    made = world(
        policy("a", requests(http=[{}])),
        policy("b", requests(l7proto="custom")),
        pod("web"),
        make("Pod", "db", SPEC, "ops"),
    )
    web, db = made.parties["shop/web"], made.parties["ops/db"]
    assert made.contradictions.keys() == {"shop/web"}
    assert made.verdict(db, INGRESS, web, Port(6, 80)).cause == "not-enforced", "it has nothing to do with it"
    with pytest.raises(Contradiction, match=r"shop/web: .*http"):
        made.verdict(web, INGRESS, db, Port(6, 80))
