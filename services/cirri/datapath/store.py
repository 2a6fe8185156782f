"""What this node knows about its endpoints, one small file each, whole or not there at all.

The files outlive the process and the bus: after ``kill -9`` or a wiped store they say which pods
exist, which addresses are taken and what was last published.
"""

from __future__ import annotations

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
    """Empty: it is the node itself."""
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
    audit: bool | None = None
    """Whether what its policy drops passes; None: as the cluster's configuration says."""

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
    """The folder of endpoint files, ``ID.VERSION.json``; of several versions the highest counts.

    A new version gets a name of its own: renaming over an existing file makes ext4 write its data to the
    disk first (mount option auto_da_alloc), 5 ms in which nothing else could be done here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions: dict[int, int] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> tuple[list[Record], list[str]]:
        """Every record, and a sentence about each file that is none (it is left alone)."""
        records: dict[int, Record] = {}
        faults = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}"), key=_version):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Record)
            except (OSError, msgspec.DecodeError, UnicodeError) as error:
                faults.append(f"endpoint file {path.name} cannot be read: {error}")
                continue
            self._drop(record.id)
            records[record.id] = record
            self._versions[record.id] = _version(path)
        return [records[number] for number in sorted(records)], faults

    def save(self, record: Record) -> None:
        """Store *record*; a crash leaves the old file or the new one, or both.

        Not synced to disk: after a power failure the pods are gone as well.
        """
        before = self._versions.get(record.id, 0)
        path = self._path(record.id, before + 1)
        draft = path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(record))
        draft.rename(path)
        self._drop(record.id)
        self._versions[record.id] = before + 1

    def remove(self, number: int) -> None:
        """Forget the endpoint; an absent one is fine."""
        self._drop(number)

    def _drop(self, number: int) -> None:
        version = self._versions.pop(number, None)
        if version is not None:
            self._path(number, version).unlink(missing_ok=True)

    def _path(self, number: int, version: int) -> Path:
        return self.folder / f"{number}.{version}{SUFFIX}"


def _version(path: Path) -> int:
    version = path.name.removesuffix(SUFFIX).partition(".")[2]
    return int(version) if version.isdigit() else 0


def free_number(used: set[int], last: int) -> int:
    """The next endpoint number after *last* that is not in *used*; 0 if all 65535 are."""
    for step in range(1, 65536):
        number = (last + step - 1) % 65535 + 1
        if number not in used:
            return number
    return 0
