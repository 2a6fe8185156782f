"""The cluster's switches for Services, from ConfigMap ``cirri-config``."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal, get_args

from cirri.errors import CirriError
from cirri.maglev import DEFAULT_SEED, DEFAULT_SIZE, SIZES

Algorithm = Literal["random", "maglev"]
Mode = Literal["snat", "dsr", "hybrid"]
Dispatch = Literal["opt", "ipip"]
NoBackend = Literal["reject", "drop"]
Acceleration = Literal["disabled", "native", "best-effort"]

HEALTHZ, HEALTHZ_DEFAULT = "kube-proxy-replacement-healthz-bind-address", "0.0.0.0:10256"


class InvalidConfig(CirriError):
    """A key of the cluster's configuration has a value that means nothing."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        self.key, self.value = key, value
        super().__init__(f"cirri-config: {key}: {value!r} is not allowed; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class LoadBalancerConfig:
    """How Services are served where they do not say it themselves."""

    algorithm: Algorithm = "random"
    table_size: int = DEFAULT_SIZE
    """Slots of a Maglev table."""
    seed: str = DEFAULT_SEED
    """Of all Maglev tables: 12 bytes in base64."""
    mode: Mode = "snat"
    """How a packet from outside reaches a backend on another node."""
    dispatch: Dispatch = "opt"
    """What carries the frontend's address in mode ``dsr``."""
    acceleration: Acceleration = "disabled"
    """Whether the driver of the device to other nodes turns packets round; ``best-effort``: where it can."""
    direct: bool = True
    """Backends' nodes can answer clients themselves: not where packets between nodes take tunnels."""
    no_backend: NoBackend = "reject"
    host_namespace_only: bool = False
    """Sockets of pods are left alone; their packets are translated instead."""
    ranges_of_all_types: bool = False
    """``loadBalancerSourceRanges`` hold for node ports and external IPs too."""
    node_ports: range = range(30000, 32768)
    health_check_node_ports: bool = True
    healthz: tuple[str, int] | None = ("0.0.0.0", 10256)  # noqa: S104 - as kube-proxy
    """Where the node says whether it serves; None: nowhere."""

    @classmethod
    def of(cls, data: Mapping[str, str]) -> LoadBalancerConfig:
        """From the ConfigMap's data.  Raises InvalidConfig."""
        return cls(
            algorithm=_choice(data, "bpf-lb-algorithm", Algorithm),
            table_size=_number(data, "bpf-lb-maglev-table-size", SIZES, DEFAULT_SIZE),
            seed=_seed(data, "bpf-lb-maglev-hash-seed"),
            mode=_choice(data, "bpf-lb-mode", Mode),
            dispatch=_choice(data, "bpf-lb-dsr-dispatch", Dispatch),
            acceleration=_choice(data, "bpf-lb-acceleration", Acceleration),
            direct=(data.get("routing-mode") or "native") == "native",
            no_backend=_choice(data, "service-no-backend-response", NoBackend),
            host_namespace_only=_switch(data, "bpf-lb-sock-hostns-only", default=False),
            ranges_of_all_types=_switch(data, "bpf-lb-source-range-all-types", default=False),
            node_ports=_ports(data, "node-port-range", range(30000, 32768)),
            health_check_node_ports=_switch(data, "enable-health-check-nodeport", default=True),
            healthz=_bind_address(data, HEALTHZ),
        )

    @property
    def fault(self) -> str:
        """What of it cannot be had together; "": nothing."""
        if self.mode == "snat" or self.direct:
            return ""
        return f"cirri-config: bpf-lb-mode: {self.mode} {NOT_DIRECT}"


NOT_DIRECT = "needs routing-mode: native; other nodes' backends get packets under this node's address (snat)"


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            LoadBalancerConfig.of({key: value})
        except InvalidConfig as error:
            return str(error).removeprefix(f"cirri-config: {key}: ")
        return ""

    return says


def _choice(data: Mapping[str, str], key: str, kind: object) -> Any:
    allowed = get_args(kind)
    value = data.get(key) or allowed[0]
    if value not in allowed:
        raise InvalidConfig(key, value, ", ".join(allowed))
    return value


def _number(data: Mapping[str, str], key: str, allowed: tuple[int, ...], default: int) -> int:
    text = data.get(key) or str(default)
    if text not in map(str, allowed):
        raise InvalidConfig(key, text, ", ".join(map(str, allowed)))
    return int(text)


def _bind_address(data: Mapping[str, str], key: str) -> tuple[str, int] | None:
    text = data.get(key, HEALTHZ_DEFAULT)
    if not text:
        return None
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        address = None
    if address is None or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidConfig(key, text, 'an address and a port, as in "0.0.0.0:10256", or nothing')
    return str(address), int(port)


def _seed(data: Mapping[str, str], key: str) -> str:
    text = data.get(key) or DEFAULT_SEED
    try:
        if len(b64decode(text, validate=True)) == 12:
            return text
    except ValueError:
        pass
    raise InvalidConfig(key, text, "12 bytes in base64, as openssl rand -base64 12 gives them")


def _switch(data: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = data.get(key) or str(default).lower()
    if text not in ("true", "false"):
        raise InvalidConfig(key, text, "true, false")
    return text == "true"


def _ports(data: Mapping[str, str], key: str, default: range) -> range:
    text = data.get(key)
    if not text:
        return default
    first, comma, last = text.partition(",")
    if not (comma and first.isdecimal() and last.isdecimal() and 0 < int(first) < int(last) < 65536):
        raise InvalidConfig(key, text, 'two ports from 1 to 65535, the smaller first, as in "30000,32767"')
    return range(int(first), int(last) + 1)
