"""NATS permissions derived from the contracts: who may say and hear what.

Each service is a user.  It may write the buckets (or shards) that it declares, read those that it
declares, answer, call and tell on the subjects that it declares, and hear its own inbox.  People's users
(``cli``, ``lab``) may read every bucket and log, call every service, hear what is told and look at ``$SRV``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cirri.kv.wire import MAX_MESSAGE_BYTES, stream_name
from cirri.model import BUCKETS, LEASES
from cirri.model.bucket import Bucket, token
from cirri.model.flows import FLOW_LOGS, NO_NAMESPACE, Log
from cirri.model.runtimeevents import RUNTIME_LOG
from cirri.runtime.contract import Service
from cirri.runtime.micro import VERBS
from cirri.runtime.runtime import called_subject, request_subject, told_subject

ANY_NODE = "*"
LOGS = (*FLOW_LOGS, RUNTIME_LOG)
"""What people read."""


class User(NamedTuple):
    """One user of the server and the service it is."""

    service: Service
    user: str
    password: str
    node: str | None = None
    """Of a node-scoped service."""


class Tenant(NamedTuple):
    """A person who may read the flows of some namespaces, and nothing else."""

    user: str
    password: str
    namespaces: tuple[str, ...]


class Allowed(NamedTuple):
    """Subjects that a user may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def reading(bucket: Bucket[Any]) -> Allowed:
    """What it takes to follow *bucket*."""
    stream = stream_name(bucket.name)
    api = "$JS.API"
    return Allowed(
        (
            f"{api}.STREAM.INFO.{stream}",
            f"{api}.STREAM.MSG.GET.{stream}",
            f"{api}.CONSUMER.CREATE.{stream}.>",
            f"{api}.CONSUMER.INFO.{stream}.*",
            f"{api}.CONSUMER.DELETE.{stream}.*",
            f"$JS.FC.{stream}.>",
        ),
        (f"$KV.{bucket.name}.>",),
    )


def writing(bucket: Bucket[Any], shard: str) -> Allowed:
    """What it takes to own *bucket*, or its *shard*, beyond reading it."""
    stream = stream_name(bucket.name)
    make = (f"$JS.API.STREAM.CREATE.{stream}",)
    if shard:
        # Purging and removing cannot be limited to a shard, so no shard's owner may.
        return Allowed((f"$KV.{bucket.name}.{shard}", f"$KV.{bucket.name}.{shard}.>", *make), ())
    verbs = ("STREAM.UPDATE", "STREAM.PURGE", "STREAM.MSG.DELETE")
    whole = tuple(f"$JS.API.{verb}.{stream}" for verb in verbs)
    return Allowed((f"$KV.{bucket.name}.>", *make, *whole), ())


def replaying(log: Log, namespace: str = "*") -> Allowed:
    """What it takes to read *log*, or what it holds of *namespace* (a token) alone.

    A consumer's filter is part of the subject under which it is asked for, and the server compares the two.
    """
    api, name = "$JS.API", log.name
    create = f"{api}.CONSUMER.CREATE.{name}.*.{log.root}.{namespace}.>"
    whole = (f"{api}.STREAM.INFO.{name}", f"{api}.CONSUMER.LIST.{name}") if namespace == "*" else ()
    return Allowed((create, f"{api}.CONSUMER.DELETE.{name}.*", f"$JS.FC.{name}.>", *whole), ())


def appending(log: Log, node: str) -> Allowed:
    """What it takes to make *log* and append what *node* (a token) has seen."""
    verbs = tuple(f"$JS.API.STREAM.{verb}.{log.name}" for verb in ("CREATE", "UPDATE", "INFO"))
    return Allowed((*verbs, *(f"{log.root}.*.{verdict}.{node}" for verdict in log.verdicts)), ())


def of_tenant(user: str, namespaces: Iterable[str]) -> Allowed:
    """All that *user* may do who reads the flows of *namespaces*, and nothing else on the bus."""
    places = [token(name) if name else NO_NAMESPACE for name in namespaces]
    return _joined([_inbox(user), *(replaying(log, place) for log in LOGS for place in places)])


def of_service(service: Service, user: str, node: str | None = None, askers: Iterable[str] = ()) -> Allowed:
    """All that *service* may do as *user* (on *node*); *askers*: the users that it may answer."""
    parts = [_inbox(user), Allowed(tuple(_answers(asker) for asker in askers), ())]
    parts += [reading(bucket) for bucket in dict.fromkeys((*service.reads, *service.writes))]
    parts += [writing(bucket, _shard(bucket, service, node)) for bucket in service.writes]
    if service.scope == "cluster" and LEASES not in service.writes:
        parts += [reading(LEASES), writing(LEASES, _shard(LEASES, service, node))]
    subjects = _served(service, node)
    watch = tuple(
        f"$SRV.{verb}{tail}" for verb in VERBS for tail in ("", f".{service.name}", f".{service.name}.*")
    )
    told = tuple(told_subject(name, node or "") for name in service.tells)
    heard = tuple(told_subject(name, node or ANY_NODE) for name in service.hears)
    parts += [appending(log, token(node) if node else ANY_NODE) for log in service.appends]
    parts += [replaying(log) for log in service.replays]
    parts.append(Allowed((*_calls(service, node), *told), (*subjects, *watch, *heard)))
    return _joined(parts)


def of_people(user: str, services: Iterable[Service]) -> Allowed:
    """All that a person's *user* may do."""
    parts = [_inbox(user), Allowed(("$SRV.>",), ())]
    parts += [reading(bucket) for bucket in BUCKETS]
    parts += [replaying(log) for log in LOGS]
    parts.append(Allowed(tuple(f"$JS.API.CONSUMER.LIST.{stream_name(b.name)}" for b in BUCKETS), ()))
    for service in services:
        node = ANY_NODE if service.scope == "node" else ""
        subjects = (
            f"cirri.{service.name}.{node}.{name}" if node else f"cirri.{service.name}.{name}"
            for name in service.serves
        )
        parts.append(Allowed(tuple(subjects), tuple(told_subject(name, ANY_NODE) for name in service.tells)))
    return _joined(parts)


def nats_config(
    services: Iterable[User | tuple[Service, str, str, str | None]],
    *,
    host: str = "127.0.0.1",
    port: int = 4222,
    store_dir: Path | str = "/var/lib/cirri/nats",
    people: Mapping[str, str] | None = None,
    tenants: Iterable[Tenant] = (),
) -> str:
    """The text of nats.conf: JetStream in *store_dir*, a user for each of *services*.

    *people*: passwords of users that may look and ask, e.g. ``{"cli": "..."}``; *tenants* see the flows of
    their namespaces only.
    The text holds passwords: write it for the server's eyes only.
    """
    users = [User(*given) for given in services]
    people = people or {}
    lines = []
    for u in users:
        served = {*_served(u.service, u.node)}
        askers = (*people, *(o.user for o in users if served & {*_calls(o.service, o.node)}))
        lines.append(_user(u.user, u.password, of_service(u.service, u.user, u.node, askers)))
    kinds = tuple(dict.fromkeys(u.service for u in users))
    lines += [_user(name, password, of_people(name, kinds)) for name, password in people.items()]
    lines += [_user(t.user, t.password, of_tenant(t.user, t.namespaces)) for t in tenants]
    return "\n".join(
        (
            f"host: {_quoted(host)}",
            f"port: {port}",
            f"max_payload: {MAX_MESSAGE_BYTES}",
            f"jetstream {{ store_dir: {_quoted(str(store_dir))} }}",
            "authorization {",
            "  users: [",
            *lines,
            "  ]",
            "}",
            "",
        )
    )


def _served(service: Service, node: str | None) -> tuple[str, ...]:
    """The request subjects that *service* (on *node*) answers."""
    return tuple(request_subject(service.name, name, node or "") for name in service.serves)


def _calls(service: Service, node: str | None) -> tuple[str, ...]:
    return tuple(called_subject(subject, node or "") for subject in service.calls)


def _answers(user: str) -> str:
    """The subjects on which *user* hears answers.

    Who may answer is named in the publish lists.  The server's ``allow_responses`` would do without, but
    it remembers a permission for each message with a reply subject, deliveries of JetStream among
    them, and walks them all once they are many: 10,000 keys cost a minute of its CPU.
    """
    return f"_INBOX_{token(user)}.>"


def _inbox(user: str) -> Allowed:
    """*user* hears answers, and sends itself a message to see it pass."""
    own = (_answers(user),)
    return Allowed(own, own)


def _shard(bucket: Bucket[Any], service: Service, node: str | None) -> str:
    if bucket.shard == "node":
        return token(node or "")
    return token(service.name) if bucket.shard == "service" else ""


def _joined(parts: Iterable[Allowed]) -> Allowed:
    publish: dict[str, None] = {}
    subscribe: dict[str, None] = {}
    for part in parts:
        publish.update(dict.fromkeys(part.publish))
        subscribe.update(dict.fromkeys(part.subscribe))
    return Allowed(tuple(publish), tuple(subscribe))


def _user(name: str, password: str, allowed: Allowed) -> str:
    return (
        f"    {{ user: {_quoted(name)}, password: {_quoted(password)}, permissions: {{\n"
        f"      publish: {{ allow: {_listed(allowed.publish)} }},\n"
        f"      subscribe: {{ allow: {_listed(allowed.subscribe)} }} }} }}"
    )


def _listed(subjects: tuple[str, ...]) -> str:
    # An empty allow list would allow everything.
    if not subjects:
        return '["_NOTHING_"]'
    return "[" + ", ".join(_quoted(s) for s in subjects) + "]"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
