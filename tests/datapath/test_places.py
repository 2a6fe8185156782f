"""Prefixes that policies tell apart come and go, and each packet meets the old policy or the new one.

Random policies follow each other.  What the central services say about a change reaches the node in any
order that the buckets allow; after every single write to a map every address is asked about, also
for packets that were looked up in the ipcache at any moment since programs last were known to have ended.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Any, NamedTuple

import pytest

from cirri.engine import Compiler
from cirri.engine.entries import EGRESS, Entries, EntryKey, EntryValue
from cirri.engine.verdict import verdict
from cirri.labels import prefix_labels, probes
from cirri.layout import EndpointFlag, EndpointValue, IpcacheKey, IpcacheValue, PolicyAction, address16
from cirri.model import Compiled, Identity, PolicyEntry, Resource, resource_key

from .test_sync import LABELS, NAMESPACE, NUMBER, POD, World, a_world

PREFIXES = [
    "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.2.0.0/16", "192.0.2.0/24",
    "2001:db8::/32", "2001:db8:1::/48", "::/8", "128.0.0.0/1", "0.0.0.0/1",
]  # fmt: skip
ADDRESSES = [
    "10.1.2.3", "10.1.2.4", "10.1.3.1", "10.2.0.1", "10.9.0.1", "192.0.2.1", "198.51.100.1", "2001:db8::1",
    "2001:db8:1::1", "2001:db9::1", "::5",
]  # fmt: skip
CHANGES = 12


class Range(NamedTuple):
    """One rule: a prefix without some parts of it, allowed or denied; or the whole world."""

    prefix: str
    excepts: tuple[str, ...] = ()
    deny: bool = False

    def covers(self, address: str) -> bool:
        if self.prefix == "world":
            return True
        one = ip_address(address)
        return one in ip_network(self.prefix) and not any(one in ip_network(each) for each in self.excepts)


Policy = tuple[Range, ...]
Ipcache = dict[IpcacheKey, IpcacheValue]


def allowed(policy: Policy, address: str) -> bool:
    """What *policy* says about the pod's packets to *address*."""
    covering = [rule for rule in policy if rule.covers(address)]
    return not policy or (bool(covering) and not any(rule.deny for rule in covering))


def manifest(policy: Policy) -> Resource:
    spec: dict[str, Any] = {"endpointSelector": {"matchLabels": {"app": "web"}}}
    for rule in policy:
        peer: dict[str, Any] = {"toCIDRSet": [{"cidr": rule.prefix, "except": list(rule.excepts)}]}
        if rule.prefix == "world":
            peer = {"toEntities": ["world"]}
        spec.setdefault("egressDeny" if rule.deny else "egress", []).append(peer)
    about = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}
    return Resource(kind="CiliumNetworkPolicy", namespace="default", name="p", manifest=about)


def some_policy(dice: random.Random) -> Policy:
    rules = []
    for _ in range(dice.randint(0, 3)):
        prefix = dice.choice([*PREFIXES, "world"])
        inside = [p for p in PREFIXES if prefix not in ("world", p) and _within(p, prefix)]
        excepts = tuple(dice.sample(inside, dice.randint(0, min(2, len(inside)))))
        rules.append(Range(prefix, excepts, deny=dice.random() < 0.3))
    return tuple(rules)


def _within(inner: str, outer: str) -> bool:
    a, b = ip_network(inner), ip_network(outer)
    return a.version == b.version and a.subnet_of(b)  # type: ignore[arg-type]


class Central:
    """The services that tell the node, each in its bucket, in order."""

    def __init__(self) -> None:
        self.compiler = Compiler()
        self.compiler.add_identity(NUMBER, LABELS)
        self.numbers: dict[str, int] = {}
        self.revisions = {"selectors": 0, "identities": 0, "policies": 0}
        self.resources = count(1)
        self.out: dict[str, list[tuple[str, Any]]] = {name: [] for name in self.revisions}

    def say(self, table: str, key: str, value: Any) -> None:
        self.revisions[table] += 1
        self.out[table].append((key, value))

    def compile(self) -> None:
        delta = self.compiler.flush()
        for one in delta.selectors.values():
            self.say("selectors", one.key, one)
        for policy in delta.policies.values():
            self.say("policies", str(policy.identity), PolicyEntry(subject=policy))
        for key in delta.removed_selectors:
            self.say("selectors", key, None)

    def mark(self, resources: int) -> None:
        marker = Compiled(
            resources=resources,
            selectors=self.revisions["selectors"],
            identities=self.revisions["identities"],
        )
        self.say("policies", "_revision", PolicyEntry(compiled=marker))

    def change(self, policy: Policy) -> int:
        """A policy replaces the one before: what is said about it, in the end that it is all."""
        resource, revision = manifest(policy), next(self.resources)
        if policy:
            self.compiler.update_resource(resource)
        else:
            self.compiler.delete_resource(resource_key(resource.kind, "default", "p", ""))
        self.compile()
        for prefix in sorted(self.compiler.missing()):
            labels = prefix_labels(ip_network(prefix))
            self.numbers[prefix] = number = next(probes(labels))
            self.say("identities", str(number), Identity(id=number, labels=labels))
            self.compiler.add_identity(number, labels)
        self.compile()
        self.mark(revision)
        return revision

    def release(self) -> None:
        """Prefixes that no selector names lose their identity."""
        named = {prefix for one in self.compiler.sets.values() for prefix in one.prefixes}
        for prefix in self.numbers.keys() - named:
            number = self.numbers.pop(prefix)
            self.say("identities", str(number), None)
            self.compiler.remove_identity(number)
        self.compile()
        self.mark(next(self.resources) - 1)


class Watched:
    """A map that is looked at after each write of one entry."""

    def __init__(self, inner: Any, look: Callable[[], None]) -> None:
        self.inner, self.look = inner, look

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put(self, key: Any, value: Any) -> None:
        self.inner.put(key, value)
        self.look()

    def put_many(self, items: Any) -> int:
        items = list(items)
        for key, value in items:
            self.put(key, value)
        return len(items)

    def delete(self, key: Any) -> None:
        self.inner.delete(key)
        self.look()

    def delete_many(self, keys: Any) -> int:
        keys = list(keys)
        for key in keys:
            self.inner.delete_many([key])
            self.look()
        return len(keys)


class Node:
    """A pod under policy, and packets of it on their way."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.may: dict[str, set[bool]] = {}
        """What may become of packets to each address now."""
        self.endpoints: list[EndpointValue | None] = []
        self.ipcaches: list[Ipcache] = []
        """As packets that are on their way may have found them, the endpoint first."""
        self.watch()

    def watch(self) -> None:
        kernel = self.world.kernel
        kernel.ipcache.map = Watched(kernel.ipcache.map, self.look)  # type: ignore[assignment]
        kernel.policies.map = Watched(kernel.policies.map, self.look)  # type: ignore[assignment]
        kernel.policies.endpoint_map = Watched(kernel.policies.endpoint_map, self.look)  # type: ignore[assignment]

    def restart(self) -> None:
        """The service is killed and starts; that takes longer than any program runs."""
        del self.endpoints[:-1], self.ipcaches[:-1]
        self.world.start()
        self.watch()
        self.world.resume()

    def look(self) -> None:
        """Every address, for every moment at which it may have been looked up."""
        kernel = self.world.kernel
        ipcache = kernel.ipcache.map.to_dict()
        endpoint = kernel.policies.endpoint_map.get(address16("10.0.0.1"))
        if not self.ipcaches or (self.endpoints[-1], self.ipcaches[-1]) != (endpoint, ipcache):
            self.endpoints.append(endpoint)
            self.ipcaches.append(ipcache)
        if endpoint is None or not self.may:
            return
        sets: dict[int, Entries] = {}
        for k, v in kernel.policies.map.items():
            key = EntryKey(k.identity, k.direction, k.protocol, k.port, k.port_bits)
            sets.setdefault(k.policy_id, {})[key] = EntryValue(v.rule, v.action == PolicyAction.DENY)
        for address, may in self.may.items():
            asked: set[tuple[EndpointValue, int]] = set()
            for first, value in enumerate(self.endpoints):
                if value is not None:
                    asked |= {(value, owner(ipcache, address)) for ipcache in self.ipcaches[first:]}
            for value, peer in asked:
                enforced = bool(value.flags & EndpointFlag.ENFORCE_EGRESS)
                entries = sets.get(value.policy_id, {})
                found = verdict(entries, peer, EGRESS, 6, 80, enforced=enforced).allowed
                assert found in may, f"{address}, found to be {peer}: {found} by {value}"

    def settle(self) -> None:
        """Programs end; what waited for that goes on."""
        sync = self.world.sync
        while what := sync.passing():
            del self.endpoints[:-1], self.ipcaches[:-1]
            sync.passed(what)
            sync.step()


def owner(ipcache: Ipcache, address: str) -> int:
    """As programs find it: by the longest prefix."""
    raw = int.from_bytes(address16(address), "big")
    best = max(
        (
            key
            for key in ipcache
            if raw >> (128 - key.prefix_len) == int.from_bytes(key.address, "big") >> (128 - key.prefix_len)
        ),
        key=lambda key: key.prefix_len,
        default=None,
    )
    return ipcache[best].identity if best else (9 if "." in address else 10)


@contextmanager
def running() -> Iterator[tuple[Node, Central]]:
    with a_world(policy=512, ipcache=512) as world:
        central = Central()
        central.compile()
        world.put("namespaces", "Namespace._.default._", NAMESPACE)
        world.put("pods", "Pod.default.web.here", POD)
        world.put("identities", str(NUMBER), Identity(id=NUMBER, labels=LABELS))
        central.revisions["identities"] = 1
        node = Node(world)
        tell(node, central, random.Random(0))
        assert world.local.realized.is_set()
        yield node, central


def tell(node: Node, central: Central, dice: random.Random) -> None:
    """Deliver all that was said, in some order that keeps that of each bucket; programs end now and then."""
    out = central.out
    while waiting := [name for name, messages in out.items() if messages]:
        table = dice.choice(waiting)
        node.world.put(table, *out[table].pop(0))
        if dice.random() < 0.3:
            node.settle()
    node.settle()


@pytest.mark.parametrize("seed", range(20))
def test_each_packet_meets_the_old_policy_or_the_new_one(seed: int) -> None:
    dice = random.Random(seed)
    with running() as (node, central):
        old: Policy = ()
        for _ in range(CHANGES):
            new = some_policy(dice)
            node.may = {a: {allowed(old, a), allowed(new, a)} for a in ADDRESSES}
            revision = central.change(new)
            if dice.random() < 0.5:
                tell(node, central, dice)
            central.release()
            tell(node, central, dice)
            assert node.world.sync.policy_revision >= revision, "acknowledged"
            node.may = {a: {allowed(new, a)} for a in ADDRESSES}
            node.look()
            places = {k for k, v in node.world.kernel.ipcache.copy.items() if v.identity > 1 << 24}
            assert places == {IpcacheKey.of(ip_network(p)) for p in central.numbers}
            old = new


@pytest.mark.parametrize("seed", range(100, 112))
def test_a_restart_takes_over_what_the_process_before_left(seed: int) -> None:
    """Whatever it was in the middle of, and although the policies changed meanwhile."""
    dice = random.Random(seed)
    with running() as (node, central):
        old: Policy = ()
        for _ in range(4):
            new = some_policy(dice)
            node.may = {a: {allowed(old, a), allowed(new, a)} for a in ADDRESSES}
            revision = central.change(new)
            for name, messages in central.out.items():  # the process hears some of it
                for _ in range(dice.randint(0, len(messages))):
                    node.world.put(name, *messages.pop(0))
            node.restart()
            central.release()
            tell(node, central, dice)
            assert node.world.sync.policy_revision >= revision
            node.may = {a: {allowed(new, a)} for a in ADDRESSES}
            node.look()
            old = new
