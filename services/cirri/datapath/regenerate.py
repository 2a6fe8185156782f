"""From labels to identity to policy to the kernel, for the endpoints of one node.

Nothing here waits.  Whoever feeds tables notes what changed and calls :meth:`Regenerator.step`,
which brings the kernel to what the tables say *now*, whatever the order of the news was.  What a
table does not say (yet) leaves the kernel as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace
from pyroaring import BitMap

from cirri.datapath.addressbook import AddressBook
from cirri.datapath.identify import (
    Computed,
    Config,
    configuration,
    identity_of,
    members_of,
    policy_of,
    selectors_of,
)
from cirri.datapath.kernel import Policies
from cirri.datapath.store import Record
from cirri.datapath.views import Views
from cirri.engine.entries import entries
from cirri.labels import Reserved, pod_labels
from cirri.layout import EndpointFlag, EndpointValue, address16
from cirri.maps import MapFull
from cirri.model import EndpointState, SubjectPolicy, resource_key
from cirri.model.config import config_data

NEITHER = EndpointFlag(0)


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
    error: str = ""
    waits_for: str = "its Pod object"
    """Completes "waiting for"; empty when it waits for nothing."""
    computed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its identity and policy are known."""
    realized: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its policy is in the kernel."""

    @property
    def value(self) -> EndpointValue:
        """What programs know of it whatever its policy.

        Its device is named last, see :meth:`Regenerator.open`.
        """
        return EndpointValue(
            ifindex=self.ifindex if self.realized.is_set() else 0,
            id=self.record.id,
            mac=bytes.fromhex(self.record.mac.replace(":", "")),
            node_mac=bytes.fromhex(self.record.node_mac.replace(":", "")),
        )


class Regenerator:
    """Keeps the policy of every local endpoint equal to what the tables say."""

    def __init__(
        self,
        node: str,
        cluster: str,
        views: Views,
        *,
        policies: Policies,
        book: AddressBook,
        changed: Callable[[Local], None],
    ) -> None:
        self.node, self.views, self.policies, self.book = node, views, policies, book
        self.locals: dict[int, Local] = {}
        self.realized: dict[int, SubjectPolicy] = {}
        """Policies in force, by local identity."""
        self._cluster, self._changed = cluster, changed
        self.config: Config = configuration({}, cluster)
        """In force."""
        self._sets: dict[str, BitMap] = {}
        """Members in force of the selectors that they name."""
        self._endpoints: set[int] = set()
        self._identities: set[int] = set()
        self._selectors: set[str] = set()
        self._opening: list[Local] = []
        self._told: set[int] = set()

    @property
    def behind(self) -> bool:
        """Whether an endpoint is under a policy that is not the one the tables say."""
        return any(o.error or (o.waits_for and o.realized.is_set()) for o in self.locals.values())

    def add(self, record: Record, ifindex: int = 0) -> Local:
        """Care for an endpoint from now on.  With *ifindex* it was found at start, and what the
        kernel holds of it stays until the tables say more."""
        local = self.locals[record.id] = Local(record, ifindex)
        self._endpoints.add(record.id)
        known = all(address16(a) in self.policies.endpoints for a in record.addresses)
        if record.identity and ifindex and known:
            self.book.realized(record)
            if found := self.policies.sets.get(record.identity):
                local.enforced = found.flags
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
        self._identities |= numbers & self.realized.keys()
        self._note_waiting()
        if missing := numbers - self.realized.keys():
            self._endpoints.update(n for n, one in self.locals.items() if one.record.identity in missing)

    def note_selectors(self, keys: Iterable[str]) -> None:
        """Members of selectors changed."""
        self._selectors.update(key for key in keys if key in self._sets)
        self._note_waiting()

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
        self._endpoints.update(self.locals)

    def note_all(self) -> None:
        """Try everything again, e.g. because a full map may have room now."""
        self._endpoints.update(self.locals)

    def _note_waiting(self) -> None:
        self._endpoints.update(n for n, local in self.locals.items() if local.waits_for)

    # the step ------------------------------------------------------------------------

    def step(self) -> bool:
        """Write to the kernel what follows from the news; True if that changed a verdict."""
        selectors, self._selectors = self._selectors, set()
        identities, self._identities = self._identities, set()
        numbers, self._endpoints = self._endpoints, set()
        touched = self._reselect(selectors, identities) if selectors else False
        for identity in identities:
            touched |= self._repolicy(identity)
        for number in numbers:
            if (local := self.locals.get(number)) is not None:
                touched |= self._regenerate(local)
        return touched

    def _reselect(self, selectors: Iterable[str], besides: set[int]) -> bool:
        """Follow changed members: only the entries of those who joined or left are looked at."""
        moved: dict[str, BitMap] = {}
        for key in selectors:
            found = self.views.selectors.get(key)
            members = members_of(found) if found is not None else None
            if members is None:
                continue  # kept until the rules that name it are gone as well
            if delta := members ^ self._sets[key]:
                moved[key] = delta
                self._sets[key] = members
        touched = False
        for identity, policy in self.realized.items() if moved else ():
            changed = [moved[key] for key in selectors_of(policy) if key in moved]
            if changed and identity not in besides:
                peers = set(BitMap.union(*changed))
                before = self._standing(identity)
                touched |= self.policies.patch(identity, peers, entries(policy, self._sets, only=peers))
                if before != self._standing(identity):
                    self._told.add(identity)
        return touched

    def _repolicy(self, identity: int) -> bool:
        """Follow the changed rules of an identity; they wait for selectors that are not here yet."""
        if identity not in self.realized:
            return False
        computed = policy_of(identity, self.views.policies, self.views.selectors)
        for local in self.locals.values():
            if local.record.identity == identity:
                local.waits_for = _missing(computed, identity) if computed.missing else ""
        if computed.policy is None:
            return False
        before = self._standing(identity)
        touched = self._install(computed.policy)
        if before != self._standing(identity):
            self._told.add(identity)
        return touched

    def _standing(self, identity: int) -> tuple[EndpointFlag, str]:
        """What an endpoint's record says of its identity's policy."""
        one = self.policies.sets[identity]
        return one.flags, one.fault

    def _install(self, policy: SubjectPolicy) -> bool:
        """Put *policy* in force for whoever has its identity."""
        for key in selectors_of(policy):
            if key not in self._sets:
                self._sets[key] = members_of(self.views.selectors[key]) or BitMap()
        flags = EndpointFlag(0)
        flags |= EndpointFlag.ENFORCE_INGRESS if policy.ingress.enforced else flags
        flags |= EndpointFlag.ENFORCE_EGRESS if policy.egress.enforced else flags
        touched = self.policies.realize(policy.identity, flags, entries(policy, self._sets))
        self.realized[policy.identity] = policy
        return touched

    def _regenerate(self, local: Local) -> bool:
        """Bring one endpoint as far as the tables allow."""
        self._relabel(local)
        views, record = self.views, local.record
        if not (views.config.ready.is_set() and views.identities.ready.is_set() and record.labels):
            return False
        local.wanted = identity_of(record.labels, self.config, views.identities)
        computed = policy_of(local.wanted, views.policies, views.selectors)
        before = (local.state, local.enforced, local.error)
        local.waits_for = _missing(computed, local.wanted)
        if computed.policy is None:
            if not local.realized.is_set():
                local.state = "regenerating" if local.wanted else "waiting-for-identity"
            if before != (local.state, local.enforced, local.error):
                self._changed(local)
            return False
        local.computed.set()
        if not local.ifindex:
            local.state, local.waits_for = "regenerating", "its device"
            return False
        touched = self._move(local, computed.policy)
        if touched or before != (local.state, local.enforced, local.error):
            self._changed(local)
        return touched

    def _relabel(self, local: Local) -> None:
        """Follow its Pod and Namespace; a deleted Pod leaves the labels as they were."""
        views, record = self.views, local.record
        pod = views.pods.get(self.pod_key(record))
        if pod is None or not (views.namespaces.ready.is_set() and views.config.ready.is_set()):
            return
        namespace = views.namespaces.get(_namespace_key(record))
        labels = tuple(sorted(pod_labels(pod, namespace, self.config.cluster)))
        if labels != record.labels:
            local.record = replace(record, labels=labels)
            self._changed(local)

    def _move(self, local: Local, policy: SubjectPolicy) -> bool:
        """Put the endpoint under *policy*, which is in the kernel before the endpoint is led to it."""
        old, new = local.record.identity, policy.identity
        touched = self._install(policy)
        try:
            for address in local.record.addresses:
                value = self.policies.under(new, local.value)
                touched |= self.policies.put_endpoint(address16(address), value)
        except MapFull as error:
            local.state, local.error = "invalid", str(error)
            return touched
        if old != new:
            local.record = replace(local.record, identity=new)
        touched |= self.book.realized(local.record)
        local.state = "ready"
        local.enforced, local.error = self._standing(new)
        if not local.realized.is_set():
            self._opening.append(local)
        if old != new:
            self._leave(old)
        return touched

    def tell(self) -> None:
        """Have it told which endpoints the last step changed; the kernel came first."""
        told, self._told = self._told & self.policies.sets.keys(), set()
        for local in self.locals.values() if told else ():
            if (identity := local.record.identity) in told:
                local.enforced, local.error = self._standing(identity)
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
        if identity == Reserved.UNKNOWN or any(o.record.identity == identity for o in self.locals.values()):
            return
        self.policies.release(identity)
        self.realized.pop(identity, None)
        named = {key for policy in self.realized.values() for key in selectors_of(policy)}
        for key in self._sets.keys() - named:
            del self._sets[key]

    def pod_key(self, record: Record) -> str:
        """Key of an endpoint's pod in bucket ``resources``."""
        return resource_key("Pod", record.namespace, record.pod, self.node)


def _namespace_key(record: Record) -> str:
    return resource_key("Namespace", "", record.namespace, "")


def _missing(computed: Computed, identity: int) -> str:
    if computed.policy is not None:
        return ""
    if computed.missing:
        return f"{len(computed.missing)} selectors that the policy of identity {identity} names"
    return f"the policy of identity {identity}" if identity else "an identity for its labels"
