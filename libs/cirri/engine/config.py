"""Cluster-wide switches of the engine, from ConfigMap ``kube-system/cirri-config``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from cirri.errors import CirriError

Mode = Literal["default", "always", "never"]

LOCALHOST = {"": True, "auto": True, "always": True, "policy": False}
"""Values of ``allow-localhost``: whether the node may reach its pods without a rule."""

SWITCHES = {
    "enable-host-firewall": "host_firewall",
    "enable-node-selector-labels": "nodes_by_labels",
    "policy-default-local-cluster": "local_cluster",
    "policy-audit-mode": "audit",
    "enable-icmp-rules": "icmp_rules",
    "enable-l7-proxy": "l7_proxy",
    "enable-non-default-deny-policies": "non_default_deny",
}
"""Keys that are ``"true"`` or ``"false"``, and the field that each one sets."""

CIDR_MATCH_MODE = "policy-cidr-match-mode"


class InvalidConfig(CirriError):
    """A key of the cluster's configuration has a value that means nothing."""

    def __init__(self, key: str, value: str, allowed: tuple[str, ...]) -> None:
        self.key = key
        self.value = value
        super().__init__(f"cirri-config: {key}: {value!r} is not one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the meaning of every policy depends on."""

    cluster: str = "default"
    """Name of the local cluster, for entity ``cluster``."""
    mode: Mode = "default"
    """``default``: an endpoint is isolated by the rules that select it; ``always``: every one is;
    ``never``: none is, whatever the rules say."""
    allow_localhost: bool = True
    """The node itself may reach its pods (kubelet probes) unless a rule denies it."""
    host_firewall: bool = False
    """Policies that select nodes are in force."""
    nodes_by_cidr: bool = False
    """Address prefixes select nodes too, not only what is outside the cluster."""
    nodes_by_labels: bool = False
    """``fromNodes`` and ``toNodes`` may be used: nodes are known by their labels."""
    local_cluster: bool = True
    """Peer selectors that name no cluster mean pods of this one."""
    audit: bool = False
    """What a policy drops passes, and is reported."""
    icmp_rules: bool = True
    l7_proxy: bool = True
    """Rules on requests may be used."""
    non_default_deny: bool = True
    """``enableDefaultDeny: false`` is heeded."""

    @classmethod
    def of(cls, data: Mapping[str, str], *, cluster: str = "default") -> EngineConfig:
        """From the ConfigMap's data; *cluster* where it names none.  Raises InvalidConfig."""
        mode = data.get("enable-policy") or "default"
        if mode not in get_args(Mode):
            raise InvalidConfig("enable-policy", mode, get_args(Mode))
        localhost = data.get("allow-localhost", "")
        if localhost not in LOCALHOST:
            raise InvalidConfig("allow-localhost", localhost, tuple(filter(None, LOCALHOST)))
        matches = data.get(CIDR_MATCH_MODE, "")
        if matches not in {"", "nodes"}:
            raise InvalidConfig(CIDR_MATCH_MODE, matches, ("nodes",))
        switches: dict[str, bool] = {}
        for key, name in SWITCHES.items():
            value = data.get(key, "")
            if value not in {"", "true", "false"}:
                raise InvalidConfig(key, value, ("true", "false"))
            if value:
                switches[name] = value == "true"
        return cls(
            cluster=data.get("cluster-name") or cluster,
            mode=mode,  # type: ignore[arg-type]
            allow_localhost=LOCALHOST[localhost],
            nodes_by_cidr=matches == "nodes",
            **switches,
        )


PERMISSIVE = EngineConfig(nodes_by_labels=True)
"""Every feature on: what an object must satisfy in any cluster."""
