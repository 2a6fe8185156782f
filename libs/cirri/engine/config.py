"""Cluster-wide switches of the engine, from ConfigMap ``kube-system/cirri-config``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from cirri.errors import CirriError

Mode = Literal["default", "always", "never"]

LOCALHOST = {"": True, "auto": True, "always": True, "policy": False}
"""Values of ``allow-localhost``: whether the node may reach its pods without a rule."""


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

    @classmethod
    def of(cls, data: Mapping[str, str], *, cluster: str = "default") -> EngineConfig:
        """From the ConfigMap's data; *cluster* where it names none.  Raises InvalidConfig."""
        mode = data.get("enable-policy") or "default"
        if mode not in get_args(Mode):
            raise InvalidConfig("enable-policy", mode, get_args(Mode))
        localhost = data.get("allow-localhost", "")
        if localhost not in LOCALHOST:
            raise InvalidConfig("allow-localhost", localhost, tuple(filter(None, LOCALHOST)))
        return cls(data.get("cluster-name") or cluster, mode, LOCALHOST[localhost])  # type: ignore[arg-type]
