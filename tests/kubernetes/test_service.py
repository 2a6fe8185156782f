"""The real service on a real nats-server: bad input changes nothing, and nothing is lost."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cirri.kubernetes.provisional import time_text
from cirri.kv import RequestFailed
from cirri.manifests import load
from cirri.manifests.api import (
    APPLY,
    CONFIRM,
    DELETE,
    ApplyObject,
    ApplyReply,
    ApplyRequest,
    ConfirmRequest,
    DeleteRequest,
    ObjectRef,
    Result,
)
from cirri.manifests.yamltext import YamlError, documents
from cirri.model import Resource
from cirri.model.resource import CONFIRM_BY
from cirri.testing.cases import WrongManifest, wrong_manifests
from cirri.testing.kubernetes import KubernetesService

ROOT = Path(__file__).parents[2]
WRONG = wrong_manifests(ROOT / "tests/manifests/wrong.txt")


def objects(*paths: str) -> tuple[ApplyObject, ...]:
    return tuple(
        ApplyObject(manifest=d.manifest, source=d.source) for d in load([str(ROOT / path) for path in paths])
    )


def config(name: str, **data: str) -> ApplyObject:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    return ApplyObject(manifest=manifest)


@pytest.fixture(scope="module")
def demo(running: KubernetesService) -> KubernetesService:
    """The demo's objects are there."""
    examples = objects("deploy/examples/http-sw-app.yaml", "deploy/examples/sw_l3_l4_policy.yaml")
    assert running.apply(ApplyRequest(objects=examples)).error is None
    return running


def manifests_of(case: WrongManifest) -> list[Any]:
    try:
        return [parsed.value for parsed in documents(case.text)]
    except YamlError:
        return []


SENT = [(case.id, manifests_of(case)) for case in WRONG]
SENT = [(name, found) for name, found in SENT if found and all(isinstance(m, dict) for m in found)]


@pytest.mark.parametrize("manifests", [m for _, m in SENT], ids=[name for name, _ in SENT])
def test_wrong_manifests_change_nothing(demo: KubernetesService, manifests: list[Any]) -> None:
    """Refused here too, whoever sends them, beside an object that would be right."""
    before = demo.bucket(), demo.files()

    reply = demo.apply(ApplyRequest(objects=(config("right"), *(ApplyObject(manifest=m) for m in manifests))))

    assert reply.error
    assert reply.results == ()
    assert (demo.bucket(), demo.files()) == before


def policy(**spec: Any) -> ApplyObject:
    manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "later"},
        "spec": {"endpointSelector": {}, **spec},
    }
    return ApplyObject(manifest=manifest)


def packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


POD = {"kind": "Pod", "metadata": {"name": "tiefighter"}, "status": {}}
MESSAGES = [
    ("not MessagePack", APPLY, b"\xc1", "not an apply request"),
    ("empty", APPLY, b"", "not an apply request"),
    ("JSON", APPLY, b'{"objects": []}', "not an apply request"),
    ("no objects", APPLY, packed({"objects": []}), "an apply request names no objects"),
    ("a list", APPLY, packed([1]), "not an apply request: Expected `object`, got `array`"),
    ("unknown field", APPLY, packed({"objects": [], "dryRun": True}), "unknown field `dryRun`"),
    ("manifest is text", APPLY, packed({"objects": [{"manifest": "x"}]}), "Expected `object`, got `str`"),
    ("key is a number", APPLY, packed({"objects": [{"manifest": {1: "x"}}]}), "Expected `str`, got `int`"),
    ("bytes for text", APPLY, packed({"objects": [{"manifest": {"kind": b"a"}}]}), "kind: must be a string"),
    (
        "status of what is not there",
        APPLY,
        packed({"objects": [{"manifest": {**POD, "metadata": {"name": "x"}}}], "status_only": True}),
        "metadata.name: no such object (Pod default/x)",
    ),
    (
        "update of what is not there",
        APPLY,
        packed({"objects": [{"manifest": {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ywing"},
            "spec": {"containers": [{"name": "a", "image": "b"}]}}}], "update_only": True}),
        "metadata.name: no such object (Pod default/ywing)",
    ),
    (
        "status that is a list",
        APPLY,
        packed({"objects": [{"manifest": {**POD, "status": []}}], "status_only": True}),
        "objects[0].status: must be a mapping",
    ),
    (
        "status of an unknown kind",
        APPLY,
        packed({"objects": [{"manifest": {**POD, "kind": "Pot"}}], "status_only": True}),
        'objects[0].kind: unknown kind "Pot"',
    ),
    ("namespace that is missing", APPLY, packed({"objects": [{"manifest": {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "nowhere"}}}]}),
     'metadata.namespace: namespace "nowhere" does not exist (ConfigMap nowhere/a)'),
    ("address that is taken", APPLY, packed({"objects": [
        {"manifest": {"apiVersion": "v1", "kind": "Service", "metadata": {"name": n},
                      "spec": {"clusterIP": "10.96.0.20", "ports": [{"port": 1}]}}} for n in "ab"]}),
     'spec.clusterIP: "10.96.0.20" already belongs to Service default/a (Service default/b)'),
    ("what is not enforced", APPLY, packed(ApplyRequest(objects=(policy(egress=[
        {"toGroups": [{}]}]),))), "spec.egress[0].toGroups"),
    ("delete nothing", DELETE, packed({"objects": []}), "a delete request names no objects"),
    ("delete by number", DELETE, packed({"objects": [{"kind": "Pod", "name": 1}]}), "Expected `str`"),
    ("delete a system namespace", DELETE, packed({"objects": [{"kind": "Namespace", "name": "kube-system"}]}),
     "Namespace kube-system: is part of every cluster and cannot be deleted"),
    ("confirm what is not provisional", CONFIRM, packed({"objects": [{"kind": "Pod", "name": "xwing"}]}),
     "Pod/default/xwing: is not provisional"),
    ("confirmation at once", APPLY, packed({"objects": [], "confirm_within_s": 0}), "Expected `int` >= 1"),
    ("delete one there and one not", DELETE, packed({"objects": [
        {"kind": "Pod", "name": "xwing"}, {"kind": "Pod", "name": "ywing"}]}), "Pod ywing: not found"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("subject", "payload", "error"), [m[1:] for m in MESSAGES], ids=[m[0] for m in MESSAGES]
)
def test_wrong_messages_change_nothing(
    demo: KubernetesService, subject: str, payload: bytes, error: str
) -> None:
    before = demo.bucket(), demo.files()

    reply = demo.ask(subject, payload)

    assert error in (reply.error or "")
    assert reply.results == ()
    assert (demo.bucket(), demo.files()) == before


def test_what_is_applied_is_published_and_revisions_tell_when(demo: KubernetesService) -> None:
    first = demo.apply(ApplyRequest(objects=(config("one", k="1"), config("two", k="1"))))
    again = demo.apply(ApplyRequest(objects=(config("one", k="1"), config("two", k="2"))))

    assert [r.action for r in first.results] == ["created", "created"]
    assert [r.action for r in again.results] == ["unchanged", "configured"]
    assert again.results[0].revision == first.results[0].revision
    assert again.revision == again.results[1].revision > first.revision
    bucket = demo.bucket()
    assert bucket["ConfigMap.default.two._"] == again.revision

    gone = demo.delete(
        DeleteRequest(
            objects=(ObjectRef(kind="ConfigMap", name="one"), ObjectRef(kind="ConfigMap", name="two"))
        )
    )
    assert [r.action for r in gone.results] == ["deleted", "deleted"]
    assert gone.revision > again.revision
    assert not [key for key in demo.bucket() if key.startswith("ConfigMap")]


def test_a_pod_moves_to_the_key_of_its_node(demo: KubernetesService) -> None:
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mover"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    demo.apply(ApplyRequest(objects=(ApplyObject(manifest=pod),)))
    assert "Pod.default.mover._" in demo.bucket()

    pod["spec"]["nodeName"] = "node1"
    reply: ApplyReply = demo.apply(ApplyRequest(objects=(ApplyObject(manifest=pod),)))

    assert reply.results[0].action == "configured"
    assert [key for key in demo.bucket() if "mover" in key] == ["Pod.default.mover.node1"]
    demo.delete(DeleteRequest(objects=(ObjectRef(kind="Pod", name="mover"),)))


def test_killed_and_restarted_it_writes_nothing_new(demo: KubernetesService) -> None:
    status = {"kind": "Pod", "metadata": {"name": "xwing"}, "status": {"phase": "Running"}}
    demo.apply(ApplyRequest(objects=(ApplyObject(manifest=status),), status_only=True))
    before = demo.bucket()

    demo.kill()
    demo.start()

    assert demo.apply(ApplyRequest(objects=(config("after"),))).results[0].action == "created"
    after = demo.bucket()
    assert {k: v for k, v in after.items() if k in before} == before
    demo.delete(DeleteRequest(objects=(ObjectRef(kind="ConfigMap", name="after"),)))


def test_a_lost_store_is_filled_again(demo: KubernetesService) -> None:
    before = set(demo.bucket())
    assert "CiliumNetworkPolicy.default.rule1._" in before

    demo.server.restart(keep=False)

    assert demo.apply(ApplyRequest(objects=(config("after"),))).error is None
    assert set(demo.bucket()) == before | {"ConfigMap.default.after._"}


def test_what_the_disk_refuses_is_taken_back(demo: KubernetesService) -> None:
    """A folder cannot be made where a file lies: the request fails and the bucket loses the object again."""
    obstacle = demo.home / "state/manifests/ConfigMap/refused"
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "refused"}}
    try:
        assert demo.apply(ApplyRequest(objects=(ApplyObject(manifest=namespace),))).error is None
        before = demo.bucket().keys()
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "lost", "namespace": "refused"},
            "data": {},
        }
        with pytest.raises(RequestFailed, match="File exists"):
            demo.apply(ApplyRequest(objects=(ApplyObject(manifest=manifest),)))
        deadline = time.monotonic() + 5
        while demo.bucket().keys() != before:
            assert time.monotonic() < deadline, demo.bucket().keys() ^ before
    finally:
        obstacle.unlink()
        demo.delete(DeleteRequest(objects=(ObjectRef(kind="Namespace", name="refused"),)))


def guarded(port: int) -> ApplyObject:
    manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "guarded"},
        "spec": {
            "endpointSelector": {},
            "ingress": [{"toPorts": [{"ports": [{"port": str(port), "protocol": "TCP"}]}]}],
        },
    }
    return ApplyObject(manifest=manifest, source=f"v{port}.yaml:1")


GUARDED = ObjectRef(kind="CiliumNetworkPolicy", namespace="default", name="guarded")
GUARDED_KEY = "CiliumNetworkPolicy.default.guarded._"


@pytest.fixture
def confirmed(demo: KubernetesService) -> Iterator[Resource]:
    """The version for port 80 is in force for good; as the bucket has it."""
    assert demo.apply(ApplyRequest(objects=(guarded(80),))).results[0].confirm_by == ""
    yield demo.resources()[GUARDED_KEY]
    demo.delete(DeleteRequest(objects=(GUARDED,), ignore_missing=True))


def said(resource: Resource) -> tuple[str, Any]:
    return resource.source, resource.manifest["spec"]


def update(service: KubernetesService, within_s: int) -> Result:
    """Port 81 instead of 80, to be confirmed."""
    (result,) = service.apply(ApplyRequest(objects=(guarded(81),), confirm_within_s=within_s)).results
    assert (result.action, result.undo, bool(result.confirm_by)) == ("configured", "restore", True)
    return result


def restored(service: KubernetesService, before: Resource) -> None:
    """Returns when the bucket has *before* again, once the deadline has passed and not earlier."""
    deadline = time.monotonic() + 15
    while True:
        now = service.resources()[GUARDED_KEY]
        if said(now) == said(before):
            assert "annotations" not in now.manifest["metadata"]
            return
        assert time.monotonic() < deadline, "the earlier version did not come back"


def test_what_nobody_confirms_is_undone(demo: KubernetesService, confirmed: Resource) -> None:
    by = datetime.fromisoformat(update(demo, 1).confirm_by)
    provisional = demo.resources()[GUARDED_KEY]
    assert said(provisional)[0] == "v81.yaml:1"
    assert provisional.manifest["metadata"]["annotations"][CONFIRM_BY] == time_text(by)

    restored(demo, confirmed)

    assert datetime.now(UTC) >= by
    late = demo.confirm(ConfirmRequest(objects=(GUARDED,)))
    assert "CiliumNetworkPolicy/default/guarded: is not provisional" in (late.error or "")


def test_a_new_object_that_nobody_confirms_is_deleted(demo: KubernetesService) -> None:
    reply = demo.apply(ApplyRequest(objects=(guarded(80),), confirm_within_s=1))
    assert reply.results[0].undo == "delete"

    deadline = time.monotonic() + 15
    while GUARDED_KEY in demo.bucket():
        assert time.monotonic() < deadline, "it was not deleted"


def test_what_is_confirmed_stays(demo: KubernetesService, confirmed: Resource) -> None:
    by = datetime.fromisoformat(update(demo, 1).confirm_by)

    (result,) = demo.confirm(ConfirmRequest()).results

    assert (result.name, result.action, result.confirm_by) == ("guarded", "confirmed", "")
    while datetime.now(UTC) <= by:  # the time that it would have been undone at
        time.sleep(0.05)
    demo.kill()
    demo.start()
    assert demo.apply(ApplyRequest(objects=(config("after"),))).error is None
    now = demo.resources()[GUARDED_KEY]
    assert said(now)[0] == "v81.yaml:1"
    assert "annotations" not in now.manifest["metadata"]


def test_rolled_back_at_once(demo: KubernetesService, confirmed: Resource) -> None:
    update(demo, 600)
    (result,) = demo.rollback(ConfirmRequest(objects=(GUARDED,))).results
    assert (result.action, result.revision) == ("restored", demo.bucket()[GUARDED_KEY])
    assert said(demo.resources()[GUARDED_KEY]) == said(confirmed)


def test_killed_it_undoes_in_time(demo: KubernetesService, confirmed: Resource) -> None:
    """Killed with the clock running: whoever starts next keeps the deadline."""
    update(demo, 2)
    demo.kill()
    demo.start()
    restored(demo, confirmed)


def test_down_at_the_deadline_it_undoes_at_its_start(demo: KubernetesService, confirmed: Resource) -> None:
    by = datetime.fromisoformat(update(demo, 1).confirm_by)
    demo.kill()
    while datetime.now(UTC) <= by:
        time.sleep(0.05)
    assert said(demo.resources()[GUARDED_KEY])[0] == "v81.yaml:1"

    demo.start()

    # Undone before it answers anything.
    assert "is not provisional" in (demo.confirm(ConfirmRequest(objects=(GUARDED,))).error or "")
    restored(demo, confirmed)


def test_deleted_it_is_not_provisional_any_more(demo: KubernetesService, confirmed: Resource) -> None:
    update(demo, 600)
    demo.delete(DeleteRequest(objects=(GUARDED,)))
    assert demo.confirm(ConfirmRequest()).results == ()
    assert demo.apply(ApplyRequest(objects=(guarded(80),))).results[0].confirm_by == ""


def service(name: str, **spec: Any) -> ApplyObject:
    spec = {"ports": [{"port": 80}], **spec}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    return ApplyObject(manifest=manifest)


def test_a_service_that_another_one_keeps_from_being_served_says_so(demo: KubernetesService) -> None:
    """In its condition and by an event; over a restart, and until the other one is gone."""

    def condition() -> dict[str, str]:
        status = demo.resources()["Service.default.two._"].manifest.get("status", {})
        return dict(status.get("conditions", [{}])[0])

    def becomes(status: str) -> None:
        deadline = time.monotonic() + 10
        while condition().get("status") != status:
            assert time.monotonic() < deadline, condition()
            time.sleep(0.02)

    def events() -> set[str]:
        found = [each.manifest for each in demo.resources().values() if each.kind == "Event"]
        return {f"{e['involvedObject']['name']} {e['type']} {e['reason']} {e['count']}" for e in found}

    both = tuple(service(name, externalIPs=["203.0.113.9"]) for name in ("one", "two"))
    assert demo.apply(ApplyRequest(objects=both)).error is None
    becomes("False")
    says = "203.0.113.9 port 80/TCP: not served there: Service default/one, which is older, has it"
    assert condition()["message"] == says
    assert "status" not in demo.resources()["Service.default.one._"].manifest
    assert events() == {"two Warning Conflict 1"}
    before = demo.bucket()
    demo.kill()
    demo.start()
    assert demo.apply(ApplyRequest(objects=both)).error is None
    time.sleep(0.3)  # longer than it waits before it looks at Services again
    assert demo.bucket() == before
    demo.delete(DeleteRequest(objects=(ObjectRef(kind="Service", name="one"),)))
    becomes("True")
    assert events() == {"two Warning Conflict 1", "two Normal AsWritten 1"}
