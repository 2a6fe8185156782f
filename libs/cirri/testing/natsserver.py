"""A real nats-server with JetStream, on a free port, that a test may kill."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cirri.kv.wire import MAX_MESSAGE_BYTES


class ServerFailed(RuntimeError):
    """The server did not start; the message holds what it logged."""


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def plain_config(server: NatsServer) -> str:
    """A nats.conf that lets anybody do anything."""
    return (
        f'host: "{server.host}"\nport: {server.port}\nmax_payload: {MAX_MESSAGE_BYTES}\n'
        f'jetstream {{ store_dir: "{server.store}" }}\n'
    )


class NatsServer:
    """``with NatsServer() as server:`` runs one; everything it made is removed at the end.

    *config* makes the text of the whole nats.conf from the server's ``host``, ``port`` and
    ``store``; without one the server takes anybody.  *host* is the address it listens on.
    """

    def __init__(self, config: Callable[[NatsServer], str] | None = None, host: str = "127.0.0.1") -> None:
        self.host, self.port = host, free_port()
        self.url = f"nats://{host}:{self.port}"
        self.home = Path(tempfile.mkdtemp(prefix="cirri-test-nats-"))
        self.store = self.home / "store"
        self.log = self.home / "log"
        self._config = self.home / "nats.conf"
        self._config.write_text((config or plain_config)(self))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it and return when it takes connections.  Raises: ServerFailed."""
        args = ["nats-server", "-c", str(self._config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(args, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with socket.create_connection((self.host, self.port), 0.2) as peer:
                    if peer.recv(4) == b"INFO":
                        return
            except OSError:
                time.sleep(0.005)
        raise ServerFailed(self.log.read_text()[-2000:])

    def kill(self) -> None:
        """Kill it with SIGKILL, so that nothing is written in good order."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it from answering, without closing connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after pause()."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Remove the store of a server that does not run."""
        shutil.rmtree(self.store, ignore_errors=True)

    def save(self, name: str) -> None:
        """Copy the store of a server that does not run, for :meth:`restore`."""
        shutil.copytree(self.store, self.home / f"saved-{name}")

    def restore(self, name: str) -> None:
        """Put back the store of that time: acknowledged writes since then are lost."""
        self.empty()
        shutil.copytree(self.home / f"saved-{name}", self.store)

    def restart(self, *, keep: bool = True) -> None:
        """Kill it and run it again, with the store kept or emptied."""
        self.kill()
        if not keep:
            self.empty()
        self.start()

    def close(self) -> None:
        """End it and remove all it made."""
        self._end(signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> NatsServer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(10)
