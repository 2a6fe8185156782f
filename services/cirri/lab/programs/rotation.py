"""Give the names of the lab's CDN other addresses, again and again.

``python -m cirri.lab.programs.rotation``, in the internet's namespace: dynamic updates (RFC 2136) to
its name server.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from ipaddress import ip_address

from cirri.lab.internet import CDN, CDN_NAMES, CDN_POOL, NAMESERVER, address4, address6

EVERY_S = 0.5
ADDRESSES = 4
"""Of each family, that a name has at a time."""
CDN_TTL_S = 1
TIMEOUT_S = 1.0
UPDATE = 5 << 11
"""The operation, in the header's flags."""
SOA, IN, ANY = 6, 1, 255
A, AAAA = 1, 28
ZONE = b"\xc0\x0c"
"""The zone's name, where the first section has it."""


def update(turn: random.Random) -> bytes:
    """Every name has other addresses, all of a sudden: none, then these, of each type."""
    labels = [(_label(name) + ZONE, turn.sample(CDN_POOL, ADDRESSES)) for name in CDN_NAMES]
    records = [
        record
        for name, numbers in labels
        for kind, address in ((A, address4), (AAAA, address6))
        for record in (
            name + struct.pack("!2HIH", kind, ANY, 0, 0),
            *(_record(name, kind, ip_address(address(number)).packed) for number in numbers),
        )
    ]
    header = struct.pack("!6H", turn.randrange(1 << 16), UPDATE, 1, 0, len(records), 0)
    zone = b"".join(map(_label, CDN.split("."))) + b"\0" + struct.pack("!2H", SOA, IN)
    return header + zone + b"".join(records)


def _label(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!2HIH", kind, IN, CDN_TTL_S, len(data)) + data


def main() -> None:
    """Until killed; a name server that is away is told at the next turn."""
    turn = random.Random()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect((NAMESERVER, 53))
        while True:
            with contextlib.suppress(OSError):
                sock.send(update(turn))
                sock.recv(512)
            time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
