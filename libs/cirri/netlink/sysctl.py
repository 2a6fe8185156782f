"""Kernel switches below /proc/sys/net, of the network namespace the process is in."""

from pathlib import Path

ROOT = Path("/proc/sys/net")

FORWARDING = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    # a pod's traffic may enter and leave by different devices: policy, not the routing table, judges it
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
}
"""What a node needs."""


def ensure(wanted: dict[str, str]) -> tuple[str, ...]:
    """Set what differs from *wanted*; the names that were changed.

    A key that the kernel does not have (IPv6 compiled out) is passed over.
    """
    changed = []
    for name, value in wanted.items():
        path = ROOT / name
        try:
            if path.read_text().strip() == value:
                continue
            path.write_text(value)
        except FileNotFoundError:
            continue
        changed.append(name)
    return tuple(changed)


RESERVED_PORTS = "ipv4/ip_local_reserved_ports"


def reserve_ports(ports: range) -> bool:
    """Have no socket be given one of *ports*, as of those reserved before; True if that is new."""
    path = ROOT / RESERVED_PORTS
    before = path.read_text().strip()
    if any(ports[0] >= low and ports[-1] <= high for low, high in _spans(before)):
        return False
    path.write_text(",".join(filter(None, (before, f"{ports[0]}-{ports[-1]}"))))
    return True


def _spans(text: str) -> list[tuple[int, int]]:
    """The kernel's way to write sets of numbers: ``80,8080-8090``."""
    found = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.append((int(low), int(high or low)))
    return found


def device(name: str) -> dict[str, str]:
    """What a device needs that is not the node's own (udev rules may have set it otherwise)."""
    return {f"ipv4/conf/{name}/rp_filter": "0"}


def uplink(name: str) -> dict[str, str]:
    """What the device to other nodes needs: out of tunnels programs hand proxies what came by no
    route of this device.  A check that is off stays off, a strict one becomes a loose one.
    """
    key = f"ipv4/conf/{name}/rp_filter"
    strict = (ROOT / key).exists() and (ROOT / key).read_text().strip() == "1"
    return {key: "2"} if strict else {}


def pod_device(name: str) -> dict[str, str]:
    """What a pod's device on the node's side needs: what the node itself sends to the pod comes back by it
    if it is for a proxy.  (Programs see to it that pods have sources of their own.)
    """
    return device(name) | {f"ipv4/conf/{name}/accept_local": "1"}
