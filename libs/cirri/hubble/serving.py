"""The sockets: services of the API over gRPC, on a unix socket and over TCP."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from cirri.errors import CirriError
from cirri.hubble.messages import HEALTH, HealthCheckResponse, methods
from cirri.hubble.tls import Complain, TlsFiles, server_credentials
from cirri.model.observing import Tls
from cirri.protos import calls

SHARED = 0o117
"""Owner and group may speak to the socket, others not."""
OPTIONS = (("grpc.so_reuseport", 0), ("grpc.keepalive_permit_without_calls", 1))
"""A second server on a port is an error, not half of the first one."""


class PortTaken(CirriError):
    """*address* cannot be listened on."""

    hint = "Another observer may listen there; give this one another address"

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(f"cannot listen on {address}")


class Serving:
    """Services on sockets, until it is closed.  *complain*: of certificates that were renewed badly."""

    def __init__(self, services: Mapping[str, Mapping[str, Any]], complain: Complain) -> None:
        self._services = {**services, HEALTH: {"Check": self._check}}
        self._complain = complain
        self._servers: list[Any] = []

    async def listen_unix(self, path: Path) -> None:
        """On *path*, in place of a socket that a killed process left."""
        path.unlink(missing_ok=True)
        mask = os.umask(SHARED)
        try:
            await self._listen(f"unix:{path}", None)
        finally:
            os.umask(mask)

    async def listen(self, address: str, tls: TlsFiles | None = None) -> int:
        """On *address* (``HOST:PORT``; port 0: any).  The port.  Raises: PortTaken, BadCertificate."""
        return await self._listen(address, tls)

    async def _check(self, request: Any, context: Any) -> Any:
        """Whether the service (of "", everything) works: as long as it answers at all."""
        if request.service and request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=1)

    async def _listen(self, address: str, tls: TlsFiles | None) -> int:
        # One server for each socket: a server that has been started takes no further ones.
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(name, calls.handlers(methods(name), by))
                for name, by in self._services.items()
            ]
        )
        try:
            if tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, server_credentials(tls, self._complain))
        except RuntimeError:
            raise PortTaken(address) from None
        await server.start()
        self._servers.append(server)
        return int(port)

    async def close(self, grace: float = 0) -> None:
        """Hang up; calls have *grace* seconds to end."""
        for server in self._servers:
            await server.stop(grace)


class Sockets:
    """The same services on a unix socket, and over TCP as the configuration says."""

    def __init__(self, services: Mapping[str, Mapping[str, Any]], path: Path, complain: Complain) -> None:
        self._services, self._path, self._complain = services, path, complain
        self._local = Serving(services, complain)
        self._tcp: Serving | None = None
        self._now: tuple[str, Tls] | None = None

    async def start(self) -> None:
        """Listen on the unix socket."""
        await self._local.listen_unix(self._path)

    async def want(self, address: str, tls: Tls) -> str:
        """Listen on *address* ("": nowhere); why that is not possible, or "".  It may be tried again."""
        if (address, tls) == self._now:
            return ""
        if self._tcp is not None:
            await self._tcp.close()
            self._tcp = self._now = None
        if address:
            serving = Serving(self._services, self._complain)
            try:
                await serving.listen(address, tls_files(tls))
            except CirriError as error:
                return str(error)
            self._tcp = serving
        self._now = address, tls
        return ""

    async def close(self) -> None:
        """Hang up."""
        for serving in (self._local, self._tcp):
            if serving is not None:
                await serving.close()


def tls_files(tls: Tls) -> TlsFiles | None:
    """The files of a server; None: it speaks without TLS."""
    return TlsFiles(tls.certificate, tls.key, tls.ca) if tls.certificate is not None else None


def stub(channel: Any, service: str) -> Any:
    """An object with the methods of *service* on *channel* (of ``grpc.aio``)."""
    return calls.stub(channel, methods(service), service)
