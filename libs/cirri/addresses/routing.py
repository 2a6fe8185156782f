"""How packets get to pods of other nodes, as the cluster's configuration states it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cirri.errors import CirriError

ROUTING_MODE, TUNNEL_PROTOCOL, TUNNEL_PORT = "routing-mode", "tunnel-protocol", "tunnel-port"
MODES, PROTOCOLS = ("native", "tunnel"), ("vxlan",)
VXLAN_PORT = 8472
"""What Linux takes where no port is named."""


class InvalidRouting(CirriError):
    """A key of the configuration cannot be used; the last good mode goes on to hold."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value = key, value
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class Routing:
    """The routing mode."""

    tunnel_port: int = 0
    """UDP port of the tunnels; 0: packets travel as they are, the network knows the way to every pod."""

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Routing:
        """From the ConfigMap's data.  Raises InvalidRouting."""
        mode = _choice(data, ROUTING_MODE, MODES)
        _choice(data, TUNNEL_PROTOCOL, PROTOCOLS)
        port = data.get(TUNNEL_PORT) or str(VXLAN_PORT)
        if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise InvalidRouting(TUNNEL_PORT, port, "a port from 1 to 65535")
        return cls(int(port) if mode == "tunnel" else 0)


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            Routing.of({key: value})
        except InvalidRouting as error:
            return str(error).removeprefix(f"cirri-config: {key}: ")
        return ""

    return says


def _choice(data: Mapping[str, str], key: str, allowed: tuple[str, ...]) -> str:
    value = data.get(key) or allowed[0]
    if value not in allowed:
        raise InvalidRouting(key, value, ", ".join(allowed))
    return value
