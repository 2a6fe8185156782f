"""One round of the lab's controllers over a whole cluster, and that rounds come to rest."""

from typing import Any

from cirri.lab.cluster import Cluster, nameservers, next_step, pod_routes, progress, sort
from cirri.lab.objects import Ref
from cirri.lab.status import ContainerSeen, node_status, pod_status
from cirri.lab.topology import Topology
from cirri.model import NodeStatus, PodCIDRs

LAB = Topology("lab", 2)
UP = [
    NodeStatus(node="node1", addresses=("192.168.3.11", "fd00:192:168:3::b"), pod_cidrs=("10.52.0.0/24",)),
    NodeStatus(node="node2", addresses=("192.168.3.12", "fd00:192:168:3::c"), pod_cidrs=("10.52.1.0/24",)),
]


def suffix() -> str:
    return "abcde"


def test_a_scheduled_pod_stands_under_two_keys_for_an_instant(make: Any) -> None:
    before, after = make.pod("a"), make.pod("a", node="node1")

    for order in ([before, after], [after, before]):
        assert sort(order)[Ref("Pod", "default", "a")].node == "node1"


def test_nodes_become_ready_when_their_datapath_answers(make: Any) -> None:
    nodes = [make.node(name, ready=False) for name in LAB.node_names]

    none = next_step(Cluster(sort(nodes)), LAB, suffix)
    one = next_step(Cluster(sort(nodes), nodes=UP[:1]), LAB, suffix)

    assert [s["status"]["conditions"][0]["status"] for s in none.statuses] == ["False", "False"]
    assert [s["status"]["conditions"][0]["status"] for s in one.statuses] == ["True", "False"]


def test_nodes_of_others_are_left_alone(make: Any) -> None:
    assert next_step(Cluster(sort([make.node("elsewhere")])), LAB, suffix).statuses == ()


def test_pods_are_seated_by_update(make: Any) -> None:
    step = next_step(Cluster(sort([make.node("node1"), make.pod("a")])), Topology("lab", 1), suffix)

    assert [(m["metadata"]["name"], m["spec"]["nodeName"]) for m in step.update] == [("a", "node1")]
    assert step.apply == ()


def test_rounds_come_to_rest(make: Any) -> None:
    """Play the API server and the kubelet: after a few rounds nobody wants anything any more."""
    objects = sort(
        [make.deployment(replicas=2), make.service(ports=[{"port": 80}]), *map(make.node, LAB.node_names)]
    )
    suffixes = iter("abcdefgh")
    for _ in range(10):
        step = next_step(Cluster(objects, nodes=UP), LAB, lambda: next(suffixes))
        if not any((step.apply, step.update, step.statuses, step.delete)):
            break
        for manifest in (*step.apply, *step.update):
            stored = make.stored(manifest)
            objects[Ref(stored.kind, stored.namespace, stored.name)] = stored
        for manifest in step.statuses:
            key = Ref(
                manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]
            )
            objects[key] = make.stored(objects[key].manifest, manifest["status"])
        for gone in step.delete:
            del objects[gone]
        for key, pod in list(objects.items()):
            if pod.kind == "Pod" and pod.node and "status" not in pod.manifest:
                address = f"10.52.{LAB.node_names.index(pod.node)}.{len(objects)}"
                seen = [ContainerSeen("main", "pause", running=True, ready=True)]
                now = pod_status(
                    phase="Running",
                    node=LAB.host(pod.node),
                    addresses=[address],
                    containers=seen,
                    started="2026-01-01T00:00:00Z",
                )
                objects[key] = make.stored(pod.manifest, now)
    else:
        raise AssertionError("the controllers never come to rest")

    assert sorted(o.node for o in objects.values() if o.kind == "Pod") == ["node1", "node2"]
    slices = [o for o in objects.values() if o.kind == "EndpointSlice"]
    assert [len(s.manifest["endpoints"]) for s in slices] == [2]


def test_routes_follow_families() -> None:
    cidrs = [
        PodCIDRs(node="node1", cidrs=("10.52.0.0/24", "fd00:10:52::/120")),
        PodCIDRs(node="unknown", cidrs=("10.52.9.0/24",)),
    ]

    assert pod_routes(Cluster({}, cidrs, UP)) == {
        "10.52.0.0/24": "192.168.3.11",
        "fd00:10:52::/120": "fd00:192:168:3::b",
    }


def test_pods_ask_the_dns_service(make: Any) -> None:
    service = make.stored(
        {
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": "10.96.0.53"},
        }
    )

    assert nameservers(Cluster({})) == ["10.96.0.10"]
    assert nameservers(Cluster(sort([service]))) == ["10.96.0.53"]


def test_progress(make: Any) -> None:
    nodes = [make.node("node1"), make.node("node2", ready=False)]

    assert progress(Cluster(sort(nodes), nodes=UP), LAB) == {"nodes": ["node1"], "dns": False}


def test_statuses() -> None:
    node = LAB.host("node1")
    waiting = pod_status(
        phase="Pending",
        node=node,
        addresses=(),
        containers=[ContainerSeen("main", "x", reason="FailedCreatePodSandBox", message="no addresses left")],
        started="",
    )

    ended = pod_status(
        phase="Failed",
        node=node,
        addresses=["10.52.0.1"],
        containers=[ContainerSeen("main", "x", exit_code=3)],
        started="",
    )

    assert ended["containerStatuses"][0]["state"] == {"terminated": {"exitCode": 3, "reason": "Error"}}
    assert waiting["conditions"][-1]["status"] == "False"
    assert waiting["containerStatuses"][0]["state"]["waiting"]["message"] == "no addresses left"
    assert "podIP" not in waiting
    assert node_status(node, ready=True)["addresses"][0] == {"type": "InternalIP", "address": "192.168.3.11"}
