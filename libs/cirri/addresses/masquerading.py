"""What pods send out of the cluster under their node's address, as the cluster's configuration states it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cirri.addresses.pools import Network
from cirri.errors import CirriError
from cirri.labels import parse_prefix

SWITCHES = {4: "enable-ipv4-masquerade", 6: "enable-ipv6-masquerade"}
NATIVE = {4: "ipv4-native-routing-cidr", 6: "ipv6-native-routing-cidr"}
EXEMPT = "non-masquerade-cidrs"


class InvalidMasquerading(CirriError):
    """A key of the configuration cannot be used; the last good one goes on to hold."""

    def __init__(self, key: str, why: str) -> None:
        self.key, self.why = key, why
        super().__init__(f"cirri-config: {key}: {why}")


@dataclass(frozen=True, slots=True)
class Masquerading:
    """Who sees a pod's own address: pods and nodes of the cluster, and these."""

    ipv4: bool = True
    """What goes elsewhere leaves under the node's address."""
    ipv6: bool = True
    native: tuple[Network, ...] = ()
    """Where the network knows the way to pods."""
    exempt: tuple[Network, ...] = ()
    """Other destinations that are to see pods' addresses."""

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Masquerading:
        """From the ConfigMap's data.  Raises InvalidMasquerading."""
        return cls(
            ipv4=_switch(data, SWITCHES[4]),
            ipv6=_switch(data, SWITCHES[6]),
            native=tuple(
                _network(key, text, version) for version, key in NATIVE.items() if (text := data.get(key))
            ),
            exempt=tuple(_network(EXEMPT, text) for text in data.get(EXEMPT, "").replace(",", " ").split()),
        )


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            Masquerading.of({key: value})
        except InvalidMasquerading as error:
            return error.why
        return ""

    return says


def _switch(data: Mapping[str, str], key: str) -> bool:
    text = data.get(key) or "true"
    if text not in ("true", "false"):
        raise InvalidMasquerading(key, f'"{text}" is not allowed; allowed: "true" and "false"')
    return text == "true"


def _network(key: str, text: str, version: int = 0) -> Network:
    found = parse_prefix(text.strip(), bare=False)
    if isinstance(found, str):
        raise InvalidMasquerading(key, found)
    if version and found.version != version:
        raise InvalidMasquerading(key, f'"{text}" is not an IPv{version} prefix')
    return found
