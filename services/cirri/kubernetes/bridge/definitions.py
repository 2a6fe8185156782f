"""The CustomResourceDefinitions: made where they are absent, kept new where they are ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import aiohttp
import msgspec

from cirri.kubeapi.served import DEFINITIONS
from cirri.kubernetes.bridge.connect import Client
from cirri.manifests.crd import MINE, OWNER, definitions

RETRY_S = 5.0
_ASK = aiohttp.ClientTimeout(total=15.0)
Verdict = Literal["make", "replace", "keep", "foreign"]


class Say(Protocol):
    """A line of the log."""

    def __call__(self, event: str, **facts: Any) -> None:
        """Say *event*."""


def verdict(wanted: Mapping[str, Any], found: Mapping[str, Any] | None) -> Verdict:
    """What to do about a definition that is *found* like this.  Pure.

    What the server adds to it (defaults, status) is no difference.
    """
    if found is None:
        return "make"
    if (found["metadata"].get("labels") or {}).get(OWNER) != MINE[OWNER]:
        return "foreign"
    return "keep" if _within(wanted["spec"], found["spec"]) else "replace"


def _within(wanted: Any, found: Any) -> bool:
    """Whether *found* says everything that *wanted* says."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            name in found and _within(each, found[name]) for name, each in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(wanted) == len(found)
            and all(_within(each, there) for each, there in zip(wanted, found, strict=True))
        )
    return bool(wanted == found)


def lacks(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What somebody else's definition does not serve that is needed; empty: it will do."""
    served = {each["name"] for each in found["spec"]["versions"] if each.get("served")}
    stored = wanted["spec"]["versions"][0]["name"]
    return "" if stored in served else f"does not serve version {stored}, which is followed"


async def install(client: Client, say: Say) -> None:
    """Return when every definition is there, as far as that is ours to do."""
    due = {each["metadata"]["name"]: each for each in definitions()}
    complaint = ""
    while due:
        for name, wanted in list(due.items()):
            try:
                await _one(client, wanted, say)
            except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError, _NotNow) as error:
                if complaint != (complaint := f"{name}: {error or type(error).__name__}"):
                    say("definition cannot be installed", why=complaint)
                break
            del due[name]
        if due:
            await asyncio.sleep(RETRY_S)


class _NotNow(Exception):
    """The server says no."""


async def _one(client: Client, wanted: Mapping[str, Any], say: Say) -> None:
    name = wanted["metadata"]["name"]
    path = DEFINITIONS.path(name=name)
    async with client.request("GET", path, timeout=_ASK) as answer:
        body = await answer.read()
        if answer.status not in (200, 404):
            raise _NotNow(f"{answer.status} {answer.reason}")
        found: dict[str, Any] = msgspec.json.decode(body) if answer.status == 200 else {}
    match verdict(wanted, found or None):
        case "make":
            await _send(client, "POST", DEFINITIONS.path(), wanted)
        case "replace":
            version = found["metadata"]["resourceVersion"]
            metadata = {**wanted["metadata"], "resourceVersion": version}
            await _send(client, "PUT", path, {**wanted, "metadata": metadata})
        case "foreign":
            facts = {"lacks": why} if (why := lacks(wanted, found)) else {}
            say("definition is somebody else's, and stays as it is", name=name, **facts)


async def _send(client: Client, method: str, path: str, body: Mapping[str, Any]) -> None:
    data = msgspec.json.encode(body)
    async with client.request(method, path, {"fieldManager": "cirri"}, body=data, timeout=_ASK) as answer:
        await answer.read()
        if answer.status >= 300:
            raise _NotNow(f"{answer.status} {answer.reason}")
