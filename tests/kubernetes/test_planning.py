"""What apply and delete requests change."""

from itertools import count
from typing import Any, NamedTuple

import pytest

from cirri.kubernetes.applying import plan_apply, plan_status, system_namespaces
from cirri.kubernetes.deleting import plan_delete
from cirri.kubernetes.state import SYSTEM_NAMESPACES, Change, Key, Refused, key_of
from cirri.manifests import Document, check
from cirri.manifests.api import ObjectRef
from cirri.model import Resource

NOW = "2026-01-02T03:04:05Z"


def resource(kind: str, name: str, /, namespace: str = "", **parts: Any) -> Resource:
    version = {"Pod": "v1", "Service": "v1", "Namespace": "v1", "Node": "v1", "ConfigMap": "v1"}
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **parts.pop("metadata", {})}
    manifest = {"apiVersion": version.get(kind, "apps/v1"), "kind": kind, "metadata": metadata, **parts}
    return check(Document(manifest, file="f.yaml", line=1))


def pod(name: str = "a", **spec: Any) -> Resource:
    return resource("Pod", name, spec={"containers": [{"name": "c", "image": "i"}], **spec})


class World:
    """A state that plans are carried out on."""

    def __init__(self) -> None:
        self.state: dict[Key, Resource] = {}
        self.uids = count(1)
        self.apply(*system_namespaces({}, SYSTEM_NAMESPACES))

    def apply(self, *objects: Resource, status: bool = False) -> list[Change]:
        if status:
            changes = plan_status(self.state, objects)
        else:
            changes = plan_apply(self.state, objects, now=NOW, new_uid=lambda: f"uid-{next(self.uids)}")
        self.state |= {key_of(c.resource): c.resource for c in changes}
        return changes

    def delete(self, *refs: ObjectRef, ignore_missing: bool = False) -> list[Key]:
        changes = plan_delete(self.state, refs, ignore_missing=ignore_missing)
        for change in changes:
            del self.state[key_of(change.resource)]
        return [key_of(c.resource) for c in changes]


def test_a_new_object_gets_its_metadata() -> None:
    (change,) = World().apply(pod())

    assert change.action == "created"
    assert change.resource.manifest["metadata"] == {
        "name": "a",
        "namespace": "default",
        "uid": "uid-3",
        "creationTimestamp": NOW,
        "generation": 1,
    }


def test_namespaces_carry_their_name() -> None:
    (change,) = World().apply(resource("Namespace", "shop", metadata={"labels": {"team": "web"}}))
    assert change.resource.manifest["metadata"]["labels"] == {
        "team": "web",
        "kubernetes.io/metadata.name": "shop",
    }


def test_the_same_again_is_unchanged() -> None:
    world = World()
    first = world.apply(pod())[0].resource
    moved = check(Document(pod().manifest, file="elsewhere.yaml", line=9))

    assert world.apply(moved) == [Change("unchanged", first)]


class Update(NamedTuple):
    """Applying *after* over *before* counts generations like this."""

    id: str
    before: Resource
    after: Resource
    generation: int


UPDATES = [
    Update("spec", pod(hostname="x"), pod(hostname="y"), 2),
    Update(
        "labels", pod(), resource("Pod", "a", spec=pod().manifest["spec"], metadata={"labels": {"a": "b"}}), 1
    ),
    Update(
        "data", resource("ConfigMap", "a", data={"k": "1"}), resource("ConfigMap", "a", data={"k": "2"}), 2
    ),
]


@pytest.mark.parametrize("case", UPDATES, ids=lambda c: c.id)
def test_an_update(case: Update) -> None:
    world = World()
    old = world.apply(case.before)[0].resource.manifest["metadata"]

    (change,) = world.apply(case.after)

    assert change.action == "configured"
    new = change.resource.manifest["metadata"]
    assert (new["uid"], new["creationTimestamp"]) == (old["uid"], NOW)
    assert new["generation"] == case.generation


def test_a_scheduled_pod_stays_where_it_is() -> None:
    world = World()
    world.apply(pod())
    scheduled = world.apply(pod(nodeName="node1"))[0]
    assert (scheduled.resource.node, scheduled.before and scheduled.before.node) == ("node1", "")

    assert world.apply(pod())[0].action == "unchanged"
    with pytest.raises(Refused, match=r'spec\.nodeName: cannot change from "node1"'):
        world.apply(pod(nodeName="node2"))


def test_status_is_not_what_users_apply() -> None:
    world = World()
    world.apply(pod())
    status = {"phase": "Running"}
    given = Resource(
        kind="Pod", namespace="default", name="a", manifest={"status": status, "spec": "ignored"}
    )

    assert world.apply(given, status=True)[0].action == "configured"
    assert world.apply(given, status=True)[0].action == "unchanged"
    stale = resource("Pod", "a", spec=pod().manifest["spec"], status={"phase": "Failed"})
    assert world.apply(stale)[0].action == "unchanged"
    assert world.state[Key("Pod", "default", "a")].manifest["status"] == status


def test_a_node_may_say_its_addresses() -> None:
    world = World()
    world.apply(resource("Node", "n", status={"addresses": [1]}))
    assert world.apply(resource("Node", "n", status={"addresses": [2]}))[0].action == "configured"
    assert world.apply(resource("Node", "n"))[0].action == "unchanged"


def test_a_namespace_may_come_in_the_same_request() -> None:
    actions = World().apply(resource("ConfigMap", "a", "new"), resource("Namespace", "new"))
    assert [c.action for c in actions] == ["created", "created"]


def test_named_addresses_come_before_chosen_ones() -> None:
    world = World()
    chosen = world.apply(resource("Service", "a", spec={"ports": [{"port": 80}]}))[0].resource
    address = chosen.manifest["spec"]["clusterIP"]
    world.delete(ObjectRef(kind="Service", name="a"))

    changes = world.apply(
        resource("Service", "a", spec={"ports": [{"port": 80}]}),
        resource("Service", "b", spec={"ports": [{"port": 80}], "clusterIP": address}),
    )

    found = [c.resource.manifest["spec"]["clusterIP"] for c in changes]
    assert found[1] == address
    assert found[0] != address


REFUSED = [
    ("no such namespace", [resource("ConfigMap", "a", "nowhere")], 'namespace "nowhere" does not exist'),
    (
        "too large",
        [resource("ConfigMap", "a", data={"k": "x" * 1_000_000})],
        "allowed: at most 900000",
    ),
    (
        "same address twice",
        [resource("Service", n, spec={"ports": [{"port": 1}], "clusterIP": "10.96.0.9"}) for n in "ab"],
        'spec.clusterIP: "10.96.0.9" already belongs to Service default/a (Service default/b)',
    ),
]


@pytest.mark.parametrize(("objects", "message"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(objects: list[Resource], message: str) -> None:
    with pytest.raises(Refused) as caught:
        World().apply(pod("other"), *objects)
    assert message in str(caught.value)


def test_pools_of_nodes_may_only_grow() -> None:
    def config(cidr: str) -> Resource:
        return resource("ConfigMap", "cirri-config", "kube-system", data={"cluster-pool-ipv4-cidr": cidr})

    world = World()
    world.apply(config("10.9.0.0/16"))
    world.apply(config("10.52.0.0/16"), resource("Node", "n1"))
    world.apply(config("10.52.0.0/16 10.53.0.0/16"))
    with pytest.raises(Refused, match=r"data\.cluster-pool-ipv4-cidr: 10\.52\.0\.0/16 cannot be changed"):
        world.apply(config("10.53.0.0/16"))


def test_default_pools_of_nodes_may_only_grow() -> None:
    world = World()
    world.apply(resource("Node", "n1"))
    smaller = {"cluster-pool-ipv4-mask-size": "26"}
    with pytest.raises(Refused, match=r"data\.cluster-pool-ipv4-mask-size: the mask size cannot be changed"):
        world.apply(resource("ConfigMap", "cirri-config", "kube-system", data=smaller))
    world.apply(resource("ConfigMap", "cirri-config", "kube-system", data={"labels": "!version"}))


def test_deleting_a_namespace_takes_its_objects() -> None:
    world = World()
    world.apply(resource("Namespace", "shop"), resource("ConfigMap", "a", "shop"), resource("ConfigMap", "a"))

    assert world.delete(ObjectRef(kind="Namespace", name="shop")) == [
        Key("ConfigMap", "shop", "a"),
        Key("Namespace", "", "shop"),
    ]
    assert Key("ConfigMap", "default", "a") in world.state


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (ObjectRef(kind="Pod", name="x"), "Pod x: not found"),
        (ObjectRef(kind="Pod", namespace="n", name="x"), "Pod n/x: not found"),
        (ObjectRef(kind="Pot", name="x"), 'Pot x: unknown kind "Pot" (did you mean "Pod"?)'),
        (
            ObjectRef(kind="Node", namespace="n", name="x"),
            "Node n/x: Node is cluster-wide: it takes no namespace",
        ),
        (ObjectRef(kind="Namespace", name="default"), "Namespace default: is part of every cluster"),
    ],
    ids=["missing", "missing in a namespace", "kind", "scope", "system namespace"],
)
def test_deletion_refused(ref: ObjectRef, message: str) -> None:
    with pytest.raises(Refused) as caught:
        World().delete(ObjectRef(kind="Namespace", name="kube-public"), ref, ignore_missing=False)
    assert message in str(caught.value)


def test_missing_objects_may_be_ignored() -> None:
    assert World().delete(ObjectRef(kind="Pod", name="x"), ignore_missing=True) == []
