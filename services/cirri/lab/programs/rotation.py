"""Give the names of the lab's CDN other addresses, again and again.

``python -m cirri.lab.programs.rotation``, in the internet's namespace: dynamic updates (RFC 2136) to
its name server.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time

import dns.exception
import dns.query
import dns.rcode
import dns.update

from cirri.lab.internet import CDN, CDN_NAMES, CDN_POOL, NAMESERVER, address4, address6

EVERY_S = 0.5
ADDRESSES = 4
"""Of each family, that a name has at a time."""
CDN_TTL_S = 1
TIMEOUT_S = 1.0


def update(turn: random.Random) -> dns.update.UpdateMessage:
    """Every name has other addresses, all of a sudden."""
    message = dns.update.UpdateMessage(CDN)
    for name in CDN_NAMES:
        numbers = turn.sample(CDN_POOL, ADDRESSES)
        message.replace(name, CDN_TTL_S, "A", *(address4(n) for n in numbers))
        message.replace(name, CDN_TTL_S, "AAAA", *(address6(n) for n in numbers))
    return message


def main() -> None:
    """Until killed; a name server that is away is told at the next turn."""
    turn = random.Random()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        while True:
            with contextlib.suppress(OSError, dns.exception.DNSException):
                dns.query.udp(update(turn), NAMESERVER, timeout=TIMEOUT_S, sock=sock)
            time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
