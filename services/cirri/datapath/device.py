"""Names and hardware addresses of a pod's device.  Pure: the same for the same attachment, so that
a repeated ADD or a DEL after a crash finds what an earlier one left."""

from __future__ import annotations

import hashlib

from cirri.datapath.netconf import Attachment

PREFIX = "lxc"


def outside_name(attachment: Attachment) -> str:
    """Name of the node's end: 15 characters, the longest that Linux takes."""
    return PREFIX + _digest(attachment, "name").hex()[:12]


def hardware_address(attachment: Attachment, end: str) -> str:
    """A locally administered unicast MAC for *end* ("inside" or "outside")."""
    raw = b"\x02" + _digest(attachment, end)[:5]
    return raw.hex(":")


def _digest(attachment: Attachment, use: str) -> bytes:
    return hashlib.sha256(f"{use}\0{attachment.container}\0{attachment.ifname}".encode()).digest()
