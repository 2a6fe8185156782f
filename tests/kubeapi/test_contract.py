"""The double of an API server against what Kubernetes documents of the real one.

Sources: "API Concepts" (lists in chunks, watches, bookmarks, 410), "Server-Side Apply" (conflicts), "API
Conventions" (Status, generation, resourceVersion), the messages that ``kubectl`` shows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from cirri.testing.apiserver import ApiServer

PODS = "/api/v1/namespaces/default/pods"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
Answer = tuple[int, dict[str, Any]]


class Asker:
    """Plain HTTP, no client library: what is on the wire counts."""

    def __init__(self, api: ApiServer, session: aiohttp.ClientSession) -> None:
        self.api, self._session = api, session

    async def __call__(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> Answer:
        headers = {"Content-Type": kind} if body is not None else {}
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, self.api.url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def watch(self, path: str, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with self._session.get(self.api.url + path) as answer:
            assert answer.status == 200
            while len(found) < count:
                line = await asyncio.wait_for(answer.content.readline(), 20)
                assert line, f"the watch has ended after {found}"
                found.append(json.loads(line))
        return found


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": {"a": 1}}


async def errors(ask: Asker) -> None:
    code, said = await ask("GET", f"{PODS}/x")
    assert (code, said["kind"], said["apiVersion"], said["status"]) == (404, "Status", "v1", "Failure")
    assert (said["reason"], said["code"], said["message"]) == ("NotFound", 404, 'pods "x" not found')
    assert said["details"] == {"name": "x", "group": "", "kind": "pods"}
    assert (await ask("GET", "/apis/none.example/v1/things"))[0] == 404
    ask.api.put("Pod", pod("x"))
    code, said = await ask("POST", PODS, pod("x"))
    assert (code, said["reason"], said["message"]) == (409, "AlreadyExists", 'pods "x" already exists')


async def pages(ask: Asker) -> None:
    for name in "abcde":
        ask.api.put("Pod", pod(name))
    _, first = await ask("GET", f"{PODS}?limit=2")
    assert (first["kind"], first["metadata"]["remainingItemCount"]) == ("PodList", 3)
    assert not {"kind", "apiVersion"} & first["items"][0].keys(), "items do not repeat what they are"
    ask.api.put("Pod", pod("aa"))
    _, second = await ask("GET", f"{PODS}?limit=9&continue={first['metadata']['continue']}")
    assert [each["metadata"]["name"] for each in second["items"]] == ["c", "d", "e"], "of one moment"
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    ask.api.expire()
    code, said = await ask("GET", f"{PODS}?limit=2&continue={first['metadata']['continue']}")
    assert (code, said["reason"]) == (410, "Expired")


async def watches(ask: Asker) -> None:
    start = ask.api.put("Pod", pod("a", app="x"))["metadata"]["resourceVersion"]
    ask.api.put("Pod", pod("a", app="y"))
    ask.api.put("Pod", pod("b", app="x"))
    ask.api.remove("Pod", "b", "default")
    follow = f"{PODS}?watch=true&resourceVersion={start}"
    found = await ask.watch(follow, 3)
    assert [each["type"] for each in found] == ["MODIFIED", "ADDED", "DELETED"]
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in found]
    assert versions == sorted(set(versions)), "a deletion has a version of its own"
    found = await ask.watch(f"{follow}&labelSelector=app%3Dx", 3)
    assert [(each["type"], each["object"]["metadata"]["name"]) for each in found] == [
        ("DELETED", "a"),  # it no longer matches
        ("ADDED", "b"),
        ("DELETED", "b"),
    ]
    ask.api.expire()
    (gone,) = await ask.watch(follow, 1)
    assert (gone["type"], gone["object"]["kind"]) == ("ERROR", "Status")
    assert (gone["object"]["code"], gone["object"]["reason"]) == (410, "Expired")


async def bookmarks(ask: Asker) -> None:
    start = ask.api.put("Pod", pod("a"))["metadata"]["resourceVersion"]
    newest = ask.api.put("Service", {"metadata": {"name": "s", "namespace": "default"}})
    (mark,) = await ask.watch(f"{PODS}?watch=true&allowWatchBookmarks=true&resourceVersion={start}", 1)
    version = newest["metadata"]["resourceVersion"]
    expected = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version}}
    assert mark == {"type": "BOOKMARK", "object": expected}


async def versions(ask: Asker) -> None:
    code, made = await ask("POST", PODS, pod("a"))
    assert code == 201
    assert {"uid", "creationTimestamp", "resourceVersion"} <= made["metadata"].keys()
    assert made["metadata"]["generation"] == 1
    _, told = await ask(
        "PATCH", f"{PODS}/a/status", {"status": {"phase": "Running"}, "spec": {"a": 9}}, MERGE
    )
    assert (told["status"], told["spec"], told["metadata"]["generation"]) == (
        {"phase": "Running"},
        {"a": 1},
        1,
    )
    _, changed = await ask("PUT", f"{PODS}/a", {**told, "spec": {"a": 2}, "status": {}})
    assert (changed["status"], changed["metadata"]["generation"]) == ({"phase": "Running"}, 2)
    code, said = await ask("PUT", f"{PODS}/a", {**made, "spec": {"a": 3}})
    says = "the object has been modified; please apply your changes to the latest version and try again"
    assert (code, said["reason"]) == (409, "Conflict")
    assert said["message"] == f'Operation cannot be fulfilled on pods "a": {says}'
    same = await ask("PATCH", f"{PODS}/a", {"spec": {"a": 2}}, MERGE)
    assert same[1]["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"], (
        "no change, no version"
    )
    code, said = await ask("DELETE", f"{PODS}/a", {"preconditions": {"uid": "other"}})
    assert (code, said["reason"]) == (409, "Conflict")
    assert (await ask("DELETE", f"{PODS}/a"))[1]["status"] == "Success"


async def server_side_apply(ask: Asker) -> None:
    path = f"{PODS}/a?fieldManager="
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    code, _ = await ask("PATCH", path + "one", {**body, "spec": {"x": 1, "y": 1}}, APPLY)
    assert code == 201
    code, said = await ask("PATCH", path + "two", {**body, "spec": {"x": 2}}, APPLY)
    assert (code, said["reason"]) == (409, "Conflict")
    assert said["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.x'
    assert said["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    _, forced = await ask("PATCH", path + "two&force=true", {**body, "spec": {"x": 2}}, APPLY)
    assert forced["spec"] == {"x": 2, "y": 1}
    _, less = await ask("PATCH", path + "one&force=true", {**body, "spec": {"x": 2}}, APPLY)
    assert less["spec"] == {"x": 2}, "what a manager no longer applies is removed"
    assert {each["manager"] for each in less["metadata"]["managedFields"]} == {"one", "two"}
    assert (await ask("PATCH", f"{PODS}/a", body, APPLY))[0] == 422, "fieldManager is required"


async def discovery(ask: Asker) -> None:
    _, groups = await ask("GET", "/apis")
    assert {"cilium.io", "apps", "discovery.k8s.io"} <= {each["name"] for each in groups["groups"]}
    _, found = await ask("GET", "/apis/cilium.io/v2")
    policies = next(each for each in found["resources"] if each["name"] == "ciliumnetworkpolicies")
    assert (policies["kind"], policies["namespaced"], "cnp" in policies["shortNames"]) == (
        "CiliumNetworkPolicy",
        True,
        True,
    )


SCENES = (errors, pages, watches, bookmarks, versions, server_side_apply, discovery)


@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.__name__)
def test_as_documented(scene: Callable[[Asker], Awaitable[None]]) -> None:
    async def run() -> None:
        async with ApiServer(bookmark_s=0.1) as api, aiohttp.ClientSession() as session:
            await scene(Asker(api, session))

    asyncio.run(run())
