"""The way to a server of the observer API: where it is, how it is spoken to, what its errors mean."""

from __future__ import annotations

import os
import queue
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cirri.cli.context import Context, NoContext, NoNode, Target
from cirri.errors import CirriError

if TYPE_CHECKING:
    import grpc

LOCAL = "localhost:4245"
"""Where a relay listens if nothing says otherwise."""
TLS_PREFIX = "tls://"
RELAY_SOCKET = "hubble-relay.sock"
"""In the run directory of a cluster's services."""
NODE_SOCKET = "hubble.sock"
"""In a node's run directory."""
CONNECT_S = 5.0
UNARY_S = 12.0
"""Time for an answer that is one message."""


_PREFIX = re.compile(
    r"^[A-Z_]+: ((ipv4|ipv6|unix):\S+: )?"
    r"(Failed to connect to remote host: |connect failed: addr: \S+ error: )?"
)
"""Of gRPC's words for a failure."""


class Unreachable(CirriError):
    """No server of flows answers there."""

    def __init__(self, address: str, why: str, hint: str = "") -> None:
        self.address = address
        self.hint = hint or "--server HOST:PORT (or unix:///PATH) names another one"
        super().__init__(f"no answer from {address}: {why}")


class Refused(CirriError):
    """The server understood the request and does not answer it."""

    def __init__(self, code: str, says: str) -> None:
        self.code = code
        super().__init__(f"{says or code}")


class NotOffered(Refused):
    """The server has no such method."""

    hint = "Nodes offer what a relay does not: --node NODE"


class BadCertificate(CirriError):
    """A file for TLS cannot be used."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        super().__init__(f"{path}: {why}")


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and how to speak to it."""

    address: str
    """As gRPC takes it: ``HOST:PORT``, ``unix:///PATH``."""
    tls: bool = False
    insecure: bool = False
    """Take whatever certificate the server has."""
    ca: tuple[str, ...] = ()
    """Files; none: the system's authorities."""
    trusted: bytes = b""
    """Certificates instead of those in :attr:`ca`."""
    certificate: str = ""
    key: str = ""
    name: str = ""
    """That the server's certificate is for; "": the address's."""
    hint: str = ""
    """What to do if it does not answer."""


def locate(target: Target, *, server: str, node: str, default: bool) -> Server:
    """The server that is meant: *server* if given, else the cluster's relay, or the *node* itself.

    Without a cluster, if none was named (*default*), the relay that listens on this machine.
    Raises: NoContext, BrokenContext, NoNode.
    """
    if server:
        address = server.removeprefix(TLS_PREFIX)
        return Server(address if "://" not in address or "unix:" in address else address.split("://", 1)[1],
                      tls=server.startswith(TLS_PREFIX))  # fmt: skip
    try:
        context = target.context()
    except NoContext:
        if default and not node:
            return Server(LOCAL)
        raise
    return _of(context, node)


def _of(context: Context, node: str) -> Server:
    if node and node not in context.bpffs:
        raise NoNode(node, sorted(context.bpffs))
    path = Path(context.run_dir) / node / NODE_SOCKET if node else Path(context.run_dir) / RELAY_SOCKET
    service = f"flows-{node}" if node else "relay"
    return Server(
        f"unix://{path}",
        hint=f"`cirri lab status --name {context.name}` shows whether {service} runs",
    )


class Observer:
    """Calls to one server.  Every method raises :class:`Unreachable` and :class:`Refused`."""

    def __init__(self, server: Server, channel: grpc.Channel) -> None:
        self.server = server
        self._channel = channel

    def stream(self, service: str, method: str, request: Any) -> Iterator[Any]:
        """The answers to *request*, as they come."""
        call = self._callable(service, method)
        with _explained(self.server):
            yield from call(request)

    def one(self, service: str, method: str, request: Any, timeout_s: float = UNARY_S) -> Any:
        """The answer to *request*."""
        call = self._callable(service, method)
        with _explained(self.server):
            return call(request, timeout=timeout_s)

    def serving(self, service: str, timeout_s: float = UNARY_S) -> bool:
        """Whether the server says (``grpc.health.v1.Health``) that *service* works."""
        call = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda name: b"\n" + bytes([len(name)]) + name.encode(),
            response_deserializer=lambda raw: raw,
        )
        with _explained(self.server):
            return bool(call(service, timeout=timeout_s) == b"\x08\x01")  # field 1: SERVING

    def _callable(self, service: str, method: str) -> Any:
        from cirri.hubble.messages import methods

        _, answer, streamed = methods(service)[method]
        make = self._channel.unary_stream if streamed else self._channel.unary_unary
        return make(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )


@contextmanager
def connected(server: Server, timeout_s: float = CONNECT_S) -> Iterator[Observer]:
    """A connection to *server*.  Raises :class:`Unreachable`, :class:`BadCertificate`."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what fails is told once, and by us
    import grpc

    if server.tls and server.insecure:
        server = _as_it_is(server)
    options = [("grpc.max_receive_message_length", -1)]
    if server.name:
        options.append(("grpc.ssl_target_name_override", server.name))  # type: ignore[arg-type]
    if server.tls:
        channel = grpc.secure_channel(server.address, _credentials(server), options)
    else:
        channel = grpc.insecure_channel(server.address, options)
    with channel:
        _wait(channel, server, timeout_s)
        yield Observer(server, channel)


def _wait(channel: grpc.Channel, server: Server, timeout_s: float) -> None:
    """Until the connection stands, or cannot be made: why, the first call will say."""
    import grpc

    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    channel.subscribe(states.put, try_to_connect=True)
    try:
        while states.get(timeout=timeout_s) not in (
            grpc.ChannelConnectivity.READY,
            grpc.ChannelConnectivity.TRANSIENT_FAILURE,
        ):
            pass
    except queue.Empty:
        raise Unreachable(server.address, f"no connection within {timeout_s:g} s", server.hint) from None
    finally:
        channel.unsubscribe(states.put)


@contextmanager
def _explained(server: Server) -> Iterator[None]:
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        match error.code():
            case grpc.StatusCode.CANCELLED:
                return
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _unreachable(server, error.details()) from None
            case grpc.StatusCode.UNIMPLEMENTED as code:
                raise NotOffered(code.name, _first(error.details()).removesuffix("!")) from None
            case code:
                raise Refused(code.name, _first(error.details())) from None


def _unreachable(server: Server, details: str | None) -> Unreachable:
    """What gRPC says, in words that help."""
    said = _first(details)
    for part, why, hint in _CAUSES:
        if part in said:
            return Unreachable(server.address, why, hint)
    return Unreachable(server.address, said, server.hint)


_CAUSES = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is signed by nobody who is trusted, or has expired",
        "--tls-ca-cert-files names an authority that signed it",
    ),
    (
        "Hostname Verification Check failed",
        "its certificate is for another name",
        "--tls-server-name says which name to expect",
    ),
    ("errors resolving", "nobody has that name", ""),
    (
        "WRONG_VERSION_NUMBER",
        "it speaks no TLS",
        "Leave --tls and tls:// out",
    ),
    (
        "Socket closed",
        "it hung up",
        "It may want TLS (--tls), or a client's certificate (--tls-client-cert-file)",
    ),
)
"""Part of what gRPC says, what that means, and what to do."""


def _first(details: str | None) -> str:
    """What gRPC says, without its list of every address that it tried."""
    line = (details or "").strip().partition("\n")[0]
    line = line.removeprefix("failed to connect to all addresses; last error: ")
    return _PREFIX.sub("", line)


def _as_it_is(server: Server) -> Server:
    """*server* with the certificate that it presents as the authority, and a name that it is for.

    gRPC cannot be told to verify nothing; so it is told to verify what nobody could get wrong.
    Raises: Unreachable, BadCertificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if server.certificate:
        context.load_cert_chain(server.certificate, server.key)
    presented = ssl.DER_cert_to_PEM_cert(_peer(server, context, binary=True))
    context.load_verify_locations(cadata=presented)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = ssl.CERT_REQUIRED  # only then Python says what is in the certificate
    names = _peer(server, context, binary=False).get("subjectAltName", ())
    known = [name for kind, name in names if kind in ("DNS", "IP Address")]
    name = known[0].replace("*", "any") if known else server.name
    return replace(server, trusted=presented.encode(), name=name)


def _peer(server: Server, context: ssl.SSLContext, *, binary: bool) -> Any:
    """The server's certificate, as bytes or as what is in it.  Raises: Unreachable."""
    host, _, port = server.address.rpartition(":")
    host = host.strip("[]")
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, int(port)), CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=server.name or host) as wrapped,
        ):
            return wrapped.getpeercert(binary)
    except (OSError, ValueError) as error:
        raise Unreachable(server.address, str(error), server.hint) from error


def _credentials(server: Server) -> Any:
    import grpc

    authorities = server.trusted or b"\n".join(_read(path) for path in server.ca) or None
    if not (server.certificate and server.key):
        return grpc.ssl_channel_credentials(authorities)
    return grpc.ssl_channel_credentials(authorities, _read(server.key), _read(server.certificate))


def _read(path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadCertificate(path, error.strerror or str(error)) from error
    if b"-----BEGIN " not in content:
        raise BadCertificate(path, "is no PEM file")
    return content
