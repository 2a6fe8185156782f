"""An API server's double over real HTTP, with faults on a script; see :mod:`cirri.kubeapi`.

::

    async with ApiServer() as server:
        server.put("Pod", {"metadata": {"name": "a", "namespace": "default"}, "spec": {}})
        server.faults.append(Fault("list", code=429, retry_after_s=1))
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec
from aiohttp import web

from cirri.kubeapi.answers import VERSION, ApiError
from cirri.kubeapi.memory import Memory
from cirri.kubeapi.objects import Object
from cirri.kubeapi.pieces import failure
from cirri.kubeapi.served import DEFINITIONS, Served, every
from cirri.kubeapi.server import Over, Server

Where = Literal["list", "watch", "event", "write"]
What = Literal["", "cut", "half", "twice", "swap", "error", "stall", "garbage", "empty"]


class Fault(NamedTuple):
    """Happens once, to the next request (or event of a watch) that it is for."""

    where: Where
    what: What = ""
    """``cut``: the connection; ``half``: in the middle of an event; ``twice``: the event comes again;
    ``swap``: after the one that follows it; ``error``: an ERROR event with *code*; ``stall``: *seconds* of
    silence; ``empty``: a list's answer without items, as if it were the last; a whole list follows it."""
    code: int = 0
    """Status of the answer."""
    retry_after_s: int = 0
    seconds: float = 0.0
    kind: str = ""
    """Only for requests of this kind; empty: any."""


class ApiServer:
    """Listens within the block, on a free port of 127.0.0.1 unless it is told where."""

    def __init__(
        self,
        kinds: tuple[Served, ...] = (),
        *,
        window: int = 1000,
        bookmark_s: float = 60.0,
        minor: int = 0,
        at: tuple[str, int] = ("127.0.0.1", 0),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """*minor*: of the Kubernetes that it says it is; 0: the server's own.  *at*: address and port."""
        self.memory = Memory(window)
        self.faults: list[Fault] = []
        self.kinds = {kind.kind: kind for kind in kinds or (*every(), DEFINITIONS)}
        self.requests: Counter[str] = Counter()
        """How often each was asked: ``list pods``, ``watch pods``, ``PATCH pods``."""
        self.most_watches = 0
        """Watches of one path and selector that were open at once."""
        self.url = ""
        self._server = _Faulty(self, self.kinds.values(), self.memory, bookmark_s=bookmark_s)
        if minor:
            self._server.version = {**VERSION, "minor": str(minor), "gitVersion": f"v1.{minor}.0"}
        self._runner: web.AppRunner | None = None
        self._host, self._port = at
        self._tls = tls

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a :meth:`stop` on the same port, with the same objects."""
        self._server.stopping = False
        runner = web.AppRunner(
            self._server.application(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port, reuse_address=True, ssl_context=self._tls)
        await site.start()
        self._runner = runner
        self._port = runner.addresses[0][1]
        self.url = f"{'https' if self._tls else 'http'}://{self._host}:{self._port}"

    async def stop(self) -> None:
        """Be away."""
        self._server.stopping = True
        self.memory.objects.wake()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def watches(self) -> Counter[tuple[str, str]]:
        """Open watches by path and selectors."""
        return Counter(self._server.watches)

    def put(self, kind: str, manifest: Mapping[str, Any]) -> Object:
        """Create or replace an object."""
        served = self.kinds[kind]
        head = {"apiVersion": served.api_version, "kind": kind}
        return self.memory.put(served, {**head, **manifest})

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        """Remove an object."""
        self.memory.objects.remove(self.kinds[kind].resource, (namespace, name))

    def all(self, kind: str) -> list[Object]:
        """Every object of a kind."""
        return [*self.memory.objects.all(self.kinds[kind].resource).values()]

    def expire(self) -> None:
        """Forget every version but the newest: watches that begin earlier get 410."""
        self.memory.objects.forget()

    def kubeconfig(self, path: Path) -> Path:
        """*path*, written: how to get here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_bytes(msgspec.json.encode(config))
        return path

    def fault(self, where: Where, kind: str) -> Fault | None:
        """The next fault for such a request or event, which is used up."""
        for i, each in enumerate(self.faults):
            if each.where == where and each.kind in ("", kind):
                return self.faults.pop(i)
        return None


class _Faulty(Server):
    """The API, with what goes wrong on the way."""

    def __init__(self, double: ApiServer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._double = double
        self._held: dict[web.StreamResponse, bytes] = {}
        self._lied: set[str] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        parts = [part for part in request.match_info["path"].split("/") if part]
        target = self._target(parts)
        if target is None:
            return await super().answer(request)
        watch = request.query.get("watch") == "true"
        where: Where = "watch" if watch else "list" if request.method == "GET" else "write"
        kind = target.kind.kind
        self._double.requests[f"{where if where != 'write' else request.method} {target.kind.plural}"] += 1
        fault = self._double.fault(where, kind) if watch or not target.name or where == "write" else None
        if fault is None:
            answer = await super().answer(request)
            if where == "list" and answer.status == 200 and _is_last(answer):
                self._lied.discard(kind)
            return answer
        if fault.what == "stall":
            await asyncio.sleep(fault.seconds)
        elif fault.what == "cut":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        elif fault.what == "empty" and kind not in self._lied:
            self._lied.add(kind)
            head = {"kind": f"{kind}List", "apiVersion": target.kind.api_version}
            version = str(self._double.memory.objects.revision)
            return web.json_response({**head, "metadata": {"resourceVersion": version}, "items": []})
        elif fault.what == "garbage":
            return web.Response(body=b'{"kind":"PodList","items":[{"met', content_type="application/json")
        if fault.code:
            says = "too old resource version" if fault.code == 410 else "on purpose"
            return failure(ApiError(fault.code, says, retry_after_s=fault.retry_after_s))
        return await super().answer(request)

    async def send(
        self, request: web.Request, response: web.StreamResponse, event: Mapping[str, Any]
    ) -> None:
        now = self._double.watches
        self._double.most_watches = max(self._double.most_watches, *now.values())
        line = msgspec.json.encode(event) + b"\n"
        kind = str(event["object"].get("kind", ""))
        held = self._held.pop(response, b"")
        fault = self._double.fault("event", kind) if event["type"] not in ("ERROR", "BOOKMARK") else None
        what = fault.what if fault else ""
        if what == "swap" and not held:
            self._held[response] = line
            return
        if what == "stall" and fault:
            await asyncio.sleep(fault.seconds)
        if what == "twice":
            line += line
        if what == "garbage":
            line = b'{"type":"MODIFIED","object":{"metadata":{"na\xff\n'
        if what == "half":
            await response.write(line[: len(line) // 2])
        if what in ("half", "cut"):
            # What was held back never comes: the server has said it to nobody.
            if request.transport is not None:
                request.transport.abort()
            raise Over
        if what == "error" and fault:
            status = ApiError(fault.code or 500, "on purpose", retry_after_s=fault.retry_after_s).status()
            await response.write(msgspec.json.encode({"type": "ERROR", "object": status}) + b"\n")
            raise Over
        await response.write(held + line if event["type"] == "BOOKMARK" else line + held)


def _is_last(answer: web.StreamResponse) -> bool:
    """Whether this answer ends a list."""
    body = answer.body if isinstance(answer, web.Response) else None
    return isinstance(body, bytes) and not msgspec.json.decode(body).get("metadata", {}).get("continue")
