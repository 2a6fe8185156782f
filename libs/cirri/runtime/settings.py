"""What a service is told at its start: environment variables ``CIRRI_*``, read once."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from cirri.model.bucket import token
from cirri.runtime.errors import SettingsInvalid

LOG_LEVELS = ("debug", "info", "warning", "error")
REPOSITORY = Path(__file__).resolve().parents[3]


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of one service; every field is ``CIRRI_`` and its name in capitals."""

    node: str
    """Name of this node; default: the host's name."""
    nats_url: str = "nats://127.0.0.1:4222"
    """Of the bus; several servers of it are comma separated."""
    nats_ca: Path | None = None
    """PEM file: who signs the certificates of ``tls://`` servers; default: whom the system trusts."""
    nats_replicas: int = 1
    """On how many of its servers each stream is kept that this service makes: 1 to 5."""
    nats_user: str = ""
    """``NAME`` for cluster services, ``NAME-NODE`` for node services; empty: no credentials."""
    nats_password: str = ""
    cluster: str = "default"
    state_dir: Path = Path("/var/lib/cirri")
    """Durable files."""
    run_dir: Path = Path("/run/cirri")
    """Sockets and other files that end with the host's uptime."""
    bpffs: Path = Path("/sys/fs/bpf/cirri")
    """This node's pins."""
    bpf_objects: Path = REPOSITORY / "bpf" / "build"
    cgroup: Path | None = None
    """cgroup2 directory where socket programs are attached; default: the root of the hierarchy."""
    http: tuple[str, int] = ("127.0.0.1", 0)
    """Where /healthz, /readyz and /metrics are served; port 0: any, see RUN_DIR/NAME.http.
    A replica's file is NAME-REPLICA.http."""
    log_level: str = "info"
    uplink: str = ""
    """Device to other nodes; default: that of the default route."""
    node_addresses: tuple[str, ...] = ()
    """Comma separated; default: those of the uplink."""
    replica: str = ""
    """Which of several processes of this service on this node; empty: there is one."""
    instance: str = ""
    """Who holds this service's lease; default: NAME@HOST."""

    @property
    def shard(self) -> str:
        """First token of this node's keys in buckets that are sharded by node."""
        return token(self.node)

    @classmethod
    def read(cls, environment: Mapping[str, str], service: str = "") -> Settings:
        """The settings that *environment* holds.

        Raises: SettingsInvalid, with every fault.
        """
        host = socket.gethostname()
        given = {
            name: environment[f"CIRRI_{name.upper()}"]
            for name in cls.__struct_fields__
            if environment.get(f"CIRRI_{name.upper()}")
        }
        faults: list[str] = []
        values: dict[str, object] = {"node": host, "instance": f"{service}@{host}", **given}
        for name in ("state_dir", "run_dir", "bpffs", "bpf_objects", "cgroup", "nats_ca"):
            if name in given:
                values[name] = path = Path(given[name])
                if not path.is_absolute():
                    faults.append(f"CIRRI_{name.upper()} must be an absolute path, not {given[name]!r}")
        if "http" in given:
            address, colon, port = given["http"].rpartition(":")
            if colon and port.isdigit() and int(port) < 65536:
                values["http"] = (address.strip("[]") or "127.0.0.1", int(port))
            else:
                faults.append(f"CIRRI_HTTP must be HOST:PORT, not {given['http']!r}")
        if (count := given.get("nats_replicas", "1")) in ("1", "2", "3", "4", "5"):
            values["nats_replicas"] = int(count)
        else:
            faults.append(f"CIRRI_NATS_REPLICAS must be 1 to 5, not {count!r}")
        if (level := given.get("log_level", "info").lower()) not in LOG_LEVELS:
            faults.append(f"CIRRI_LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {level!r}")
        values["log_level"] = level
        if "node_addresses" in given:
            addresses = [a.strip() for a in given["node_addresses"].split(",") if a.strip()]
            for address in addresses:
                try:
                    ipaddress.ip_address(address)
                except ValueError:
                    faults.append(f"CIRRI_NODE_ADDRESSES holds {address!r}, which is no IP address")
            values["node_addresses"] = tuple(addresses)
        faults += [
            f"CIRRI_NATS_URL must start with nats:// or tls://, not {url!r}"
            for url in given.get("nats_url", "nats://").split(",")
            if not url.startswith(("nats://", "tls://"))
        ]
        if faults:
            raise SettingsInvalid(faults)
        return cls(**values)  # type: ignore[arg-type]
