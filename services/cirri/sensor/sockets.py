"""Steps of TCP connections in words.  Pure."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET

from cirri.layout import SENSOR_NO_ANSWER, SensorSocket, SensorStep
from cirri.model.runtimeevents import EventType, Socket

TYPES: dict[int, EventType] = {
    SensorStep.CONNECT: "process_connect",
    SensorStep.ACCEPT: "process_accept",
    SensorStep.CLOSE: "process_close",
}


def socket_of(record: SensorSocket) -> Socket:
    """The connection from the end that began it to the other."""
    here = _address(record.family, record.local), record.local_port
    there = _address(record.family, record.remote), record.remote_port
    begun, other = (there, here) if record.accepted else (here, there)
    return Socket(
        cookie=record.cookie,
        source=begun[0],
        source_port=begun[1],
        destination=other[0],
        destination_port=other[1],
        error=_error(record.error),
    )


def _address(family: int, raw: bytes) -> str:
    if family == AF_INET:
        return str(IPv4Address(raw[:4]))
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address)


def _error(number: int) -> str:
    if number == SENSOR_NO_ANSWER:
        return "closed"
    return errno.errorcode.get(number, str(number)) if number else ""
