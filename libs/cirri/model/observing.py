"""What the configuration says about who may ask for flows, and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cirri.errors import CirriError

LISTEN = "hubble-listen-address"
CERTIFICATE, KEY, CLIENT_CA = "hubble-tls-cert-file", "hubble-tls-key-file", "hubble-tls-client-ca-files"
RELAY_LISTEN = "hubble-relay-listen-address"
RELAY_CERTIFICATE, RELAY_KEY, RELAY_CLIENT_CA = (
    "hubble-relay-tls-relay-server-cert-file",
    "hubble-relay-tls-relay-server-key-file",
    "hubble-relay-tls-relay-client-ca-files",
)
RELAY_AS_CLIENT, RELAY_AS_CLIENT_KEY, SERVER_CA = (
    "hubble-relay-tls-hubble-client-cert-file",
    "hubble-relay-tls-hubble-client-key-file",
    "hubble-relay-tls-hubble-server-ca-files",
)
SORT_WINDOW = "hubble-relay-sort-buffer-drain-timeout"
DEFAULTS = {
    LISTEN: ":4244",
    CERTIFICATE: "",
    KEY: "",
    CLIENT_CA: "",
    RELAY_LISTEN: ":4245",
    RELAY_CERTIFICATE: "",
    RELAY_KEY: "",
    RELAY_CLIENT_CA: "",
    RELAY_AS_CLIENT: "",
    RELAY_AS_CLIENT_KEY: "",
    SERVER_CA: "",
    SORT_WINDOW: "1s",
}
_ADDRESSES, _WINDOWS = (LISTEN, RELAY_LISTEN), (SORT_WINDOW,)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]*):([0-9]{1,5})", re.ASCII)
_TIME = re.compile(r"([0-9]{1,5})(ms|s)", re.ASCII)


class InvalidObserving(CirriError):
    """A key of the configuration cannot be used; its default holds."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """PEM files of one side; no certificate: a server speaks without TLS, a client says not who it is."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    """Whom to believe; None at a server: clients need no certificate; at a client: it speaks without TLS."""


@dataclass(frozen=True, kw_only=True)
class Observing:
    """Addresses are ``HOST:PORT``; "": TCP is not listened on."""

    listen: str
    tls: Tls
    relay_listen: str
    relay_tls: Tls
    relay_client_tls: Tls
    """Of the relay towards nodes."""
    sort_window_s: float
    """How long the relay waits for what nodes saw earlier than others."""

    @property
    def port(self) -> int:
        """Of nodes; 0: none."""
        return int(self.listen.rpartition(":")[2] or 0)


def observing(data: Mapping[str, str]) -> tuple[Observing, list[InvalidObserving]]:
    """The settings in *data*, defaults for what cannot be read; and what that is."""
    wrong: list[InvalidObserving] = []

    def value(key: str) -> str:
        text = data.get(key, DEFAULTS[key])
        if allowed := _allowed(key, text):
            wrong.append(InvalidObserving(key, text, allowed))
            return DEFAULTS[key]
        return text

    def files(*keys: str) -> Tls:
        found = [Path(text) if (text := value(key)) else None for key in keys]
        return Tls(certificate=found[0], key=found[1], ca=found[2])

    number, unit = _TIME.fullmatch(value(SORT_WINDOW)).groups()  # type: ignore[union-attr]
    settings = Observing(
        listen=_host(value(LISTEN)),
        tls=files(CERTIFICATE, KEY, CLIENT_CA),
        relay_listen=_host(value(RELAY_LISTEN)),
        relay_tls=files(RELAY_CERTIFICATE, RELAY_KEY, RELAY_CLIENT_CA),
        relay_client_tls=files(RELAY_AS_CLIENT, RELAY_AS_CLIENT_KEY, SERVER_CA),
        sort_window_s=int(number) / (1000 if unit == "ms" else 1),
    )
    return settings, wrong


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        allowed = _allowed(key, value)
        return f"{value!r} is not allowed; allowed: {allowed}" if allowed else ""

    return says


def _allowed(key: str, text: str) -> str:
    """What *text* should be; "": it is."""
    if key in _ADDRESSES:
        found = _ADDRESS.fullmatch(text)
        return "" if not text or (found and 0 < int(found[2]) < 1 << 16) else 'HOST:PORT, ":PORT", or nothing'
    if key in _WINDOWS:
        return "" if _TIME.fullmatch(text) else 'a time such as "500ms" or "1s"'
    return "" if not text or text.startswith("/") else "the absolute path of a file, or nothing"


def _host(address: str) -> str:
    return f"[::]{address}" if address.startswith(":") else address
