"""What this node knows about its endpoints, one small file each, whole or not there at all.

The files outlive the process and the bus: after ``kill -9`` or a wiped store they say which pods
exist, which addresses are taken and what was last published.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from cirri.datapath.netconf import Attachment
from cirri.netlink.pod import PodDevice, parse

SUFFIX = ".json"


class Record(Struct, frozen=True, kw_only=True):
    """An endpoint of this node."""

    id: int
    container: str
    ifname: str
    netns: str
    namespace: str
    pod: str
    interface: str
    mac: str
    node_mac: str
    ipv4: str = ""
    ipv6: str = ""
    mtu: int = 1500
    complete: bool = False
    """ADD has returned success; otherwise what exists of it is swept at the next start."""
    labels: tuple[str, ...] = ()
    identity: int = 0
    """Last realized one."""

    @property
    def attachment(self) -> Attachment:
        """Whose it is."""
        return Attachment(self.container, self.ifname)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, IPv4 first."""
        return tuple(a for a in (self.ipv4, self.ipv6) if a)

    @property
    def device(self) -> PodDevice:
        """Its link."""
        return PodDevice(
            inside=self.ifname,
            outside=self.interface,
            mac=self.mac,
            outside_mac=self.node_mac,
            addresses=parse(*self.addresses),
            mtu=self.mtu,
        )


class Store:
    """The folder of endpoint files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> tuple[list[Record], list[str]]:
        """Every record, and a sentence about each file that is none (it is left alone)."""
        records, faults = [], []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                records.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (OSError, msgspec.DecodeError) as error:
                faults.append(f"endpoint file {path.name} cannot be read: {error}")
        return records, faults

    def save(self, record: Record) -> None:
        """Store *record*; a crash leaves the old file or the new one.

        Not synced to disk: after a power failure the pods are gone as well.
        """
        path = self._path(record.id)
        draft = path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(record))
        os.replace(draft, path)

    def remove(self, number: int) -> None:
        """Forget the endpoint; an absent one is fine."""
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}{SUFFIX}"


def free_number(used: set[int], last: int) -> int:
    """The next endpoint number after *last* that is not in *used*; 0 if all 65535 are."""
    for step in range(1, 65536):
        number = (last + step - 1) % 65535 + 1
        if number not in used:
            return number
    return 0
