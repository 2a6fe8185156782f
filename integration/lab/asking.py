"""A server that says whom it sees, and a client that asks many at once.

``asking.py serve NAME PORT`` answers every connection and datagram, of both families, with its name, the
address that it sees and how many bytes it got, in as many bytes.  A question on a connection ends with a
line's end, as the answer does.  ``asking.py ask`` reads lines of JSON, each a list of
questions, and answers each line with the list of what was heard.  Standard library only: it runs in pods.
"""

import asyncio
import errno
import json
import socket
import sys
import threading
from typing import Any

LARGE = 1 << 20
"""More than a question or an answer has."""
BUFFER = 16 << 20
SO_RCVBUFFORCE = 33
"""Not in module socket.  Everybody asks at once, and a datagram that finds no room is gone."""
REFUSED, UNREACHABLE, SILENCE = "refused", "unreachable", "silence"
WORDS = {
    errno.ECONNREFUSED: REFUSED,
    errno.EHOSTUNREACH: UNREACHABLE,
    errno.ENETUNREACH: UNREACHABLE,
}


def _answer(name: str, host: str, data: bytes) -> bytes:
    return f"{name} {host.removeprefix('::ffff:')} {len(data)}".ljust(len(data) - 1).encode() + b"\n"


def _serve_datagrams(name: str, port: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        # Answers leave from the address that was asked, whichever of the machine's that is.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.bind(("::", port))
        while True:
            data, about, _, peer = sock.recvmsg(LARGE, 256)
            back = [(level, kind, value) for level, kind, value in about if kind == socket.IPV6_PKTINFO]
            sock.sendmsg([_answer(name, peer[0], data)], back, 0, peer)


async def serve(name: str, port: int) -> None:
    """For ever."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.readuntil():
                writer.write(_answer(name, writer.get_extra_info("peername")[0], data))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    threading.Thread(target=_serve_datagrams, args=(name, port), daemon=True).start()
    server = await asyncio.start_server(answer, ["0.0.0.0", "::"], port, backlog=1024, limit=LARGE)
    await server.serve_forever()


async def _ask(question: dict[str, Any]) -> str:
    """What the server says, a word for how nobody does, or what went wrong at the last try."""
    said = SILENCE
    for _ in range(question["tries"]):
        try:
            async with asyncio.timeout(question["patience"] / question["tries"]):
                return await _heard(question)
        except TimeoutError:
            said = SILENCE
        except OSError as error:
            said = WORDS.get(error.errno or 0, repr(error))
    return said


async def _heard(question: dict[str, Any]) -> str:
    """Protocol "TCP mapped" asks for an IPv4 address by an IPv6 socket, "UDP unconnected" never connects."""
    protocol, _, manner = question["protocol"].partition(" ")
    there = (f"::ffff:{question['address']}" if manner == "mapped" else question["address"], question["port"])
    family = socket.AF_INET6 if ":" in there[0] else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        if question["source_port"]:
            sock.bind(("", question["source_port"]))
        data = b"\n".rjust(question["size"], b".")
        if manner == "unconnected":
            await loop.sock_sendto(sock, data, there)
            heard, peer = await loop.sock_recvfrom(sock, LARGE)
        else:
            await loop.sock_connect(sock, there)
            await loop.sock_sendall(sock, data)
            heard, peer = await loop.sock_recv(sock, LARGE), sock.getpeername()
            while heard and not heard.endswith(b"\n"):
                more = await loop.sock_recv(sock, LARGE)
                heard = heard + more if more else b""
    said = heard.decode().strip() if len(heard) >= len(data) else f"{len(heard)} bytes"
    return said if peer[:2] == there else f"{said}, but the socket speaks of {peer}"


async def ask() -> None:
    """Until standard input closes."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        heard = await asyncio.gather(*map(_ask, json.loads(line)))
        print(json.dumps(heard), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(ask())
