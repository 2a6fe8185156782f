"""The policy objects behind cookies of the kernel's entries, as the datapath service left them in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from cirri.model import Origin, RuleRef

DERIVED = "k8s:io.cilium.k8s.policy.derived-from"
REMEMBERED = 65536

Revision = Callable[[str, str, str], int]
"""(kind, namespace, name) of an object -> its revision in bucket ``resources``, 0: not known."""


class RuleFile:
    """RUN_DIR/rules.json, read again when it has changed; what is no longer in it stays known."""

    def __init__(self, path: Path, revision: Revision = lambda kind, namespace, name: 0) -> None:
        self._path, self._revision = path, revision
        self._known: dict[int, RuleRef] = {}
        self._read_at = -1

    def get(self, cookie: int) -> RuleRef | None:
        """What *cookie* stands for; None: nobody has said so yet."""
        if cookie not in self._known:
            self._read()
        if (rule := self._known.get(cookie)) is None:
            return None
        if rule.kind and (now := self._revision(rule.kind, rule.namespace, rule.name)) != rule.revision:
            rule = self._known[cookie] = replace(rule, revision=now)
        return rule

    def _read(self) -> None:
        try:
            changed = self._path.stat().st_mtime_ns
            if changed == self._read_at:
                return
            origins = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Origin])
        except (OSError, msgspec.MsgspecError):
            return  # it comes when the datapath service has written it
        self._read_at = changed
        if len(self._known) > REMEMBERED:
            self._known.clear()
        self._known |= {int(cookie): rule_ref(origin) for cookie, origin in origins.items()}


def rule_ref(origin: Origin) -> RuleRef:
    """How flows speak of *origin*, with the labels that Cilium gives rules of policy objects."""
    labels: tuple[str, ...] = ()
    if origin.kind and origin.name:
        labels = (f"{DERIVED}={origin.kind}", f"k8s:io.cilium.k8s.policy.name={origin.name}")
        if origin.namespace:
            labels += (f"k8s:io.cilium.k8s.policy.namespace={origin.namespace}",)
    return RuleRef(
        kind=origin.kind,
        namespace=origin.namespace,
        name=origin.name,
        section=origin.section,
        labels=labels,
        log=origin.log,
    )
