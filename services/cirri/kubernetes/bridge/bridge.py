"""Every kind followed, and bucket ``resources`` kept like the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import aiohttp
import msgspec
from msgspec import Struct

from cirri.kubernetes.bridge import kept
from cirri.kubernetes.bridge.following import SILENCE_S, Api, Following, Source
from cirri.kubernetes.bridge.mirror import Mirror, Posting, identity
from cirri.kubernetes.bridge.reflector import PAGE, Delta, Place
from cirri.kubernetes.bridge.secrets import Names, named
from cirri.kubernetes.state import Key
from cirri.manifests import POLICY_KINDS
from cirri.model import Resource

ADOPT = "cirri.io/adopt"
"""Annotation of namespace ``kube-system``: the uid of the cluster whose objects this one's may replace."""
NAMING = POLICY_KINDS | {"CiliumBGPPeerConfig", "CiliumBGPPeeringPolicy"}
"""Kinds whose objects name Secrets."""
_ASK = aiohttp.ClientTimeout(total=10.0)


class Say(Protocol):
    """A line of the log."""

    def __call__(self, event: str, **facts: Any) -> None:
        """Say *event*."""


class _Namespace(Struct):
    metadata: kept.Metadata


class Bridge:
    """One watcher of each kind; *stored* is what the bucket holds when it begins."""

    def __init__(
        self,
        api: Api,
        bucket: Posting,
        stored: Mapping[str, Resource],
        say: Say,
        *,
        noted: Callable[[Key, Resource | None], None] = lambda key, resource: None,
        refused: Callable[[Key, str], None] = lambda key, why: None,
        silence_s: float = SILENCE_S,
        page: int = PAGE,
    ) -> None:
        self._api, self._say = api, say
        self._other_noted, self._other_refused = noted, refused
        self._silence_s, self._page = silence_s, page
        self._uid = identity(stored)
        """The cluster that the bucket is of; empty: of none yet."""
        self._complaint = ""
        self.mirror = Mirror(
            bucket, stored.items(), [*kept.kinds(), "Secret"], noted=self._noted, refused=self._refuse
        )
        self.following: dict[str, Following[Struct]] = {
            kind: self._follow(kind, kept.source(kind)) for kind in kept.kinds()
        }
        self._names = Names()
        self._secrets: dict[Place, tuple[Following[Struct], asyncio.Task[None]]] = {}
        self._secrets_due = asyncio.Event()

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            for kind, each in self.following.items():
                tasks.create_task(each.run(), name=f"follow-{kind}")
            tasks.create_task(self._follow_secrets(tasks), name="follow-Secret")

    @property
    def watching(self) -> bool:
        """Whether every kind is watched now."""
        return all(each.health.watching for each in self.following.values())

    @property
    def errors(self) -> dict[str, str]:
        """Why a kind is not watched now."""
        return {kind: each.health.error for kind, each in self.following.items() if each.health.error}

    def _follow(self, kind: str, source: Source, known: Sequence[Place] | None = None) -> Following[Struct]:
        return Following(
            self._api,
            source,
            kept.reader(kind),
            partial(self._take, kind),
            known=self.mirror.known(kind) if known is None else known,
            trusted=self._trusted,
            silence_s=self._silence_s,
            page=self._page,
        )

    async def _take(self, kind: str, deltas: Sequence[Delta[Struct]], whole: bool) -> None:
        # Secrets are whole when all that are named have been looked for: see _follow_secrets.
        await self.mirror.take(kind, deltas, whole=whole and kind != "Secret")

    async def _trusted(self) -> bool:
        """Whether the server is the cluster that the bucket is of.  Raises what the request raises."""
        async with self._api.get("/api/v1/namespaces/kube-system", {}, _ASK) as answer:
            if answer.status != 200:
                raise aiohttp.ClientPayloadError(f"namespace kube-system: {answer.status} {answer.reason}")
            found = msgspec.json.decode(await answer.read(), type=_Namespace).metadata
        adopted = (found.annotations or {}).get(ADOPT)
        complaint = ""
        if self._uid and self._uid not in (found.uid, adopted):
            complaint = (
                f"the API server is of another cluster (kube-system has uid {found.uid}) than what is held "
                f"({self._uid}): nothing of it is taken. If it is meant, annotate its namespace "
                f"kube-system with {ADOPT}={self._uid}"
            )
        if complaint and complaint != self._complaint:
            self._say("another cluster", why=complaint)
        self._complaint = complaint
        if not complaint:
            self._uid = self._uid or found.uid
        return not complaint

    def _refuse(self, key: Key, why: str) -> None:
        if why:
            self._say("object refused", kind=key.kind, namespace=key.namespace, name=key.name, why=why)
        self._other_refused(key, why)

    def _noted(self, key: Key, resource: Resource | None) -> None:
        if key.kind in NAMING and self._names.note(key, named(resource) if resource else ()):
            self._secrets_due.set()
        self._other_noted(key, resource)

    # --- Secrets, one by one -----------------------------------------------------------------------

    async def _follow_secrets(self, tasks: asyncio.TaskGroup) -> None:
        """Follow the Secrets that policies name, and no other."""
        policies = [self.following[kind] for kind in self.following if kind in NAMING]
        await asyncio.gather(*(each.synced.wait() for each in policies))
        first = True
        while True:
            self._secrets_due.clear()
            wanted = self._names.all()
            for place in self._secrets.keys() - wanted:
                _, task = self._secrets.pop(place)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            gone = [
                Delta[Struct](place, None) for place in self.mirror.known("Secret") if place not in wanted
            ]
            await self.mirror.take("Secret", gone, whole=False)
            for place in wanted - self._secrets.keys():
                known = [place] if place in self.mirror.known("Secret") else []
                each = self._follow("Secret", kept.only("Secret", *place), known)
                self._secrets[place] = each, tasks.create_task(each.run(), name=f"follow-Secret-{place.name}")
            if first:
                await asyncio.gather(*(each.synced.wait() for each, _ in self._secrets.values()))
                await self.mirror.take("Secret", (), whole=True)
                first = False
            await self._secrets_due.wait()
