"""TLS through a real Envoy: names let pass undecrypted, ends that are the proxy's own, changing Secrets."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from cirri.kv import Bus
from cirri.model import RESOURCES, L7Batch, L7Record, Resource
from cirri.testing.proxied import Proxied, http, until
from cirri.testing.recorder import Recorder, ask, request
from cirri.testing.wait import eventually

NAMES, EVERY, NONE, ENDED, PLAIN, NAMED = 8443, 8444, 8445, 8446, 8447, 8448
SECRET = {"namespace": "d", "name": "shop"}


def rules(*allows: dict[str, Any]) -> str:
    return json.dumps({"any": False, "allows": [{"cookie": 7, **allow} for allow in allows]})


ENDING = {"terminating": {"secret": SECRET}, "originating": {"secret": {"namespace": "d", "name": "up"}}}
LISTENERS = {
    NAMES: http(10200, rules({"serverNames": ["*.example.com", "shop.org"]}), "egress", "tls"),
    EVERY: http(10201, '{"any": true, "allows": []}', "egress", "tls"),
    NONE: http(10202, '{"requests": []}', "egress", "tls"),
    ENDED: http(10203, rules({**ENDING, "requests": [{"path": "/ok"}]}), "egress"),
    PLAIN: http(10204, rules({"terminating": {"secret": SECRET}, "requests": [{"path": "/ok"}]}), "egress"),
    NAMED: http(10205, rules({**ENDING, "serverNames": ["shop.org"], "requests": [{"path": "/ok"}]},
                             {**ENDING, "serverNames": ["*.shop.org"], "requests": [{"path": "/deep"}]}),
                "egress"),
}  # fmt: skip


class Certificates(NamedTuple):
    folder: Path

    def context(self, name: str) -> ssl.SSLContext:
        """A server that is *name*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    def client(self) -> ssl.SSLContext:
        """A client that trusts the authority."""
        return ssl.create_default_context(cafile=str(self.folder / "ca.crt"))

    def secret(self, name: str, files: dict[str, str]) -> Resource:
        data = {
            key: base64.b64encode((self.folder / file).read_bytes()).decode() for key, file in files.items()
        }
        return Resource(kind="Secret", namespace="d", name=name, manifest={"data": data})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, the server's certificate and the proxy's; all for the same names."""
    folder = tmp_path_factory.mktemp("certificates")
    script = """
    new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
              -keyout $1.key -out $1.crt "${@:2}" 2>&1; }
    new ca
    for name in server proxy; do
      new $name -CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE \
        -addext subjectAltName=DNS:shop.org,DNS:*.shop.org,DNS:*.example.com
    done
    """
    subprocess.run(["bash", "-ec", script], cwd=folder, check=True, capture_output=True)
    return Certificates(folder)


async def store(world: Proxied, *secrets: Resource) -> None:
    """The bucket holds these, and no others."""
    assert world.nats is not None
    bus = await Bus.connect(world.nats.url, name="kubernetes")
    publisher = bus.publisher(RESOURCES)
    await publisher.start()
    await publisher.replace(secrets)
    await publisher.settled()
    await bus.drain()


SHOP = {"tls.crt": "proxy.crt", "tls.key": "proxy.key"}


@pytest.fixture(scope="module")
def served(world: Proxied, certificates: Certificates) -> Iterator[dict[int, Recorder]]:
    both = certificates.secret("shop", SHOP), certificates.secret("up", {"ca.crt": "ca.crt"})
    asyncio.run(store(world, *both))
    world.publish(LISTENERS)
    until(lambda: set(world.serving.ports) == {one.port for one in LISTENERS.values()}, world.explain)
    contexts = {port: None if port == PLAIN else certificates.context("server") for port in LISTENERS}
    servers = {port: Recorder(world.ns("s"), port, context) for port, context in contexts.items()}
    yield servers
    for one in servers.values():
        one.close()


def through(
    world: Proxied, port: int, name: str, context: ssl.SSLContext, target: str = "/ok"
) -> tuple[str, int]:
    """Whose certificate a client sees that asks for *name*, and its status; ("", 0): it is closed."""
    plain = world.connect(port)
    try:
        with context.wrap_socket(plain, server_hostname=name) as client:
            subject: Any = (client.getpeercert() or {})["subject"]
            return subject[0][0][1], ask(client, request(target, host=name)).status
    except (ssl.SSLError, ConnectionError):
        return "", 0
    finally:
        plain.close()


class Case(NamedTuple):
    id: str
    port: int
    name: str
    expected: tuple[str, int]
    target: str = "/ok"


CASES = [
    Case("a listed name", NAMES, "shop.org", ("server", 200)),
    Case("one label", NAMES, "a.example.com", ("server", 200)),
    Case("upper case", NAMES, "A.Example.Com", ("server", 200)),
    Case("two labels", NAMES, "a.b.example.com", ("", 0)),
    Case("none", NAMES, "example.com", ("", 0)),
    Case("another", NAMES, "evil.org", ("", 0)),
    Case("everything", EVERY, "shop.org", ("server", 200)),
    Case("nothing", NONE, "shop.org", ("", 0)),
    Case("decrypted both ways", ENDED, "shop.org", ("proxy", 200)),
    Case("decrypted, refused", ENDED, "shop.org", ("proxy", 403), "/no"),
    Case("decrypted, on in plain", PLAIN, "shop.org", ("proxy", 200)),
    Case("name and path", NAMED, "shop.org", ("proxy", 200)),
    Case("another name's path", NAMED, "shop.org", ("proxy", 403), "/deep"),
    Case("name and path of the other", NAMED, "a.shop.org", ("proxy", 200), "/deep"),
    Case("a name that no rule has", NAMED, "a.example.com", ("proxy", 403)),
]


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_tls(world: Proxied, served: dict[int, Recorder], certificates: Certificates, case: Case) -> None:
    before = served[case.port].connections
    assert through(world, case.port, case.name, certificates.client(), case.target) == case.expected
    if case.expected[1] != 200:
        assert served[case.port].connections == before, "the server heard of it"


def test_the_server_is_asked_for_the_name(
    world: Proxied, served: dict[int, Recorder], certificates: Certificates
) -> None:
    through(world, NAMED, "a.shop.org", certificates.client(), "/deep")
    assert served[NAMED].names[-1] == "a.shop.org"


@pytest.mark.parametrize("port", [NAMES, NONE, NAMED])
def test_what_is_no_tls_is_refused(world: Proxied, served: dict[int, Recorder], port: int) -> None:
    before = served[port].connections
    with world.connect(port) as client:
        client.sendall(request("/ok", host="shop.org"))
        with suppress(ConnectionResetError):
            assert client.recv(12) in (b"", b"HTTP/1.1 403")
    assert served[port].connections == before


def test_a_server_with_a_wrong_certificate_is_not_trusted(
    world: Proxied, served: dict[int, Recorder], certificates: Certificates
) -> None:
    def ended() -> tuple[str, int]:
        served[ENDED].hang_up()  # a connection that was trusted stays so
        return through(world, ENDED, "shop.org", certificates.client())

    both = certificates.secret("shop", SHOP), certificates.secret("up", {"ca.crt": "ca.crt"})
    asyncio.run(store(world, both[0], certificates.secret("up", {"ca.crt": "proxy.crt"})))
    until(lambda: ended() == ("proxy", 503), world.explain)
    # What is no certificate at all is not trusted either, and what was trusted before is not kept.
    asyncio.run(store(world, both[0], certificates.secret("up", {"ca.crt": "ca.key"})))
    until(lambda: ended() == ("", 0), world.explain)
    asyncio.run(store(world, *both))
    until(lambda: ended() == ("proxy", 200), world.explain)


def test_secrets_come_and_go(world: Proxied, served: dict[int, Recorder], certificates: Certificates) -> None:
    both = certificates.secret("shop", SHOP), certificates.secret("up", {"ca.crt": "ca.crt"})
    client = certificates.client()
    # Without its Secret a rule lets nothing pass, not even in plain.
    asyncio.run(store(world, both[1]))
    until(lambda: through(world, ENDED, "shop.org", client) == ("", 0), world.explain)
    with world.connect(ENDED) as plain:
        assert ask(plain, request("/ok", host="shop.org")).status == 403
    # A new certificate is shown to the next client.
    server = {"tls.crt": "server.crt", "tls.key": "server.key"}
    asyncio.run(store(world, certificates.secret("shop", server), both[1]))
    until(lambda: through(world, ENDED, "shop.org", client) == ("server", 200), world.explain)
    asyncio.run(store(world, *both))
    until(lambda: through(world, ENDED, "shop.org", client) == ("proxy", 200), world.explain)
    # A service that starts again without the bus has them all the same.
    kept = world.run_dir / "l7proxy.secrets"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert world.nats is not None
    world.nats.kill()
    world.end("l7proxy", signal.SIGKILL)
    world.start("l7proxy")
    changed = {**LISTENERS, PLAIN: http(10204, rules({"requests": [{"path": "/new"}]}), "egress")}
    world.publish(changed)
    until(lambda: through(world, ENDED, "shop.org", client) == ("proxy", 200), world.explain)
    world.nats.start()


def test_a_header_is_compared_with_a_secret(world: Proxied, served: dict[int, Recorder]) -> None:
    wanted = {"name": "X-Token", "secret": {"namespace": "d", "name": "token"}}
    listener = http(10206, rules({"requests": [{"headerMatches": [wanted]}]}))
    world.publish({**LISTENERS, PLAIN: listener})

    def status(*headers: tuple[str, str]) -> int:
        with world.connect(PLAIN) as client:
            return ask(client, request("/", headers=headers)).status

    assert status(("X-Token", "s3cret")) == status() == 403
    token = Resource(kind="Secret", namespace="d", name="token", manifest={"stringData": {"any": "s3cret"}})
    asyncio.run(store(world, token))
    until(lambda: status(("X-Token", "s3cret")) == 200, world.explain)
    assert status(("X-Token", "other")) == 403
    world.publish(LISTENERS)


def test_records(world: Proxied, served: dict[int, Recorder], certificates: Certificates) -> None:
    heard: list[L7Record] = []

    async def hear(message: Any) -> None:
        heard.extend(msgspec.msgpack.decode(message.data, type=L7Batch).records)

    def act() -> None:
        for name in ("rec.example.com", "rec.evil.org"):
            through(world, NAMES, name, certificates.client())

    async def main() -> None:
        assert world.nats is not None
        bus = await Bus.connect(world.nats.url, name="test")
        await bus.subscribe("cirri.l7.n1", hear)
        await asyncio.to_thread(act)

        await eventually(lambda: sum("rec." in one.tls.server_name for one in heard if one.tls) == 3)
        await bus.drain()

    asyncio.run(main())
    told = [
        (r.type, r.verdict, r.rule, r.tls.server_name) for r in heard if r.tls and "rec." in r.tls.server_name
    ]
    assert sorted(told) == [
        ("request", "dropped", 0, "rec.evil.org"),
        ("request", "forwarded", 7, "rec.example.com"),
        ("response", "forwarded", 7, "rec.example.com"),
    ]
