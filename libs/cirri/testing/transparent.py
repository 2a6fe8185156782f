"""A transparent proxy, an echo server and a client for a node's network namespace, each a process of its own.

The proxy puts its name before every line that it passes on; the server puts before it as whom it sees its
client::

    client ── "hi" ──> proxy E ── "E|hi" ──> server ── "10.52.0.2 E|hi" ──> back the same way

Each runs as ``python -S -u -c SCRIPT ARGUMENTS``, says ``ready``, and ends when its standard input does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_COMMON = """
import socket, struct, sys, threading
MARK, TRANSPARENT, TRANSPARENT6, NO_PORT, ORIGINAL, ORIGINAL6 = 36, 19, 75, 24, 20, 74
def made(family, kind, mark):
    s = socket.socket(family, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if mark:
        s.setsockopt(socket.SOL_SOCKET, MARK, mark)
        six = family == socket.AF_INET6
        s.setsockopt(41 if six else 0, TRANSPARENT6 if six else TRANSPARENT, 1)
    if family == socket.AF_INET6:
        s.setsockopt(41, socket.IPV6_V6ONLY, 1)
    return s
def thread(f, *a):
    threading.Thread(target=f, args=a, daemon=True).start()
def done():
    print("ready", flush=True)
    sys.stdin.read()
"""

_PROXY = (
    _COMMON
    + """
name, port, client_mark, server_mark, same = sys.argv[1].encode(), *(int(a, 0) for a in sys.argv[2:6])
def upstream(family, kind, client, server):
    s = made(family, kind, server_mark)
    s.settimeout(5)
    s.bind((client[0], client[1] if same else 0))
    s.connect(server[:2])
    return s
def relay(source, target, before):
    try:
        while data := source.recv(65536):
            target.sendall(before + data if len(data) < 100 else data)
        target.shutdown(socket.SHUT_WR)
    except OSError as error:
        print(name, error, file=sys.stderr)
        source.close()
        target.close()
def stream(c):
    try:
        with c, upstream(c.family, socket.SOCK_STREAM, c.getpeername(), c.getsockname()) as s:
            c.settimeout(60); s.settimeout(60)
            thread(relay, c, s, name + b"|")
            relay(s, c, b"")
    except OSError as error:
        print(name, error, file=sys.stderr)
def streams(l):
    while True:
        thread(stream, l.accept()[0])
def datagram(family, data, client, server):
    with upstream(family, socket.SOCK_DGRAM, client, server) as s:
        s.send(name + b"|" + data)
        try:
            answer = s.recv(4096)
        except ConnectionRefusedError:
            answer = b"refused"
    with made(family, socket.SOCK_DGRAM, client_mark) as s:
        s.bind(server)
        s.connect(client)  # or it would take what is for the server itself, if that is of this node
        s.send(answer)
def datagrams(l):
    while True:
        data, extra, _, client = l.recvmsg(4096, 100)
        raw = extra[0][2]
        address = socket.inet_ntop(l.family, raw[4:8] if l.family == socket.AF_INET else raw[8:24])
        thread(datagram, l.family, data, client[:2], (address, struct.unpack("!H", raw[2:4])[0]))
for family, at in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    l = made(family, socket.SOCK_STREAM, client_mark)
    l.bind((at, port)); l.listen(64)
    thread(streams, l)
    l = made(family, socket.SOCK_DGRAM, client_mark)
    l.setsockopt(*((41, ORIGINAL6) if family == socket.AF_INET6 else (0, ORIGINAL)), 1)
    l.bind((at, port))
    thread(datagrams, l)
done()
"""
)

_SERVER = (
    _COMMON
    + """
port = int(sys.argv[1])
def stream(c, peer):
    with c:
        while data := c.recv(4096):
            c.sendall(peer[0].encode() + b" " + data)
def streams(l):
    while True:
        thread(stream, *l.accept())
def datagrams(l):
    while True:
        data, peer = l.recvfrom(4096)
        l.sendto(peer[0].encode() + b" " + data, peer)
for family in (socket.AF_INET, socket.AF_INET6):
    l = made(family, socket.SOCK_STREAM, 0)
    l.bind(("", port)); l.listen(64)
    thread(streams, l)
    l = made(family, socket.SOCK_DGRAM, 0)
    l.bind(("", port))
    thread(datagrams, l)
done()
"""
)

CLIENT = """
import socket, sys
kind, address, port, wait = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(wait)
if len(sys.argv) > 5:
    s.bind(("", int(sys.argv[5])))
try:
    s.connect((address, port))
    for line in sys.stdin:
        s.send(line.strip().encode())
        print(s.recv(4096).decode() or "closed", flush=True)
except TimeoutError:
    print("silence", flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""
"""Sends each line of its standard input, and says what is answered."""

DIGEST_SERVER = """
import hashlib, socket
s = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    h, n = hashlib.sha256(), 0
    while n < 2_000_000:
        d = c.recv(65536)
        if not d: break
        h.update(d); n += len(d)
    c.sendall(h.hexdigest().encode()); c.close()
"""
"""Says the digest of 2 MB that it is sent, at port 7000."""
DIGEST_CLIENT = """
import hashlib, os, socket, sys
data = os.urandom(2_000_000)
with socket.create_connection((sys.argv[1], 7000), 5) as s:
    s.sendall(data)
    got = b""
    while len(got) < 64:
        piece = s.recv(64)
        if not piece: break
        got += piece
sys.exit(got.decode() != hashlib.sha256(data).hexdigest())
"""
"""Ends with 0 if 2 MB arrived there as they were sent."""


@contextmanager
def _running(namespace: str, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-S", "-u", "-c", script]
    process = subprocess.Popen(
        [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
            assert process.stdin
            with suppress(BrokenPipeError):  # of what it was told and did not read any more
                process.stdin.close()


@contextmanager
def proxy(
    namespace: str, name: str, port: int, client_mark: int, server_mark: int, *, same_port: bool = False
) -> Iterator[None]:
    """A proxy for TCP and UDP at *port* of the loopback.

    *same_port*: it asks servers from the very port of its client.
    """
    arguments = (name, str(port), str(client_mark), str(server_mark), str(int(same_port)))
    with _running(namespace, _PROXY, *arguments) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield


@contextmanager
def server(namespace: str, port: int) -> Iterator[None]:
    """An echo server for TCP and UDP at *port* of every address, and one that tells digests at 7000."""
    with _running(namespace, _SERVER, str(port)) as process, _running(namespace, DIGEST_SERVER) as digests:
        for each in (process, digests):
            assert each.stdout
            assert each.stdout.readline() == "ready\n"
        yield


class Client:
    """One connection of one client, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, text: str) -> str:
        """What is answered to *text*: ``closed`` if the connection is at its end, or what went wrong."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(text, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return "gone"
        return self._process.stdout.readline().strip()


@contextmanager
def client(
    namespace: str, protocol: str, address: str, port: int, *, wait: float = 2, local_port: int = 0
) -> Iterator[Client]:
    """A connection to *address*, ``tcp`` or ``udp``, that waits so many seconds for each answer."""
    arguments = (protocol, address, str(port), str(wait), *([str(local_port)] if local_port else []))
    with _running(namespace, CLIENT, *arguments) as process:
        yield Client(process)
