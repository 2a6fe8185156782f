"""Certificates from files: TLS, mTLS, renewal, and what those get who have none or an old one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.hubble.client import Client
from tests.hubble.conftest import Beside, wait_for
from tests.hubble.traffic import flows

from cirri.hubble.facts import Place
from cirri.hubble.messages import OBSERVER
from cirri.hubble.node import server_name
from cirri.hubble.peer import PeerNode
from cirri.hubble.server import Observer
from cirri.hubble.serving import PortTaken, Serving
from cirri.hubble.tls import BadCertificate, TlsFiles, read, server_credentials, validity
from cirri.relay.pool import Pool
from cirri.testing.observed import Held

NAME = server_name("n1", "default")


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        (folder / "ca.cnf").write_text(
            "[ca]\ndefault_ca=own\n[own]\n"
            f"dir={folder}\ndatabase=$dir/index.txt\nserial=$dir/serial\nnew_certs_dir=$dir\n"
            "default_md=sha256\npolicy=any\nunique_subject=no\ncopy_extensions=copy\n[any]\ncommonName=supplied\n"
        )
        self._run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca "
                  "-keyout ca.key -out ca.crt")  # fmt: skip
        self.ca = folder / "ca.crt"

    def _run(self, words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name: str, *, begin_h: int = -1, end_h: int = 24, file: str = "") -> TlsFiles:
        """A certificate for *name*, with its key."""
        file = file or name
        now = datetime.now(UTC)
        first, last = ((now + timedelta(hours=hours)).strftime("%Y%m%d%H%M%SZ") for hours in (begin_h, end_h))
        self._run(f"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout {file}.key "
                  f"-addext subjectAltName=DNS:{name} -out {file}.csr")  # fmt: skip
        self._run(f"ca -batch -notext -config ca.cnf -cert ca.crt -keyfile ca.key -in {file}.csr "
                  f"-startdate {first} -enddate {last} -out {file}.new")  # fmt: skip
        (self.folder / f"{file}.new").rename(self.folder / f"{file}.crt")
        return TlsFiles(self.folder / f"{file}.crt", self.folder / f"{file}.key", self.ca)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: Any) -> Authority:
    """One for all."""
    return Authority(tmp_path_factory.mktemp("tls") / "own")


@pytest.fixture
def listen(beside: Beside) -> Iterator[Any]:
    """Starts observers with TLS; complaints are collected."""
    started: list[Serving] = []

    def start(files: TlsFiles) -> tuple[int, list[BadCertificate]]:
        said: list[BadCertificate] = []
        serving = Serving({OBSERVER: Observer(Held([flows()]), "n1", Place()).methods()}, said.append)
        port = beside.run(serving.listen("127.0.0.1:0", files))
        started.append(serving)
        return port, said

    yield start
    for serving in started:
        beside.run(serving.close())


def client(port: int, authority: Authority, own: TlsFiles | None = None, name: str = NAME) -> Client:
    key = own.key.read_bytes() if own and own.key else None
    certificate = own.certificate.read_bytes() if own and own.certificate else None
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), key, certificate)
    options = (("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1))
    return Client(f"127.0.0.1:{port}", credentials, options)


def status(one: Client) -> tuple[str, str]:
    """("OK", "") or the status and what it says."""
    try:
        one.call(OBSERVER, "ServerStatus", timeout=5)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    finally:
        one.close()
    return "OK", ""


def test_tls(authority: Authority, listen: Any, tmp_path: Path) -> None:
    port, _ = listen(authority.issue(NAME)._replace(ca=None))
    assert status(client(port, authority)) == ("OK", "")
    code, says = status(client(port, authority, name="other.default.hubble-grpc.cilium.io"))
    assert code == "UNAVAILABLE"
    assert "Hostname Verification Check failed" in says
    code, says = status(client(port, Authority(tmp_path / "strange")))
    assert code == "UNAVAILABLE"
    assert "CERTIFICATE_VERIFY_FAILED" in says
    assert status(Client(f"127.0.0.1:{port}"))[0] == "UNAVAILABLE"


def test_mutual_tls(authority: Authority, listen: Any, tmp_path: Path) -> None:
    port, _ = listen(authority.issue(NAME))
    own = authority.issue("relay")
    assert status(client(port, authority, own)) == ("OK", "")
    assert status(client(port, authority))[0] == "UNAVAILABLE"
    assert status(client(port, authority, Authority(tmp_path / "strange").issue("relay")))[0] == "UNAVAILABLE"
    old = authority.issue("old", begin_h=-48, end_h=-24)
    assert status(client(port, authority, old))[0] == "UNAVAILABLE"


def test_a_certificate_that_expired_is_not_served(authority: Authority, listen: Any) -> None:
    old = authority.issue(NAME, begin_h=-48, end_h=-24, file="expired")
    says = r"certificate .*/expired.crt expired at 20..-..-..T..:..:..\+00:00\. Renew"
    with pytest.raises(BadCertificate, match=says):
        listen(old)


def test_a_renewed_certificate_is_served_and_a_bad_one_is_not(authority: Authority, listen: Any) -> None:
    files = authority.issue(NAME, file="renewed")._replace(ca=None)
    port, said = listen(files)
    assert files.certificate is not None
    first = _shown(port)
    authority.issue(NAME, file="renewed")
    assert status(client(port, authority)) == ("OK", "")
    second = _shown(port)
    assert second != first
    files.certificate.write_text("nonsense")
    assert status(client(port, authority)) == ("OK", "")
    assert _shown(port) == second
    wait_for(lambda: said)
    assert [str(error.path) for error in said] == [str(files.certificate)]
    assert "is no certificate in PEM" in str(said[0])


def _shown(port: int) -> str:
    """The certificate that a client sees."""
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", "h2", "-showcerts"]
    shown = subprocess.run(words, input=b"", capture_output=True, check=False, timeout=10).stdout
    text = shown.decode(errors="replace")
    return text[text.index("-----BEGIN") : text.index("-----END")]


def test_files_that_are_no_certificates(authority: Authority, tmp_path: Path) -> None:
    good = authority.issue("good")
    for files, says in [
        (good._replace(certificate=tmp_path / "none"), "cannot be read: No such file or directory"),
        (good._replace(key=None), "has no key file beside it"),
        (good._replace(certificate=good.key), "is no certificate in PEM"),
        (authority.issue("soon", begin_h=1), "is not valid before"),
    ]:
        with pytest.raises(BadCertificate, match=says):
            server_credentials(files, lambda error: None)
    assert read(good, time.time()).certificate


def test_validity_is_read_from_the_certificate(authority: Authority) -> None:
    files = authority.issue("dates", begin_h=-2, end_h=3)
    assert files.certificate is not None
    first, last = validity(files.certificate.read_bytes())
    assert last - first == 5 * 3600


def test_a_relay_says_whose_certificate_is_of_no_use(
    authority: Authority, listen: Any, beside: Beside
) -> None:
    own = authority.issue("relay2")
    old = authority.issue("relay3", begin_h=-48, end_h=-24)
    port, _ = listen(authority.issue(NAME))
    pool = beside.do(Pool)
    peers = {"n1": PeerNode(f"127.0.0.1:{port}", NAME)}
    beside.run(pool.want(peers, own))
    there, away = beside.run(pool.sorted())
    assert ([node.name for node in there], away) == (["n1"], [])
    beside.run(pool.want(peers, old))
    assert "relay3.crt expired at" in pool.fault
    there, away = beside.run(pool.sorted())
    assert (there, [node.why for node in away]) == ([], [pool.fault])
    beside.run(pool.want({"n2": peers["n1"]._replace(server_name="n2.x")}, own))
    _, (stranger,) = beside.run(pool.sorted())
    wait_for(lambda: "Hostname Verification Check failed" in stranger.why)
    beside.run(pool.close())


def test_a_port_is_listened_on_once(authority: Authority, listen: Any, beside: Beside) -> None:
    port, _ = listen(authority.issue(NAME))
    serving = Serving({}, lambda error: None)
    with pytest.raises(PortTaken, match=f"cannot listen on 127.0.0.1:{port}"):
        beside.run(serving.listen(f"127.0.0.1:{port}"))
