"""``cirri observe`` over TLS: whom it trusts, whom it shows a certificate, what it says when that fails."""

import subprocess
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from click.testing import CliRunner

from cirri.cli.root import cli
from cirri.hubble.messages import GetNodesResponse

NAME = "*.hubble-relay.cilium.io"


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def issue(folder: Path, name: str, *options: str, by: str = "ca") -> None:
    """*name*.crt and *name*.key, signed by *by*."""
    subject = ("-subj", f"/CN={name}", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    own = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt", "-days", "2")
    signed = () if by == name else ("-CA", folder / f"{by}.crt", "-CAkey", folder / f"{by}.key")
    openssl("req", "-x509", *subject, *own, *signed, *options)


class Secured(NamedTuple):
    folder: Path
    open: str
    """Address of a server that knows its clients by nothing."""
    mutual: str
    """Of one that wants a certificate."""

    def run(self, address: str, *options: str) -> tuple[int, str]:
        words = [option.replace("@", f"{self.folder}/") for option in options]
        result = CliRunner().invoke(cli, ["list", "nodes", "--server", address, "--timeout", "3s", *words])
        return result.exit_code, result.output


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    issue(folder, "ca", by="ca")
    issue(folder, "other", by="other")
    issue(folder, "server", "-addext", f"subjectAltName=DNS:{NAME}")
    issue(folder, "client")
    (folder / "none.crt").write_text("no PEM")
    pair = ((folder / "server.key").read_bytes(), (folder / "server.crt").read_bytes())
    handler = grpc.unary_unary_rpc_method_handler(
        lambda *_: GetNodesResponse(), response_serializer=lambda message: message.SerializeToString()
    )
    servers, ports = [], []
    for mutual in (False, True):
        server = grpc.server(futures.ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("observer.Observer", {"GetNodes": handler}),)
        )
        authority = (folder / "ca.crt").read_bytes() if mutual else None
        credentials = grpc.ssl_server_credentials([pair], authority, mutual)
        ports.append(server.add_secure_port("127.0.0.1:0", credentials))
        server.start()
        servers.append(server)
    yield Secured(folder, *(f"tls://127.0.0.1:{port}" for port in ports))
    for server in servers:
        server.stop(None).wait()


OURS = ("--tls-server-name", "node1.hubble-relay.cilium.io", "--tls-ca-cert-files", "@ca.crt")
MINE = ("--tls-client-cert-file", "@client.crt", "--tls-client-key-file", "@client.key")
WORKS = [
    ("open", OURS),
    ("open", ("--tls-allow-insecure",)),
    ("mutual", (*OURS, *MINE)),
    ("mutual", ("--tls-allow-insecure", *MINE)),
    ("open", ("--tls-ca-cert-files", "@other.crt", *OURS)),
]
OTHER = ("--tls-server-name", "a.hubble-relay.cilium.io", "--tls-ca-cert-files", "@other.crt")
FAILS = [
    ("open", (), "signed by nobody who is trusted"),
    ("open", OTHER, "--tls-ca-cert-files names an authority"),
    ("open", ("--tls-server-name", "evil.example", "--tls-ca-cert-files", "@ca.crt"), "for another name"),
    ("mutual", OURS, "--tls-client-cert-file"),
    ("open", ("--tls-ca-cert-files", "@none.crt"), "is no PEM file"),
    ("open", ("--tls-ca-cert-files", "@gone.crt"), "No such file"),
]


@pytest.mark.parametrize(("server", "options"), WORKS, ids=" ".join)
def test_trusted(secured: Secured, server: str, options: tuple[str, ...]) -> None:
    code, output = secured.run(getattr(secured, server), *options)
    assert (code, output.split()[:1]) == (0, ["NAME"]), output


@pytest.mark.parametrize(("server", "options", "says"), FAILS)
def test_not_trusted(secured: Secured, server: str, options: tuple[str, ...], says: str) -> None:
    code, output = secured.run(getattr(secured, server), *options)
    assert code == 1
    assert says in output


def test_plain_text_is_no_tls(secured: Secured) -> None:
    code, output = secured.run(secured.open.removeprefix("tls://"))
    assert code == 1
    assert "no answer from" in output
