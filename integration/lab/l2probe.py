"""Run in the client's namespace: a datagram a millisecond to an address, and who answers ARP for it.

``python l2probe.py ADDRESS PORT SECONDS`` prints a line when it begins, then JSON: when answers came, who
answered each ARP request, and the first frames of ARP and neighbour discovery about the address, as they lay
on the wire.  No packages.
"""

import json
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from ipaddress import ip_address

EVERY_S, ASK_S, LATE_S = 0.001, 0.02, 0.3
KEPT = 40
DEVICE = "eth0"


def main(address: str, port: int, seconds: float) -> dict[str, object]:
    """Probe for *seconds*."""
    parsed = ip_address(address)
    udp = socket.socket(socket.AF_INET6 if parsed.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.bind((DEVICE, 0))
    wire.setblocking(False)
    mac = wire.getsockname()[4]
    print("begins", flush=True)
    began = time.monotonic()
    next_send = next_ask = began
    answered: list[float] = []
    asked = 0
    replies: list[tuple[float, str]] = []
    frames: list[str] = []
    while (now := time.monotonic()) < began + seconds + LATE_S:
        if now >= next_send and now < began + seconds:
            next_send = max(next_send + EVERY_S, now - 0.01)
            with suppress(OSError):
                udp.sendto(struct.pack("!d", now - began), (address, port))
        if now >= next_ask and now < began + seconds and parsed.version == 4:
            next_ask = now + ASK_S
            asked += 1
            with suppress(OSError):
                wire.send(request(mac, parsed.packed))
        until = min(next_send, next_ask) if now < began + seconds else now + 0.05
        ready, _, _ = select.select([udp, wire], [], [], max(0.0, until - time.monotonic()))
        if udp in ready:
            with suppress(OSError):
                while True:
                    (at,) = struct.unpack("!d", udp.recv(64)[:8])
                    answered.append(at)
        if wire in ready:
            with suppress(OSError):
                while True:
                    frame = wire.recv(2048)
                    if parsed.packed in frame and is_about_neighbours(frame):
                        if len(frames) < KEPT:
                            frames.append(frame.hex())
                        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2" and frame[:6] == mac:
                            replies.append((time.monotonic() - began, frame[22:28].hex(":")))
    return {"answered": answered, "replies": replies, "asked": asked, "sent_s": seconds, "frames": frames}


def request(mac: bytes, target: bytes) -> bytes:
    """ARP: who has *target*?  From no address, so that no neighbour entry changes because of it."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return b"\xff" * 6 + mac + b"\x08\x06" + head + mac + bytes(4) + bytes(6) + target


def is_about_neighbours(frame: bytes) -> bool:
    """ARP, or a neighbour solicitation or advertisement."""
    if frame[12:14] == b"\x08\x06":
        return True
    return frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] in (135, 136)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
