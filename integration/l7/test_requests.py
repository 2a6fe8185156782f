"""Requests through a real Envoy: what the rules allow arrives as it was sent, everything else is refused."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import msgspec
import pytest

from cirri.kv import Bus
from cirri.l7proxy.sampling import RECORDS_PER_S
from cirri.model import HttpFacts, L7Batch, L7Record
from cirri.model.request import L7Listeners, L7Rules
from cirri.testing.proxied import CLIENT, SERVER, Proxied, http, until
from cirri.testing.recorder import Recorder, answer, ask, request
from cirri.testing.wait import eventually

PORT, ANY, NOTHING, SECOND = 8000, 8001, 8002, 8003
FLOOD = 4000
"""Requests at once: more than are told of."""


def rules(*entries: dict[str, Any], **more: Any) -> str:
    return json.dumps({"any": False, "allows": [{"cookie": 7, "log": "shop", "requests": entries, **more}]})


MANY = rules(
    {"method": "GET", "path": "/public(/.*)?"},
    {"method": "POST", "path": "/v1/request-landing"},
    {"path": "/host", "host": "a\\.example(:[0-9]+)?"},
    {"path": "/tenant", "headers": ["X-Tenant: acme", "X-Trace"]},
    {"path": "/log", "headerMatches": [{"name": "X-A", "value": "1", "mismatch": "LOG"}]},
    {"path": "/add", "headerMatches": [{"name": "X-A", "value": "100%", "mismatch": "ADD"}]},
    {"path": "/delete", "headerMatches": [{"name": "X-A", "value": "1", "mismatch": "DELETE"}]},
    {"path": "/replace", "headerMatches": [{"name": "X-A", "value": "1", "mismatch": "REPLACE"}]},
    {"path": "/none", "headerMatches": [{"name": "X-A", "value": "1"}]},
    {"path": "/grpc.*|/shop.Cart/Add"},
    {"path": "/ws"},
    {"path": "/big"},
)
LISTENERS = {
    PORT: http(10100, MANY),
    ANY: http(10101, '{"any": true, "allows": []}'),
    NOTHING: http(10102, '{"any": false, "allows": []}'),
    SECOND: http(10103, rules({"path": "/first"})),
}


@pytest.fixture(scope="module")
def served(world: Proxied) -> Iterator[dict[int, Recorder]]:
    world.publish(LISTENERS)
    assert not world.serving.failed
    servers = {port: Recorder(world.ns("s"), port) for port in LISTENERS}
    yield servers
    for one in servers.values():
        one.close()


class Case(NamedTuple):
    id: str
    target: str
    status: int
    method: str = "GET"
    host: str = "api"
    headers: tuple[tuple[str, str], ...] = ()
    arrives: tuple[str, ...] | None = None
    """Values of X-A that the server sees."""
    port: int = PORT


CASES = [
    Case("listed", "/public", 200),
    Case("listed, longer", "/public/1?x=1", 200),
    Case("the query counts", "/public?x=1", 403),
    Case("another method", "/public", 403, "PUT"),
    Case("a method of one's own", "/public", 403, "PURGE"),
    Case("methods are case-sensitive", "/public", 400, "get"),
    Case("POST", "/v1/request-landing", 200, "POST"),
    Case("PUT", "/v1/exhaust-port", 403, "PUT"),
    Case("not listed", "/", 403),
    Case("host", "/host", 200, host="a.example"),
    Case("host with port", "/host", 200, host="a.example:80"),
    Case("a dot is a dot", "/host", 403, host="aXexample"),
    Case("headers", "/tenant", 200, headers=(("X-Tenant", "acme"), ("x-trace", ""))),
    Case("header is absent", "/tenant", 403, headers=(("X-Tenant", "acme"),)),
    Case("header has another value", "/tenant", 403, headers=(("X-Tenant", "b"), ("X-Trace", "1"))),
    Case("a list is no value", "/tenant", 403,
         headers=(("X-Tenant", "acme"), ("X-Tenant", "b"), ("X-Trace", "1"))),
    Case("log, matches", "/log", 200, headers=(("X-A", "1"),), arrives=("1",)),
    Case("log", "/log", 200, headers=(("X-A", "2"),), arrives=("2",)),
    Case("add", "/add", 200, headers=(("X-A", "2"),), arrives=("2", "100%")),
    Case("add to none", "/add", 200, arrives=("100%",)),
    Case("add, matches", "/add", 200, headers=(("X-A", "100%"),), arrives=("100%",)),
    Case("delete", "/delete", 200, headers=(("X-A", "2"),), arrives=()),
    Case("delete, matches", "/delete", 200, headers=(("X-A", "1"),), arrives=("1",)),
    Case("replace", "/replace", 200, headers=(("X-A", "2"), ("X-A", "3")), arrives=("1",)),
    Case("no action", "/none", 403, headers=(("X-A", "2"),)),
    Case("no action, matches", "/none", 200, headers=(("X-A", "1"),)),
    Case("any", "/anything?at=all", 200, "PURGE", port=ANY),
    Case("nothing", "/public", 403, port=NOTHING),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_request(world: Proxied, served: dict[int, Recorder], case: Case) -> None:
    server = served[case.port]
    before = len(server.seen)
    with world.connect(case.port) as client:
        sent = request(case.target, case.method, host=case.host, headers=case.headers)
        reply = ask(client, sent, case.method)
        assert reply.status == case.status, reply
        if case.status != 200:
            assert len(server.seen) == before
        if case.status == 400:
            return  # to Envoy it is no HTTP
        if case.status == 403:
            assert reply.body == b"Access denied"
            # The connection is kept.
            assert ask(client, sent, case.method).status == 403
            return
    (seen,) = server.seen[before:]
    assert (seen.method, seen.target, seen.header("host")) == (case.method, case.target, [case.host])
    assert reply.headers["server"] == "recorder"
    if case.arrives is not None:
        assert tuple(seen.header("x-a")) == case.arrives


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_both_ends_keep_their_addresses(world: Proxied, served: dict[int, Recorder], ipv6: bool) -> None:
    with world.connect(PORT, ipv6=ipv6) as client:
        assert client.getpeername()[0] == SERVER[ipv6]
        reply = ask(client, request("/public"))
    assert json.loads(reply.body)["peer"] == CLIENT[ipv6]


def test_bytes_that_are_no_request_do_not_arrive(world: Proxied, served: dict[int, Recorder]) -> None:
    before = served[ANY].connections
    with world.connect(ANY) as client:
        client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        assert answer(client).status == 400
        assert client.recv(1) == b""
    assert served[ANY].connections == before


def test_a_large_body_is_streamed(world: Proxied, served: dict[int, Recorder]) -> None:
    size = 32 << 20
    with world.connect(PORT, timeout_s=20) as client:
        client.sendall(request("/big", "POST", headers=(("Content-Length", str(size)),)))
        sender = threading.Thread(target=client.sendall, args=(bytes(size),))
        sender.start()
        assert json.loads(answer(client, "POST").body)["bytes"] == size
        sender.join()


def test_websocket(world: Proxied, served: dict[int, Recorder]) -> None:
    upgrade = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
               ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))  # fmt: skip
    with world.connect(PORT) as client:
        client.sendall(request("/ws", headers=upgrade))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        # A change of rules that no longer lists it leaves what was let pass alone.
        world.publish({**LISTENERS, PORT: http(10100, rules({"path": "/public"}))})
        until(lambda: status(world, "/big") == 403, world.explain)
        for number in range(3):
            client.sendall(b"frame %d" % number)
            assert client.recv(100) == b"frame %d" % number
        world.publish(LISTENERS)
    until(lambda: status(world, "/big") == 200, world.explain)
    with world.connect(PORT) as client:
        assert ask(client, request("/elsewhere", headers=upgrade)).status == 403


def status(world: Proxied, target: str, port: int = PORT) -> int:
    with world.connect(port) as client:
        return ask(client, request(target)).status


def passes(world: Proxied, target: str) -> bool:
    return status(world, target, SECOND) == 200


def test_new_rules_hold_for_the_next_request_of_a_living_connection(
    world: Proxied, served: dict[int, Recorder]
) -> None:
    with world.connect(SECOND) as client:
        for path in ("/first", "/second", "/first"):
            world.publish({**LISTENERS, SECOND: http(10103, rules({"path": path}))})
            until(partial(passes, world, path), world.explain)
            other = "/second" if path == "/first" else "/first"
            assert ask(client, request(path)).status == 200
            assert ask(client, request(other)).status == 403


@pytest.mark.parametrize(
    "broken", ["", "{", '{"allows": 1}', '{"allow": []}', '{"allows": [{"requests": [{"paht": "/"}]}]}']
)
def test_rules_that_cannot_be_read_let_nothing_pass(
    world: Proxied, served: dict[int, Recorder], broken: str
) -> None:
    with world.connect(SECOND) as client:
        assert ask(client, request("/first")).status == 200
        world.publish({**LISTENERS, SECOND: http(10103, broken)})
        until(lambda: status(world, "/first", SECOND) == 403, world.explain)
        assert ask(client, request("/first")).status == 403
    world.publish(LISTENERS)
    until(lambda: status(world, "/first", SECOND) == 200, world.explain)


CURL = """
for path in /public /private; do
  curl -sS -o /dev/null -w '%{http_version} %{http_code}\\n' --http2-prior-knowledge \\
    http://10.77.2.2:PORT$path || exit 1
done
"""


def test_http2(world: Proxied, grpc_server: None) -> None:
    text = CURL.replace("PORT", str(GRPC))
    argv = ["ip", "netns", "exec", world.ns("c"), "sh", "-c", text]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert found.split("\n")[:2] == ["2 503", "2 403"]  # the server resets what is no gRPC


GRPC = 8010
GRPC_SERVER = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
def add(request, context):
    return request[::-1]
def many(requests, context):
    for one in requests:
        yield one[::-1]
server = grpc.server(ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Cart", {
    "Add": grpc.unary_unary_rpc_method_handler(add), "Many": grpc.stream_stream_rpc_method_handler(many),
    "Drop": grpc.unary_unary_rpc_method_handler(add)}),))
server.add_insecure_port("0.0.0.0:%s" % sys.argv[1])
server.start()
print("ready", flush=True)
server.wait_for_termination()
"""
GRPC_CLIENT = """
import sys
import grpc
with grpc.insecure_channel("10.77.2.2:%s" % sys.argv[1]) as channel:
    print(channel.unary_unary("/shop.Cart/Add")(b"abc", timeout=10))
    print(list(channel.stream_stream("/shop.Cart/Many")(iter([b"ab", b"cd"]), timeout=10)))
    try:
        channel.unary_unary("/shop.Cart/Drop")(b"abc", timeout=10)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


@pytest.fixture(scope="module")
def grpc_server(world: Proxied) -> Iterator[None]:
    import sys

    allowed = rules({"method": "POST", "path": "/shop.Cart/(Add|Many)"}, {"path": "/public"})
    world.publish({**LISTENERS, GRPC: http(10110, allowed)})
    argv = ["ip", "netns", "exec", world.ns("s"), sys.executable, "-c", GRPC_SERVER, str(GRPC)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.terminate()
    world.publish(LISTENERS)


def test_grpc(world: Proxied, grpc_server: None) -> None:
    import sys

    argv = ["ip", "netns", "exec", world.ns("c"), sys.executable, "-c", GRPC_CLIENT, str(GRPC)]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout.splitlines() == ["b'cba'", "[b'ba', b'dc']", "PERMISSION_DENIED Access denied"], found


def test_records(world: Proxied, served: dict[int, Recorder]) -> None:
    heard: list[L7Record] = []

    async def hear(message: Any) -> None:
        heard.extend(msgspec.msgpack.decode(message.data, type=L7Batch).records)

    def act() -> None:
        with world.connect(PORT) as client:
            ask(client, request("/public/records?a=b", host="shop"))
            ask(client, request("/records", "PURGE"))
            ask(client, request("/log", headers=(("X-A", "9"),)))

    async def main() -> None:
        assert world.nats is not None
        bus = await Bus.connect(world.nats.url, name="test")
        await bus.subscribe("cirri.l7.n1", hear)
        await asyncio.to_thread(act)
        await eventually(lambda: sum("/log" in (r.http or HttpFacts()).url for r in heard) == 2)
        await bus.drain()

    asyncio.run(main())
    mine = [r for r in heard if r.http and r.http.url.rpartition("//")[2] in
            ("shop/public/records?a=b", "api/records", "api/log")]  # fmt: skip
    told = [(r.type, r.verdict, r.rule, r.log, r.message, r.http.method, r.http.code) for r in mine if r.http]
    assert told == [
        ("request", "forwarded", 7, "shop", "", "GET", 0),
        ("response", "forwarded", 7, "shop", "", "GET", 200),
        ("request", "dropped", 0, "", "", "PURGE", 0),
        ("response", "dropped", 0, "", "", "PURGE", 403),
        ("request", "forwarded", 7, "shop", "LOG X-A", "GET", 0),
        ("response", "forwarded", 7, "shop", "LOG X-A", "GET", 200),
    ]
    asked, answered = mine[:2]
    assert (asked.node, asked.endpoint, asked.direction, asked.destination_identity) == (
        "n1",
        7,
        "ingress",
        300,
    )
    assert asked.destination == f"{SERVER[0]}:{PORT}"
    assert asked.source.startswith(f"{CLIENT[0]}:")
    assert asked.latency_ns == 0 < answered.latency_ns < 10**10
    assert answered.time == asked.time + answered.latency_ns


def test_every_request_is_told_of_or_counted(world: Proxied, served: dict[int, Recorder]) -> None:
    heard: list[L7Batch] = []

    async def hear(message: Any) -> None:
        heard.append(msgspec.msgpack.decode(message.data, type=L7Batch))

    def accounted() -> int:
        mine = [
            r for b in heard for r in b.records if r.http and r.http.url[10:].startswith(("/flood", "/last"))
        ]
        return len(mine) + heard[-1].lost - heard[0].lost

    def flood() -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(world.connect(PORT)) for _ in range(100)]
            for _ in range(FLOOD // len(clients)):
                for client in clients:
                    client.sendall(request("/flood"))
                for client in clients:
                    said = b""
                    while not said.endswith(b"Access denied"):
                        said += client.recv(4096)

    async def one_more(client: socket.socket, number: int) -> None:
        ask(client, request(f"/last/{number}"))
        await eventually(
            lambda: any(r.http and r.http.url.endswith(f"/last/{number}") for b in heard for r in b.records)
        )

    async def main() -> None:
        assert world.nats is not None
        bus = await Bus.connect(world.nats.url, name="test")
        await bus.subscribe("cirri.l7.n1", hear)
        with world.connect(PORT) as client:
            await one_more(client, 0)
            began = time.monotonic()
            await asyncio.to_thread(flood)
            told_at_most = RECORDS_PER_S * (1 + time.monotonic() - began)
            for number in range(1, 100):
                await one_more(client, number)
                if accounted() == 2 * (FLOOD + 1 + number):
                    break
        await bus.drain()
        # On a machine that cannot send faster than is told, nothing has to be lost.
        assert heard[-1].lost > heard[0].lost or told_at_most >= FLOOD
        assert accounted() == 2 * (FLOOD + 1 + number)

    asyncio.run(main())


def test_what_people_are_told(world: Proxied, served: dict[int, Recorder]) -> None:
    async def main() -> tuple[L7Listeners, L7Rules]:
        assert world.nats is not None
        bus = await Bus.connect(world.nats.url, name="cli")
        replies = [await bus.request(f"cirri.l7proxy.n1.{what}") for what in ("listeners", "rules")]
        await bus.drain()
        return msgspec.msgpack.decode(replies[0], type=L7Listeners), msgspec.msgpack.decode(
            replies[1], type=L7Rules
        )

    listeners, said = asyncio.run(main())
    assert listeners.envoys == 1
    states = {one.port: one.state for one in listeners.listeners}
    assert {one.port: "serving" for one in LISTENERS.values()}.items() <= states.items()
    assert {"path": "/ws"} in [rule.request for rule in said.rules if rule.port == 10100]
