"""What ``policy simulate`` predicts of requests, and what Envoy does once the change is in force.

Requests go through the real proxy under some policies, what it tells of them on the bus becomes rows, which
are asked about other policies; then these are put in force and the same requests sent again.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import msgspec
from integration.l7.test_agreement import HOSTS, METHODS, PATHS, some_request

from cirri.engine import INGRESS, verdict
from cirri.engine.l7 import HttpRequest
from cirri.engine.redirects import Expansion, expand
from cirri.flows.proxied import end_of
from cirri.history import Reply, RowType, Verdict
from cirri.history.questions import ask as asked_of
from cirri.history.replay import Asked, Replay
from cirri.history.replay import Traffic as Seen
from cirri.kv import Bus, Message
from cirri.layout import PolicyDirection
from cirri.model import L7_RECORDS, End, L7Batch, L7Record
from cirri.runtime.runtime import told_subject
from cirri.testing import traffic
from cirri.testing.oracle import Pod, World
from cirri.testing.proof.engine import Engine, resources
from cirri.testing.proof.worlds import HERE, NODES
from cirri.testing.proxied import Proxied, http, until
from cirri.testing.recorder import Recorder, ask, request

PAIRS, REQUESTS, SEED = 40, 8, 20261123
PORT, FIRST = 80, 21000
ROOM = 20
"""Ports for the listeners of one policy."""
SUBJECT = "shop/api"
CLIENTS: Mapping[str, Mapping[str, str]] = {
    "shop/web": {"app": "web", "tier": "front"},
    "shop/db": {"app": "db"},
    "ops/probe": {"app": "web"},
}
DROPPED = "dropped"
"""The connection does not begin."""


class Dice(random.Random):
    """Policies of the server: who may ask for what."""

    def policies(self) -> tuple[dict[str, Any], ...]:
        """One to four objects."""
        return tuple(self._policy(f"policy-{number}") for number in range(self.randint(1, 4)))

    def _policy(self, name: str) -> dict[str, Any]:
        wide = self.random() < 0.25
        metadata = {"name": name} | ({} if wide else {"namespace": "shop"})
        spec: dict[str, Any] = {"endpointSelector": {"matchLabels": {"app": "api"}}}
        spec["ingress"] = [self._rule() for _ in range(self.randint(1, 3))]
        if self.random() < 0.1:
            spec["ingressDeny"] = [{"fromEndpoints": [self._who()]}]
        kind = "CiliumClusterwideNetworkPolicy" if wide else "CiliumNetworkPolicy"
        return {"kind": kind, "metadata": metadata, "spec": spec}

    def _who(self) -> dict[str, Any]:
        return self.choice(
            (
                {},
                {"matchLabels": {"app": "web"}},
                {"matchLabels": {"tier": "front"}},
                {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "ops"}},
                {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
            )
        )

    def _rule(self) -> dict[str, Any]:
        rule: dict[str, Any] = {"fromEndpoints": [self._who()]} if self.random() < 0.8 else {}
        port: dict[str, Any] = {
            "ports": [{"port": str(self.choice((PORT, PORT, PORT, 81))), "protocol": "TCP"}]
        }
        if self.random() < 0.85:
            port["rules"] = {"http": [self._entry() for _ in range(self.randint(1, 3))]}
        return {**rule, "toPorts": [port]}

    def _entry(self) -> dict[str, str]:
        found = {
            field: self.choice(choices)
            for field, choices in (("method", METHODS), ("path", PATHS), ("host", HOSTS))
        }
        return {field: text for field, text in found.items() if text}


class Sent(NamedTuple):
    """One request."""

    client: str
    what: HttpRequest


class Half:
    """The server's policy in a world, and the listeners that carry it out."""

    def __init__(self, written: tuple[dict[str, Any], ...], first: int) -> None:
        namespaces = {name: {"kubernetes.io/metadata.name": name} for name in ("shop", "ops")}
        here = ("10.52.0.2", "fd00:10:52::2")
        pods = {SUBJECT: Pod("shop", {"app": "api"}, "default", {}, HERE, here)}
        for number, (name, labels) in enumerate(CLIENTS.items(), 3):
            own = (f"10.52.0.{number}", f"fd00:10:52::{number}")
            pods[name] = Pod(name.partition("/")[0], labels, "default", {}, HERE, own)
        self.world = World(namespaces, pods, dict(NODES), written)
        self.engine = Engine(self.world)
        policy = self.engine.policy(SUBJECT)
        made: Expansion = expand(policy, self.engine.sets)
        ports: dict[str, int] = {}
        for to in made.redirects.values():
            ports.setdefault(to.rules, first + len(ports))
        assert len(ports) <= ROOM
        self.listeners = {port: http(port, rules) for rules, port in ports.items()}
        entries = made.entries | {
            key: made.entries[key]._replace(proxy_port=ports[to.rules]) for key, to in made.redirects.items()
        }
        self.ports = {
            name: verdict(
                entries, self.engine.number(name), INGRESS, 6, PORT, enforced=policy.ingress.enforced
            )
            for name in CLIENTS
        }
        """By client: whether it may connect, and to which listener."""


class Told:
    """Records of the real proxy, as they come by the bus."""

    def __init__(self, url: str) -> None:
        self.records: list[L7Record] = []
        self._url = url
        self._stop, self._ready = asyncio.Event(), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hear()), daemon=True)

    async def _hear(self) -> None:
        self._loop = asyncio.get_running_loop()
        bus = await Bus.connect(self._url, name="test")

        def heard(message: Message) -> None:
            self.records += msgspec.msgpack.decode(message.data, type=L7Batch).records

        await bus.subscribe(told_subject(L7_RECORDS, "*"), heard)
        await bus.link.flush(5)
        self._ready.set()
        await self._stop.wait()
        await bus.drain()

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """While records are gathered."""
        self._thread.start()
        assert self._ready.wait(10)
        try:
            yield
        finally:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()


class Asking(NamedTuple):
    """One request, what came of it, and under which port of its own its client sent it."""

    client: str
    what: HttpRequest
    fate: str
    port: int


def fates(world: Proxied, half: Half, sent: Sequence[Sent]) -> list[Asking]:
    """What becomes of each request under the policies of *half*."""
    found = []
    for client in CLIENTS:
        whats = [one.what for one in sent if one.client == client]
        decided = half.ports[client]
        if not decided.proxy_port:
            fate = "200" if decided.allowed else DROPPED
            found += [Asking(client, what, fate, 0) for what in whats]
            continue
        with world.connect(decided.proxy_port) as one:
            port = one.getsockname()[1]
            for what in whats:
                reply = ask(one, request(what.path, what.method, host=what.host), what.method)
                found.append(Asking(client, what, str(reply.status), port))
    return found


def spot(half: Half, party: str) -> traffic.Spot:
    """*party* as flows tell of it."""
    pod, number = half.world.pods[party], half.engine.number(party)
    end = End(
        identity=number,
        labels=half.engine.identities.labels[number],
        namespace=pod.namespace,
        pod=party.partition("/")[2],
        node=HERE,
        endpoint=number & 255,
    )
    return traffic.Spot(pod.addresses[0], end)


def told(half: Half, asking: Asking, record: L7Record) -> Asked:
    """What is read out of the stored flow: the connection's ends are those of the world that is played."""
    found = traffic.Traffic(HERE)
    verdict = Verdict.DROPPED if record.verdict == "dropped" else Verdict.FORWARDED
    found.add(
        RowType.L7,
        spot(half, asking.client),
        spot(half, SUBJECT),
        l7=record,
        verdict=verdict,
        reply=Reply.NO,
        source_port=asking.port,
        destination_port=PORT,
        direction=PolicyDirection.INGRESS,
    )
    (about,) = asked_of(Seen(), [found.table()])
    return about


def predicted(replay: Replay, about: Asked) -> str:
    decision = replay.decide(about)
    return DROPPED if not decision.opens else "200" if decision.allowed else "403"


def test_prediction_is_what_happens(world: Proxied) -> None:
    dice = Dice(SEED)
    pairs = [
        (
            Half(dice.policies(), FIRST + 2 * ROOM * number),
            Half(dice.policies(), FIRST + ROOM * (2 * number + 1)),
        )
        for number in range(PAIRS)
    ]
    halves = [half for pair in pairs for half in pair]
    listeners = {port: one for half in halves for port, one in half.listeners.items()}
    assert world.nats is not None
    heard = Told(world.nats.url)
    with ExitStack() as stack:
        for port in listeners:
            stack.enter_context(Recorder(world.ns("s"), port))
        stack.enter_context(heard.hearing())
        world.publish(listeners)
        assert not world.serving.failed
        asked = [[Sent(c, some_request(dice)._replace(headers=())) for c in CLIENTS for _ in range(REQUESTS)]
                 for _ in pairs]  # fmt: skip
        before = [fates(world, one, sent) for (one, _), sent in zip(pairs, asked, strict=True)]
        after = [fates(world, two, sent) for (_, two), sent in zip(pairs, asked, strict=True)]
        ports = {one.port for found in before for one in found if one.port}
        expected = sum(one.port > 0 for found in before for one in found)

        def records() -> dict[int, list[L7Record]]:
            found: dict[int, list[L7Record]] = {port: [] for port in ports}
            for each in sorted(heard.records, key=lambda one: one.time):
                if each.type == "request" and (port := end_of(each.source)[1]) in found:
                    found[port].append(each)
            return found

        until(lambda: sum(map(len, records().values())) >= expected, world.explain)
        by_port = records()
    wrong, compared, changed, policies = [], 0, 0, 0
    for (one, two), sent, then, became in zip(pairs, asked, before, after, strict=True):
        seen = [(each, told(one, each, by_port[each.port].pop(0))) for each in then if each.port]
        replay = Replay(resources(two.world.manifests), {x for _, about in seen for x in about[:2]})
        policies += len(two.world.manifests)
        truth = {(each.client, each.what): each.fate for each in became}
        for each, about in seen:
            found, fate = predicted(replay, about), truth[each.client, each.what]
            compared += 1
            changed += fate != each.fate
            if found != fate:
                wrong.append((each, about, found, fate, two.world.manifests))
        assert len(sent) == len(became)
    assert not wrong, (len(wrong), wrong[0])
    assert policies >= 80
    assert compared >= 0.5 * PAIRS * REQUESTS * len(CLIENTS)
    assert changed >= 0.2 * compared
