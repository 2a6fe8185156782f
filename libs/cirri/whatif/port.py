"""What is asked about: a destination port, or an ICMP type."""

from __future__ import annotations

import re
from typing import NamedTuple

from cirri.engine.ports import PROTOCOL_NAMES
from cirri.errors import CirriError

_NUMBERS = {name.upper(): number for number, name in PROTOCOL_NAMES.items()}
_QUESTION = re.compile(r"(?P<port>[0-9]{1,5})(/(?P<protocol>[A-Za-z0-9]+))?")


class InvalidPort(CirriError):
    """A port that cannot be asked about."""

    hint = "Write PORT/PROTOCOL, such as 80/TCP, 53/UDP, 9/SCTP; for ICMP the type: 8/ICMP, 128/ICMPv6"

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f'"{text}" is not a port')


class Port(NamedTuple):
    """A destination port, or an ICMP type, of a protocol by its IANA number."""

    protocol: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Port:
        """``80/TCP``; without a protocol it is TCP.  Raises :class:`InvalidPort`."""
        found = _QUESTION.fullmatch(text.strip())
        protocol = _NUMBERS.get((found["protocol"] or "TCP").upper()) if found else None
        if found is None or protocol is None:
            raise InvalidPort(text)
        icmp = PROTOCOL_NAMES[protocol].startswith("ICMP")
        if not (0 if icmp else 1) <= int(found["port"]) <= (255 if icmp else 65535):
            raise InvalidPort(text)
        return cls(protocol, int(found["port"]))

    def __str__(self) -> str:
        return f"{self.number}/{PROTOCOL_NAMES[self.protocol]}"
