"""The API over HTTP: discovery, get, list with pages, watch with bookmarks, create, replace, patch, delete.

What it does not do: admission, defaulting, authorization, conversion between versions, dry runs that reach
the store, finalizers, graceful deletion, and the garbage collector's owner references.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from cirri.kubeapi import answers, patches, pieces
from cirri.kubeapi.answers import ApiError, not_found
from cirri.kubeapi.objects import Expired, Name, Object
from cirri.kubeapi.pieces import Backend, Target
from cirri.kubeapi.selectors import BadSelector, Matches
from cirri.kubeapi.served import Served
from cirri.kubeapi.tables import Tables, wants_table

LONGEST_BODY = 3 * 2**20
BOOKMARK_S = 60.0
"""How often a watch says up to where it has told everything."""
WATCH_S = 1800.0
"""How long a watch lasts that names no time."""


class Over(Exception):
    """A watch ends here."""


class Server:
    """The API of *kinds*, kept by *backend*."""

    def __init__(
        self,
        kinds: Iterable[Served],
        backend: Backend,
        tables: Tables | None = None,
        *,
        bookmark_s: float = BOOKMARK_S,
    ) -> None:
        self.kinds = tuple(kinds)
        self.backend = backend
        self._tables = tables or Tables()
        self._bookmark_s = bookmark_s
        self._applied: dict[tuple[str, Name, bool], dict[str, Object]] = {}
        self.watches: list[tuple[str, str]] = []
        """Path and selectors of each watch that is open."""
        self.version = answers.VERSION
        """What it says it is; older than it could be, for Debian's kubectl."""
        self.stopping = False

    def application(self, prefix: str = "") -> web.Application:
        """To be run by aiohttp; everything below *prefix*."""
        app = web.Application(client_max_size=LONGEST_BODY)
        app.router.add_route("*", prefix + "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        try:
            return await self.answer(request)
        except ApiError as error:
            return pieces.failure(error)
        except BadSelector as error:
            return pieces.failure(ApiError(400, str(error)))
        except Expired:
            return pieces.failure(ApiError(410, "The provided continue parameter is too old", "Expired"))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """As :meth:`handle`, but raises."""
        parts = [part for part in request.match_info["path"].split("/") if part]
        if (said := self._about(parts)) is not None:
            return said
        target = self._target(parts)
        if target is None:
            raise ApiError(404, "the server could not find the requested resource")
        if request.method == "GET":
            if target.name:
                return self._shown(request, target.kind, self._found(target))
            if request.query.get("watch") in ("true", "1"):
                return await self._watch(request, target)
            return self._list(request, target)
        if request.method == "POST" and not target.name:
            return await self._create(request, target)
        if request.method == "PUT" and target.name:
            return self._shown(request, target.kind, await self._replace(target, await pieces.body(request)))
        if request.method == "PATCH" and target.name:
            return await self._patch(request, target)
        if request.method == "DELETE":
            return await self._delete(request, target)
        raise ApiError(405, "the server does not allow this method on the requested resource")

    def _about(self, parts: list[str]) -> web.Response | None:
        """Answers that depend on no object."""
        match parts:
            case ["version"]:
                return pieces.answer(self.version)
            case ["healthz" | "livez" | "readyz", *_]:
                return web.Response(text="ok")
            case ["openapi", "v2"]:
                # Older clients ask for it with an "@", which newer Go does not read in an answer.
                kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
                return web.Response(body=answers.openapi(), headers={"Content-Type": kind})
            case ["api"]:
                return pieces.answer(answers.core_versions())
            case ["apis"]:
                return pieces.answer(answers.groups(self.kinds))
            case ["apis", name] if found := answers.group(self.kinds, name):
                return pieces.answer(found)
            case ["api", version]:
                return self._resources(version)
            case ["apis", name, version]:
                return self._resources(f"{name}/{version}")
        return None

    def _resources(self, api_version: str) -> web.Response | None:
        known = any(kind.api_version == api_version for kind in self.kinds)
        return pieces.answer(answers.resources(self.kinds, api_version)) if known else None

    def _target(self, parts: list[str]) -> Target | None:
        match parts:
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                return None
        match rest:
            case ["namespaces", namespace, plural, *more] if plural != "status":
                pass
            case [plural, *more]:
                namespace = ""
            case _:
                return None
        for kind in self.kinds:
            if (kind.group, kind.version, kind.plural) == (group, version, plural):
                break
        else:
            return None
        match more:
            case []:
                return Target(kind, namespace)
            case [name]:
                return Target(kind, namespace, name)
            case [name, "status"] if kind.status:
                return Target(kind, namespace, name, status=True)
        return None

    # --- reading ----------------------------------------------------------------------------------

    def _found(self, target: Target) -> Object:
        found = self.backend.objects.get(target.kind.resource, (target.namespace, target.name))
        if found is None:
            raise not_found(target.kind, target.name)
        return found

    def _list(self, request: web.Request, target: Target) -> web.Response:
        query, kind, objects = request.query, target.kind, self.backend.objects
        limit = int(query.get("limit") or 0)
        revision, after = pieces.token(query["continue"]) if query.get("continue") else (0, ("", ""))
        if revision:
            found = [(name, each) for name, each in objects.snapshot(kind.resource, revision) if name > after]
        else:
            revision, found = objects.revision, objects.snapshot(kind.resource)
        wanted = pieces.wanted(query, target.namespace)
        matching = [(name, each) for name, each in found if wanted(each)]
        page = matching[:limit] if limit else matching
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if len(page) < len(matching):
            metadata |= {
                "continue": pieces.token_text(revision, page[-1][0]),
                "remainingItemCount": len(matching) - len(page),
            }
        items = [each for _, each in page]
        if wants_table(request.headers.get("Accept", "")):
            return pieces.answer(self._tables.table(kind, items, metadata))
        # The items of a list do not repeat what they are.
        bare = [{k: v for k, v in each.items() if k not in ("kind", "apiVersion")} for each in items]
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata}
        return pieces.answer({**head, "items": bare})

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        given = request.query.get("resourceVersion", "")
        objects, kind = self.backend.objects, target.kind
        wanted = pieces.wanted(request.query, target.namespace)
        as_table = wants_table(request.headers.get("Accept", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        begun: list[Object] = []
        since = int(given or 0)
        if not since:
            since, begun = (
                objects.revision,
                [each for _, each in objects.snapshot(kind.resource) if wanted(each)],
            )
        events = pieces.begun(begun, self.events(request, kind, since, wanted))
        if as_table:
            events = self._tables.events(kind, events)
        selectors = "&".join(f"{k}={v}" for k, v in sorted(request.query.items()) if k.endswith("Selector"))
        opened = (target.kind.path(target.namespace), selectors)
        await response.prepare(request)
        self.watches.append(opened)
        try:
            async for type_, manifest in events:
                await self.send(request, response, {"type": type_, "object": manifest})
        except (Over, ConnectionError):
            pass
        except Expired:
            expired = ApiError(410, f"too old resource version: {given} ({objects.revision})", "Expired")
            await self.send(request, response, {"type": "ERROR", "object": expired.status()})
        finally:
            self.watches.remove(opened)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def events(
        self, request: web.Request, kind: Served, since: int, wanted: Matches
    ) -> AsyncIterator[tuple[str, Object]]:
        """What a watch says: type and object.  Raises :class:`Expired`."""
        objects = self.backend.objects
        loop = asyncio.get_running_loop()
        until = loop.time() + float(request.query.get("timeoutSeconds") or WATCH_S)
        bookmarks = request.query.get("allowWatchBookmarks") in ("true", "1")
        at, mark = since, loop.time() + self._bookmark_s
        while not self.stopping:
            for change in objects.since(at):
                at = change.revision
                if change.resource == kind.resource and (told := pieces.told(change, wanted)) is not None:
                    yield told
            now = loop.time()
            if now >= until:
                break
            if bookmarks and now >= mark:
                mark = now + self._bookmark_s
                yield "BOOKMARK", pieces.bookmark(kind, at)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(until, mark if bookmarks else until) - now):
                    await objects.after(at, lambda: self.stopping)
        if bookmarks and not self.stopping:
            yield "BOOKMARK", pieces.bookmark(kind, at)

    async def send(
        self, request: web.Request, response: web.StreamResponse, event: Mapping[str, Any]
    ) -> None:
        """Write one event of a watch."""
        await response.write(msgspec.json.encode(event) + b"\n")

    def _shown(self, request: web.Request, kind: Served, manifest: Object, code: int = 200) -> web.Response:
        if wants_table(request.headers.get("Accept", "")):
            metadata = {"resourceVersion": manifest["metadata"]["resourceVersion"]}
            return pieces.answer(self._tables.table(kind, [manifest], metadata), code)
        return pieces.answer(manifest, code)

    # --- writing ----------------------------------------------------------------------------------

    async def _create(self, request: web.Request, target: Target) -> web.Response:
        manifest = await pieces.body(request)
        kind = target.kind
        metadata = dict(manifest.get("metadata") or {})
        if not metadata.get("name") and metadata.get("generateName"):
            revision = self.backend.objects.revision
            metadata["name"] = f"{metadata['generateName']}{revision % 2**20:05x}"
        manifest = pieces.placed(
            {**manifest, "metadata": metadata}, target._replace(name=str(metadata.get("name") or ""))
        )
        name = (target.namespace, str(metadata.get("name")))
        if self.backend.objects.get(kind.resource, name) is not None:
            details = {"name": name[1], "group": kind.group, "kind": kind.plural}
            raise ApiError(
                409, f'{kind.resource} "{name[1]}" already exists', "AlreadyExists", details=details
            )
        if request.query.get("dryRun"):
            return self._shown(request, kind, pieces.versioned(manifest, self.backend.objects.revision), 201)
        return self._shown(request, kind, await self.backend.create(kind, manifest), 201)

    async def _replace(self, target: Target, manifest: Object, *, dry: bool = False) -> Object:
        now = self._found(target)
        manifest = pieces.placed(manifest, target)
        version = manifest["metadata"].get("resourceVersion")
        uid = manifest["metadata"].get("uid")
        if (version and version != now["metadata"]["resourceVersion"]) or (
            uid and uid != now["metadata"].get("uid")
        ):
            says = (
                "the object has been modified; please apply your changes to the latest version and try again"
            )
            raise ApiError(
                409, f'Operation cannot be fulfilled on {target.kind.resource} "{target.name}": {says}'
            )
        if target.status:
            manifest = {**now, "status": manifest.get("status")}
        elif target.kind.status:
            rest = {key: item for key, item in manifest.items() if key != "status"}
            manifest = {**rest, **({"status": now["status"]} if "status" in now else {})}
        if manifest == now or dry:
            return manifest if dry else now
        return await self.backend.replace(target.kind, manifest, status=target.status)

    async def _patch(self, request: web.Request, target: Target) -> web.Response:
        type_, body = request.content_type, await request.read()
        dry = bool(request.query.get("dryRun"))
        if type_ == "application/apply-patch+yaml":
            return await self._apply(request, target, body, dry=dry)
        now, patch = self._found(target), pieces.decoded(body)
        try:
            if type_ == "application/merge-patch+json":
                new = patches.merge(now, patch)
            elif type_ == "application/strategic-merge-patch+json" and not pieces.custom(target.kind):
                new = patches.strategic(now, patch)
            elif type_ == "application/json-patch+json":
                new = patches.json_patch(now, patch)
            else:
                allowed = (
                    "application/json-patch+json,application/merge-patch+json,application/apply-patch+yaml"
                )
                raise ApiError(
                    415,
                    f"the body of the request was in an unknown format; accepted: {allowed}",
                )
        except patches.BadPatch as error:
            raise ApiError(422, str(error)) from None
        if "resourceVersion" not in (patch.get("metadata") or {} if isinstance(patch, dict) else {}):
            new = {**new, "metadata": {k: v for k, v in new["metadata"].items() if k != "resourceVersion"}}
            if await self._same(new, now):
                return self._shown(request, target.kind, now)
        return self._shown(request, target.kind, await self._replace(target, new, dry=dry))

    @staticmethod
    async def _same(new: Object, now: Object) -> bool:
        metadata = {k: v for k, v in now["metadata"].items() if k != "resourceVersion"}
        return bool(new == {**now, "metadata": metadata})

    async def _apply(self, request: web.Request, target: Target, body: bytes, *, dry: bool) -> web.Response:
        manager = request.query.get("fieldManager")
        if not manager:
            raise ApiError(
                422,
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value',
            )
        new = pieces.placed(pieces.decoded(body), target)
        kind, name = target.kind, (target.namespace, target.name)
        now = self.backend.objects.get(kind.resource, name)
        if now is None and target.status:
            raise not_found(kind, target.name)
        mine = self._applied.setdefault((kind.resource, name, target.status), {})
        if now is None:
            mine.clear()
        others = {each: said for each, said in mine.items() if each != manager}
        force = request.query.get("force") in ("true", "1")
        try:
            wanted = patches.applied(now or {}, new, mine.get(manager), others, force=force)
        except patches.Conflict as conflict:
            raise pieces.contested(conflict) from None
        fields = [pieces.managed(manager, kind, patches.fields_v1(new))]
        before = [e for e in wanted["metadata"].get("managedFields") or () if e.get("manager") != manager]
        wanted["metadata"] = {
            **{k: v for k, v in wanted["metadata"].items() if k != "resourceVersion"},
            "managedFields": before + fields,
        }
        if now is None:
            stored = wanted if dry else await self.backend.create(kind, wanted)
        else:
            same = await self._same(wanted, now)
            stored = now if same else await self._replace(target, wanted, dry=dry)
        if not dry:
            mine[manager] = new
        return self._shown(request, kind, stored, 201 if now is None else 200)

    async def _delete(self, request: web.Request, target: Target) -> web.Response:
        options = pieces.decoded(body) if (body := await request.read()) else {}
        if not target.name:
            wanted = pieces.wanted(request.query, target.namespace)
            gone = [
                (name, each)
                for name, each in self.backend.objects.snapshot(target.kind.resource)
                if wanted(each)
            ]
            for name, _ in gone:
                await self.backend.delete(target.kind, name)
            return pieces.answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        now = self._found(target)
        uid = now["metadata"].get("uid", "")
        if (required := (options.get("preconditions") or {}).get("uid")) and required != uid:
            raise ApiError(
                409, f"Precondition failed: UID in precondition: {required}, UID in object meta: {uid}"
            )
        if not (request.query.get("dryRun") or options.get("dryRun")):
            await self.backend.delete(target.kind, (target.namespace, target.name))
        details = {"name": target.name, "group": target.kind.group, "kind": target.kind.plural, "uid": uid}
        return pieces.answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )
