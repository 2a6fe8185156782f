"""From labels to identity to policy to the kernel, for the endpoints of one node.

Nothing here waits.  Whoever feeds tables notes what changed and calls :meth:`Regenerator.step`,
which brings the kernel to what the tables say *now*, whatever the order of the news was.  What a
table does not say (yet) leaves the kernel as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from cirri.datapath.enforce import Enforcer
from cirri.datapath.identify import Config, configuration, identity_of
from cirri.datapath.policies import NEITHER
from cirri.datapath.store import Record
from cirri.datapath.views import Views
from cirri.labels import Reserved, pod_labels
from cirri.layout import EndpointFlag, EndpointValue, address16
from cirri.maps import MapFull
from cirri.model import EndpointState, SubjectPolicy, resource_key
from cirri.model.config import config_data

LONG_S = 2.0
"""How long an endpoint may wait for what its new policy needs before people are told."""


@dataclass(slots=True)
class Local:
    """An endpoint of this node and how far it is."""

    record: Record
    ifindex: int = 0
    """0 until its device exists: then nothing of it is written to the kernel."""
    state: EndpointState = "waiting-for-identity"
    wanted: int = 0
    """The identity of its labels, once known."""
    enforced: EndpointFlag = NEITHER
    """Directions in which it is under policy."""
    audited: bool = False
    """What its policy would drop passes and is reported."""
    fault: str = ""
    """What of its policy is not in the kernel."""
    conflict: str = ""
    """What the compiler complained of; then an earlier policy is in force."""
    waits_for: str = "its Pod object"
    """Completes "waiting for"; empty when it waits for nothing."""
    since: float = field(default_factory=time.monotonic)
    """When it began to wait, in seconds of the monotonic clock."""
    computed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its identity and policy are known."""
    realized: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its policy is in the kernel."""

    @property
    def error(self) -> str:
        """What is wrong with it, as a sentence; "" if all is well."""
        return self.fault or self.conflict

    @property
    def late(self) -> str:
        """What an endpoint under an earlier policy waits for, once that lasts."""
        waits = self.waits_for if self.realized.is_set() else ""
        return waits if waits and time.monotonic() > self.since + LONG_S else ""

    def wait_for(self, what: str) -> None:
        """It waits for *what*; for nothing if that is empty."""
        if what != self.waits_for:
            self.waits_for, self.since = what, time.monotonic()

    @property
    def value(self) -> EndpointValue:
        """What programs know of it whatever its policy.

        Its device is named last, see :meth:`Regenerator.open`.
        """
        return EndpointValue(
            ifindex=self.ifindex if self.realized.is_set() else 0,
            id=self.record.id,
            flags=int(EndpointFlag.AUDIT) if self.audited else 0,
            mac=bytes.fromhex(self.record.mac.replace(":", "")),
            node_mac=bytes.fromhex(self.record.node_mac.replace(":", "")),
        )


class Regenerator:
    """Keeps the identity and policy of every local endpoint equal to what the tables say."""

    def __init__(
        self, node: str, cluster: str, views: Views, *, enforcer: Enforcer, changed: Callable[[Local], None]
    ) -> None:
        self.node, self.views, self.enforcer = node, views, enforcer
        self.policies, self.book = enforcer.policies, enforcer.book
        self.locals: dict[int, Local] = {}
        self._cluster, self._changed = cluster, changed
        self.config: Config = configuration({}, cluster)
        """In force."""
        self._endpoints: set[int] = set()
        self._identities: set[int] = set()
        self._opening: list[Local] = []

    @property
    def behind(self) -> bool:
        """Whether an endpoint is under a policy that is not the one the tables say."""
        known = self.enforcer.realized
        return any(
            o.fault or (o.realized.is_set() and (o.waits_for or o.record.identity not in known))
            for o in self.locals.values()
        )

    def faults(self) -> list[str]:
        """What is not as it should be, one sentence each."""
        found = []
        for number, one in self.locals.items():
            if what := one.fault or (f"its new policy waits for {one.late}" if one.late else ""):
                found.append(f"endpoint {number} ({one.record.namespace}/{one.record.pod}): {what}")
        return found

    def add(self, record: Record, ifindex: int = 0) -> Local:
        """Care for an endpoint from now on.  With *ifindex* it was found at start, and what the
        kernel holds of it stays until the tables say more."""
        local = self.locals[record.id] = Local(record, ifindex)
        self._endpoints.add(record.id)
        values = [self.policies.endpoints.get(address16(a)) for a in record.addresses]
        if record.identity and ifindex and None not in values:
            self.book.realized(record)
            if found := self.policies.sets.get(record.identity):
                local.enforced = found.flags
            local.audited = any(value and value.flags & EndpointFlag.AUDIT for value in values)
            local.state, local.wanted, local.waits_for = "ready", record.identity, ""
            local.computed.set()
            local.realized.set()
        return local

    def attach(self, number: int, ifindex: int) -> None:
        """The endpoint's device exists now."""
        self.locals[number].ifindex = ifindex
        self._endpoints.add(number)

    def remove(self, number: int) -> bool:
        """Care for an endpoint no more: its addresses are unknown to programs when this returns."""
        local = self.locals.pop(number, None)
        if local is None:
            return False
        for address in local.record.addresses:
            self.policies.drop_endpoint(address16(address))
        self.book.removed(number)
        self._leave(local.record.identity)
        return True

    def audit(self, number: int, audit: bool | None) -> None:
        """Have what the endpoint's policy drops pass, or not, from the next step on; None: as the
        configuration says."""
        local = self.locals[number]
        local.record = replace(local.record, audit=audit)
        self._changed(local)
        self._endpoints.add(number)

    # news ----------------------------------------------------------------------------

    def note_identities(self, keys: Iterable[str]) -> None:
        """Identities came, went or changed."""
        keys = frozenset(keys)
        self._endpoints.update(
            n for n, local in self.locals.items() if local.waits_for or str(local.record.identity) in keys
        )

    def note_policies(self, keys: Iterable[str]) -> None:
        """Rules changed."""
        numbers = {int(key) for key in keys if key.isdigit()}
        self._identities |= numbers & (self.enforcer.realized.keys() - {Reserved.HOST})
        self.note_waiting()
        if missing := numbers - self.enforcer.realized.keys():
            self._endpoints.update(n for n, one in self.locals.items() if one.record.identity in missing)

    def note_pods(self, keys: Iterable[str]) -> None:
        """Pods of this node changed."""
        keys = frozenset(keys)
        self._endpoints.update(n for n, one in self.locals.items() if self.pod_key(one.record) in keys)

    def note_namespaces(self, keys: Iterable[str]) -> None:
        """Namespaces changed."""
        keys = frozenset(keys)
        self._endpoints.update(n for n, one in self.locals.items() if _namespace_key(one.record) in keys)

    def note_config(self) -> None:
        """The cluster's configuration changed."""
        self.config = configuration(config_data(self.views.config), self._cluster, self.config)
        self.book.numbers.config = self.config
        self._endpoints.update(self.locals)

    def note_all(self) -> None:
        """Try everything again, e.g. because a full map may have room now."""
        self._endpoints.update(self.locals)

    def note_waiting(self) -> None:
        """Something came that endpoints may wait for."""
        self._endpoints.update(n for n, local in self.locals.items() if local.waits_for)

    # the step ------------------------------------------------------------------------

    def step(self) -> bool:
        """Write to the kernel what follows from the news; True if that changed a verdict."""
        identities, self._identities = self._identities, set()
        numbers, self._endpoints = self._endpoints, set()
        touched = False
        for identity in identities:
            touched |= self._repolicy(identity)
        for number in numbers:
            if (local := self.locals.get(number)) is not None:
                touched |= self._regenerate(local)
        return touched

    def _repolicy(self, identity: int) -> bool:
        """Follow the changed rules of an identity; they wait for what is not here yet."""
        if identity not in self.enforcer.realized:
            return False
        computed = self.enforcer.computed(identity)
        missing = computed.selectors or computed.prefixes or computed.unheard
        what = computed.missing(identity) if missing else ""
        for local in self.locals.values():
            if local.record.identity == identity:
                local.wait_for(what)
        return computed.policy is not None and self.enforcer.install(identity, computed.policy)

    def _regenerate(self, local: Local) -> bool:
        """Bring one endpoint as far as the tables allow."""
        self._relabel(local)
        views, record = self.views, local.record
        if not (self.book.numbers.ready and record.labels):
            self._endpoints.add(record.id)  # looked at again with the next news, whatever it is
            return False
        before = _public(local)
        audit = self.config.engine.audit if record.audit is None else record.audit
        touched = self._audit(local, audit) if audit != local.audited else False
        local.wanted = identity_of(record.labels, self.config, views.identities)
        computed = self.enforcer.computed(local.wanted)
        local.wait_for(computed.missing(local.wanted))
        if computed.policy is None:
            if not local.realized.is_set():
                local.state = "regenerating" if local.wanted else "waiting-for-identity"
        else:
            local.computed.set()
            if local.ifindex:
                touched |= self._move(local, computed.policy)
            else:
                local.state = "regenerating"
                local.wait_for("its device")
        if touched or before != _public(local):
            self._changed(local)
        return touched

    def _audit(self, local: Local, audit: bool) -> bool:
        local.audited = audit
        touched = False
        for address in map(address16, local.record.addresses):
            if (value := self.policies.endpoints.get(address)) is not None:
                flags = EndpointFlag(value.flags) & ~EndpointFlag.AUDIT
                flags |= EndpointFlag.AUDIT if audit else flags
                touched |= self.policies.put_endpoint(address, replace(value, flags=int(flags)))
        return touched

    def _relabel(self, local: Local) -> None:
        """Follow its Pod and Namespace; a deleted Pod leaves the labels as they were."""
        views, record = self.views, local.record
        pod = views.pods.get(self.pod_key(record))
        if pod is None or not (views.namespaces.ready.is_set() and self.book.numbers.config is not None):
            return
        namespace = views.namespaces.get(_namespace_key(record))
        labels = tuple(sorted(pod_labels(pod, namespace, self.config.cluster)))
        if labels != record.labels:
            local.record = replace(record, labels=labels)
            self._changed(local)

    def _move(self, local: Local, policy: SubjectPolicy) -> bool:
        """Put the endpoint under *policy*, which is in the kernel before the endpoint is led to it."""
        old, new = local.record.identity, policy.identity
        touched = self.enforcer.install(new, policy)
        try:
            for address in local.record.addresses:
                value = self.policies.under(new, local.value)
                touched |= self.policies.put_endpoint(address16(address), value)
        except MapFull as error:
            local.state, local.fault = "invalid", str(error)
            return touched
        if old != new:
            local.record = replace(local.record, identity=new)
        touched |= self.book.realized(local.record)
        local.state = "ready"
        local.enforced, local.fault, local.conflict = self.enforcer.standing(new)
        if not local.realized.is_set():
            self._opening.append(local)
        if old != new:
            self._leave(old)
        return touched

    def tell(self) -> None:
        """Have it told which endpoints the last step changed; the kernel came first."""
        told, self.enforcer.told = self.enforcer.told & self.policies.sets.keys(), set()
        for local in self.locals.values() if told else ():
            if (identity := local.record.identity) in told:
                local.enforced, local.fault, local.conflict = self.enforcer.standing(identity)
                self._changed(local)

    def open(self) -> None:
        """Let packets reach the endpoints that the last step made known.  To be called after the epoch
        was raised.

        A connection to an address that nobody had yet was allowed without a word about its
        ingress.  Until the epoch is raised its packets would pass with that verdict; so an
        endpoint is made known without its device, which leads nowhere, and gets it here.
        """
        opening, self._opening = self._opening, []
        for local in opening:
            if self.locals.get(local.record.id) is local:
                local.realized.set()
                for address in local.record.addresses:
                    value = self.policies.under(local.record.identity, local.value)
                    self.policies.put_endpoint(address16(address), value)
                self._changed(local)

    def _leave(self, identity: int) -> None:
        """Forget an identity that no local endpoint has any more."""
        if identity != Reserved.UNKNOWN and all(o.record.identity != identity for o in self.locals.values()):
            self.enforcer.leave(identity)

    def pod_key(self, record: Record) -> str:
        """Key of an endpoint's pod in bucket ``resources``."""
        return resource_key("Pod", record.namespace, record.pod, self.node)


def _namespace_key(record: Record) -> str:
    return resource_key("Namespace", "", record.namespace, "")


def _public(local: Local) -> tuple[EndpointState, EndpointFlag, str, bool]:
    """What others see of it, besides its record."""
    return local.state, local.enforced, local.error, local.audited
