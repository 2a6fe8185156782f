"""The node itself as an endpoint, while the host firewall is on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec.structs import replace
from pyroaring import BitMap

from cirri.datapath.bus import BusPlace
from cirri.datapath.enforce import Enforcer
from cirri.datapath.identify import Config
from cirri.datapath.kernel import Switches
from cirri.datapath.provisional import Provisional
from cirri.datapath.regenerate import LONG_S, Local
from cirri.datapath.store import Record, free_number
from cirri.engine.origin import built_in
from cirri.labels import Reserved
from cirri.layout import EndpointFlag, address16
from cirri.layout.mirror import NO_ADDRESS
from cirri.maps import MapFull
from cirri.model import Direction, Origin, Rule, SubjectPolicy
from cirri.model.policy import ANY_PEER

ALLOW_BUS = built_in("allow-bus")
"""The node's own connection to the bus, and the other nodes' where the bus runs here."""
NODES = "nodes"
"""Key of the built-in selector of all other nodes."""
ALLOW_OVERLAY = built_in("allow-overlay")
"""The tunnels between nodes."""
TCP, UDP = 6, 17
LAST_NUMBER = 65535
"""Pods get theirs from 1 upwards, the node from the other end."""


class Uplink(NamedTuple):
    """The device that the node's own traffic is judged at."""

    ifindex: int = 0
    name: str = ""
    mac: str = "00:00:00:00:00:00"


@dataclass(slots=True)
class Firewall:
    """What switching the host firewall needs of the machine."""

    uplink: Uplink
    bus: BusPlace
    remember: Callable[[], object] = lambda: None
    """Tell programs which connections the node has."""


class HostEndpoint:
    """Keeps the node under the policy of its host form, or under none."""

    def __init__(
        self,
        enforcer: Enforcer,
        switches: Switches,
        provisional: Provisional,
        firewall: Firewall,
        *,
        config: Callable[[], Config],
        changed: Callable[[Local], None],
        removed: Callable[[int], None],
    ) -> None:
        self.enforcer, self.switches, self.provisional = enforcer, switches, provisional
        self.policies, self.book, self.views = enforcer.policies, enforcer.book, enforcer.views
        self.firewall, self._config = firewall, config
        self._changed, self._removed = changed, removed
        self.record: Record | None = None
        """What is known of it, also while the firewall is off."""
        self.local: Local | None = None
        """It, while the firewall is on."""
        self.restored = ""
        """Why an earlier policy is in force, as a sentence."""
        self._fault = ""
        self._waits_for, self._since = "", 0.0
        self.tunnel_port = 0
        """UDP port of the tunnels between nodes; 0: there are none."""
        self._installed: tuple[SubjectPolicy, tuple[str, ...], int] | None = None
        enforcer.kept = provisional.keys
        enforcer.built_in[NODES] = self._nodes

    @property
    def behind(self) -> bool:
        """Whether another policy than that of the tables is in force, or none."""
        return bool(self._fault or self._waits_for or (self.local is not None and self.local.fault))

    def faults(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = [self.restored, self._fault]
        if self._waits_for and time.monotonic() > self._since + LONG_S:
            found.append(f"the host firewall waits for {self._waits_for}")
        if self.local is not None and self.local.fault:
            found.append(f"the node's own policy: {self.local.fault}")
        return [sentence for sentence in found if sentence]

    @property
    def feature(self) -> str:
        """As ``cirri status`` shows it."""
        return f"Enabled [{self.firewall.uplink.name}]" if self.switches.host_firewall else "Disabled"

    @property
    def due(self) -> bool:
        """Whether the time of the policy in force is over."""
        policy = self.enforcer.realized.get(Reserved.HOST)
        return policy is not None and self.provisional.expired(policy, time.time())

    def adopt(self, record: Record) -> None:
        """Go on with what the file says, and with what the process before left in the kernel."""
        self.record = record
        found = self.policies.sets.get(Reserved.HOST)
        if self.switches.host_firewall and found is not None:
            self.local = Local(record, self.firewall.uplink.ifindex, "ready", waits_for="")
            self.local.enforced = found.flags
            self.local.realized.set()

    def audit(self, audit: bool | None) -> None:
        """Have what the node's policy drops pass, or not, from the next step on; None: as the
        configuration says."""
        if self.local is not None:
            self.record = self.local.record = replace(self.local.record, audit=audit)
            self._changed(self.local)

    def step(self, used: Iterable[int] = ()) -> bool:
        """Bring the node as far as the tables allow; True if that changed a verdict.

        *used*: numbers of other endpoints.
        """
        if not self.book.numbers.ready:
            return False
        if not self._config().engine.host_firewall:
            return self._off()
        self._fault = ""
        if not self.firewall.uplink.ifindex:
            self._fault = "the host firewall has no device to work at: set CIRRI_UPLINK to its name"
            return False
        policy = self._policy()
        if policy is None:
            return False
        try:
            return self._on(policy, used)
        except MapFull as error:
            self._fault = f"the host firewall is not as it should be: {error}"
            return True

    def _policy(self) -> SubjectPolicy | None:
        """The policy to put in force; None: it is not known yet."""
        number = self.book.host()
        entry = self.views.policies.get(str(number)) if number else None
        said = entry.subject if entry is not None else None
        if said is not None and self.provisional.expired(said, time.time()):
            until = datetime.fromtimestamp(said.confirm_by, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self.restored = f"nobody confirmed the node's policy by {until}: the one before it is in force"
            self._wait_for("")
            for key in self.provisional.keys() - self.enforcer.sets.keys() - self.views.selectors.keys():
                self.enforcer.sets[key] = self.provisional.selected(key)
            return self.provisional.before(said)
        computed = self.enforcer.computed(number)
        self._wait_for(computed.missing(number))
        if computed.policy is not None:
            self.restored = ""
        return computed.policy

    def _on(self, policy: SubjectPolicy, used: Iterable[int]) -> bool:
        touched, own = False, self.book.numbers.addresses
        given = policy, own, self.tunnel_port
        if given != self._installed or Reserved.HOST not in self.enforcer.realized:
            whole = with_overlay(with_bus(policy, self.firewall.bus, own), self.tunnel_port)
            touched = self.enforcer.install(Reserved.HOST, whole)
            self._installed = given
            if not self.restored:
                self.provisional.in_force(policy, self.enforcer.sets)
        before = _public(self.local)
        local = self._endpoint(used)
        touched |= self._lead(local)
        if not self.switches.host_firewall:
            self.firewall.remember()
            self.switches.host_firewall = touched = True
        local.enforced, local.fault, local.conflict = self.enforcer.standing(Reserved.HOST)
        local.state = "ready"
        if before != _public(local):
            self._changed(local)
        return touched

    def _endpoint(self, used: Iterable[int]) -> Local:
        """The node's record as it is now."""
        uplink, numbers = self.firewall.uplink, self.book.numbers
        record = self.record or Record(
            id=free_number(set(used), LAST_NUMBER - 1),
            container="",
            ifname="",
            netns="",
            namespace="",
            pod="",
            interface=uplink.name,
            mac=uplink.mac,
            node_mac=uplink.mac,
            complete=True,
        )
        self.record = replace(
            record,
            interface=uplink.name,
            mac=uplink.mac,
            node_mac=uplink.mac,
            labels=tuple(sorted(numbers.host_labels())),
            identity=self.enforcer.realized[Reserved.HOST].identity,
        )
        if self.local is None:
            self.local = Local(self.record, uplink.ifindex, waits_for="")
            self.local.realized.set()
        self.local.record, self.local.ifindex = self.record, uplink.ifindex
        audit = self.record.audit
        self.local.audited = self._config().engine.audit if audit is None else audit
        return self.local

    def _lead(self, local: Local) -> bool:
        """Let the node's addresses, and what it has besides, be under its policy."""
        value = replace(local.value, flags=int(local.value.flags | EndpointFlag.HOST))
        wanted = {address16(each) for each in self.book.numbers.addresses} | {NO_ADDRESS}
        touched = False
        for address in wanted:
            touched |= self.policies.put_endpoint(address, self.policies.under(Reserved.HOST, value))
        for address in self._addresses() - wanted:
            touched |= self.policies.drop_endpoint(address)
        return touched

    def _off(self) -> bool:
        self._fault = self.restored = ""
        self._wait_for("")
        if not (self.switches.host_firewall or self.local or Reserved.HOST in self.policies.sets):
            return False
        self.switches.host_firewall = False
        for address in self._addresses():
            self.policies.drop_endpoint(address)
        self.enforcer.leave(Reserved.HOST)
        if self.local is not None:
            self._removed(self.local.record.id)
            self.local = None
        return True

    def _addresses(self) -> set[bytes]:
        """Those under which the node stands in the kernel."""
        found = self.policies.endpoints.items()
        return {address for address, value in found if value.flags & EndpointFlag.HOST}

    def _nodes(self) -> BitMap:
        return BitMap({Reserved.REMOTE_NODE, Reserved.KUBE_APISERVER}) | self.book.numbers.others()

    def _wait_for(self, what: str) -> None:
        if what != self._waits_for:
            self._waits_for, self._since = what, time.monotonic()


def _public(local: Local | None) -> tuple[object, ...]:
    """What others see of it, and the file."""
    return () if local is None else (local.record, local.state, local.enforced, local.error, local.audited)


def with_bus(policy: SubjectPolicy, bus: BusPlace, own: Iterable[str]) -> SubjectPolicy:
    """*policy*, but the node reaches the bus, and the other nodes do where the bus is one of its *own*
    addresses.  Rules that deny it hold on."""
    origins = (ALLOW_BUS.cookie,)
    rules = {"egress": Rule(selector=ANY_PEER, protocol=TCP, port=bus.port, origins=origins)}
    if bus.among(own):
        rules["ingress"] = Rule(selector=NODES, protocol=TCP, port=bus.port, origins=origins)
    return _besides(policy, rules, ALLOW_BUS)


def with_overlay(policy: SubjectPolicy, port: int) -> SubjectPolicy:
    """*policy*, but tunnels on UDP *port* (0: there are none) pass between nodes.  Rules that deny it hold
    on."""
    if not port:
        return policy
    rule = Rule(selector=NODES, protocol=UDP, port=port, origins=(ALLOW_OVERLAY.cookie,))
    return _besides(policy, {"ingress": rule, "egress": rule}, ALLOW_OVERLAY)


def _besides(policy: SubjectPolicy, rules: Mapping[str, Rule], origin: Origin) -> SubjectPolicy:
    """*policy* with one more rule in the directions that are enforced."""
    sides = {}
    for name, rule in rules.items():
        for field in (name, f"audit_{name}"):
            side: Direction | None = getattr(policy, field)
            if side is not None and side.enforced:
                sides[field] = replace(side, rules=(*side.rules, rule))
    return replace(policy, **sides, origins=(*policy.origins, origin))
