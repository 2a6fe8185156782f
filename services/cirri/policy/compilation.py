"""The compiler fed from tables, and what it could not take over.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cirri.engine import KINDS, Compiler, EngineConfig, InvalidConfig, InvalidPolicy
from cirri.labels import Reserved
from cirri.model import Identity, PolicyCondition, Resource
from cirri.policy.conditions import condition, rfc3339

SUBJECTS = (Reserved.HOST, Reserved.HEALTH, Reserved.INIT, Reserved.INGRESS)
"""Reserved identities that endpoints of nodes have: they are under policy as any other."""

SHOWN = 100
"""How many of a long list a status names."""


class Compilation:
    """Keeps the last good meaning of everything; *log* hears of what is refused."""

    def __init__(self, cluster: str, log: Callable[..., Any] = lambda *_, **__: None) -> None:
        self.compiler = Compiler(EngineConfig(cluster=cluster), subjects=SUBJECTS)
        self.config_error = ""
        self.lacking: dict[str, float] = {}
        """Prefixes that policies name and that have no identity, and since when (Unix time)."""
        self._cluster, self._log = cluster, log
        self._data: Mapping[str, str] | None = None
        self._newest: dict[str, int] = {}
        """Revision of the newest version of each policy object."""
        self._in_force: dict[str, int] = {}
        """Revision of the version that holds."""
        self._touched: set[str] = set()

    def configure(self, data: Mapping[str, str]) -> None:
        """Take over the cluster's configuration."""
        if data == self._data:
            return
        self._data = data
        try:
            config = EngineConfig.of(data, cluster=self._cluster)
        except InvalidConfig as error:
            self._log("configuration refused", error=str(error))
            self.config_error = str(error)
            return
        self.config_error = ""
        known = self.compiler.invalid
        invalid = self.compiler.configure(config)
        for key in invalid.keys() - known.keys():
            self._log("policy refused", object=key, error=str(invalid[key]))
        # A version that means something now may be a newer one than what meant something before.
        self._in_force |= {key: revision for key, revision in self._newest.items() if key not in invalid}
        self._touched |= self._newest.keys()

    def resource(self, key: str, resource: Resource | None, revision: int = 0) -> None:
        """Take over an object that policies are made of, as it is at *revision*; None: it is gone."""
        is_policy = key.partition(".")[0] in KINDS
        if is_policy:
            self._touched.add(key)
        if resource is None:
            self.compiler.delete_resource(key)
            self._newest.pop(key, None)
            self._in_force.pop(key, None)
            return
        if is_policy:
            self._newest[key] = revision
        try:
            gaps = self.compiler.update_resource(resource)
        except InvalidPolicy as error:
            self._log("policy refused", object=key, error=str(error))
            return
        if is_policy:
            self._in_force[key] = revision
        for gap in gaps:
            self._log("not enforced", object=key, path=gap.path, why=gap.sentence)

    def recount(self, key: str, revision: int) -> None:
        """The object *key*, which did not change, is at *revision*: its bucket was made anew."""
        if (before := self._newest[key]) == revision:
            return
        self._newest[key] = revision
        if self._in_force.get(key) == before:
            self._in_force[key] = revision
        self._touched.add(key)

    def identity(self, number: int, identity: Identity | None) -> None:
        """Take over an identity; None or one that is retired: it is gone."""
        if identity is None or not identity.labels:
            self.compiler.remove_identity(number)
        else:
            self.compiler.add_identity(number, identity.labels)

    def look(self, now: float) -> None:
        """Note which prefixes lack an identity at *now* (Unix time)."""
        self.lacking = {prefix: self.lacking.get(prefix, now) for prefix in self.compiler.missing()}

    def take_conditions(
        self, before: Mapping[str, PolicyCondition], now: float, *, everything: bool = False
    ) -> dict[str, PolicyCondition | None]:
        """What is to be said of objects of which there was news since the last call; None: nothing any more.

        *before*: what was said so far; *now*: Unix time; *everything*: of all objects.
        """
        touched, self._touched = self._touched, set()
        if everything:
            touched |= self._newest.keys()
        if not touched:
            return {}
        invalid, gaps = self.compiler.invalid, self.compiler.gaps()
        return {
            key: condition(
                key,
                self._newest[key],
                faults=invalid[key].faults if key in invalid else (),
                gaps=gaps.get(key, ()),
                in_force=self._in_force.get(key, 0),
                before=before.get(key),
                now=rfc3339(now),
            )
            if key in self._newest
            else None
            for key in touched
        }

    @property
    def late(self) -> str:
        """What the policies wait for that lack an identity for longest, as a sentence; "" for nothing."""
        if not self.lacking:
            return ""
        some = ", ".join(prefix for prefix, _ in self._longest_lacking()[:3])
        return f"no identity for {len(self.lacking)} address prefixes that policies name: {some}"

    def _longest_lacking(self) -> list[tuple[str, float]]:
        return sorted(self.lacking.items(), key=lambda item: (item[1], item[0]))[:SHOWN]

    def report(self) -> dict[str, Any]:
        """What ``cirri.policy.status`` answers of what was compiled."""
        compiler = self.compiler
        return {
            "identities": len(compiler.policies),
            "selectors": len(compiler.sets),
            "objects": len(list(compiler.object_keys())),
            "invalid": {key: str(error) for key, error in compiler.invalid.items()},
            "not_enforced": {
                key: [f"{gap.path}: {gap.sentence}" for gap in gaps] for key, gaps in compiler.gaps().items()
            },
            "conflicts": {str(identity): sentence for identity, sentence in compiler.conflicts.items()},
            "prefixes_without_identity": len(self.lacking),
            "lacking": {prefix: rfc3339(since) for prefix, since in self._longest_lacking()},
            "config_error": self.config_error,
        }
