"""One bus of several servers, and certificates that nobody but the cluster knows."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cirri.kv import Bus, BusUnavailable
from cirri.testing.natsserver import NatsServer, free_port, plain_config


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Folder with ca.crt, and server.crt and server.key for 127.0.0.1."""
    new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    made = (
        f"{new} -x509 -keyout ca.key -out ca.crt -subj /CN=bus",
        f"{new} -keyout server.key -out server.csr -subj /CN=nats",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -extfile names",
    )
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for words in made:
        subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def secret(keys: Path) -> Iterator[NatsServer]:
    def config(server: NatsServer) -> str:
        return (
            plain_config(server)
            + f'tls {{ cert_file: "{keys}/server.crt", key_file: "{keys}/server.key" }}\n'
        )

    with NatsServer(config) as server:
        yield server


def test_the_first_server_that_answers_is_taken(nats: NatsServer) -> None:
    async def main() -> None:
        bus = await Bus.connect(f"nats://127.0.0.1:{free_port()},{nats.url}", name="test", timeout_s=20)
        await bus.drain()

    asyncio.run(main())


def test_the_servers_certificate_must_be_signed_by_the_given_authority(
    secret: NatsServer, keys: Path
) -> None:
    url = secret.url.replace("nats://", "tls://")

    async def main() -> None:
        bus = await Bus.connect(url, name="test", ca=keys / "ca.crt", timeout_s=20)
        await bus.drain()
        with pytest.raises(BusUnavailable, match="certificate verify failed"):
            await Bus.connect(url, name="test", timeout_s=1)

    asyncio.run(main())
