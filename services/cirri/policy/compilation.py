"""The compiler fed from tables, and what it could not take over.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cirri.engine import Compiler, EngineConfig, InvalidConfig, InvalidPolicy
from cirri.model import Identity, Resource


class Compilation:
    """Keeps the last good meaning of everything; *log* hears of what is refused."""

    def __init__(self, cluster: str, log: Callable[..., Any] = lambda *_, **__: None) -> None:
        self.compiler = Compiler(EngineConfig(cluster=cluster))
        self.invalid: dict[str, str] = {}
        """Objects that cannot be understood, by resource key, and why."""
        self.config_error = ""
        self._cluster, self._log = cluster, log

    def configure(self, data: Mapping[str, str]) -> None:
        """Take over the cluster's configuration."""
        try:
            config = EngineConfig.of(data, cluster=self._cluster)
        except InvalidConfig as error:
            if self.config_error != str(error):
                self._log("configuration refused", error=str(error))
            self.config_error = str(error)
            return
        self.config_error = ""
        for key, fault in self.compiler.configure(config).items():
            self._refuse(key, fault)

    def resource(self, key: str, resource: Resource | None) -> None:
        """Take over a policy object; None: it is gone."""
        self.invalid.pop(key, None)
        if resource is None:
            self.compiler.delete_resource(key)
            return
        try:
            gaps = self.compiler.update_resource(resource)
        except InvalidPolicy as error:
            self._refuse(key, error)
            return
        for gap in gaps:
            self._log("not enforced", object=key, path=gap.path, why=gap.sentence)

    def identity(self, number: int, identity: Identity | None) -> None:
        """Take over an identity; None or one that is retired: it is gone."""
        if identity is None or not identity.labels:
            self.compiler.remove_identity(number)
        else:
            self.compiler.add_identity(number, identity.labels)

    def report(self) -> dict[str, Any]:
        """What ``cirri.policy.status`` answers."""
        return {
            "identities": len(self.compiler.policies),
            "selectors": len(self.compiler.sets),
            "objects": len(list(self.compiler.object_keys())),
            "invalid": dict(self.invalid),
            "not_enforced": {
                key: [f"{gap.path}: {gap.sentence}" for gap in gaps]
                for key, gaps in self.compiler.gaps().items()
            },
            "config_error": self.config_error,
        }

    def _refuse(self, key: str, error: InvalidPolicy) -> None:
        self.invalid[key] = str(error)
        self._log("policy refused", object=key, error=str(error))
