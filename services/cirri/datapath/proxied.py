"""What the node's proxies do for the policies in force, and what they are told of these."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pyroaring import BitMap

from cirri.datapath.led import Led
from cirri.datapath.listeners import RETIRED_S, Listeners
from cirri.datapath.names import Names
from cirri.engine.entries import EGRESS, INGRESS, Entries, EntryKey
from cirri.engine.names import entry_of
from cirri.engine.redirects import LISTENERS, Expansion, Wanted, dns_grants
from cirri.labels import Reserved
from cirri.layout import EndpointFlag
from cirri.model import SubjectPolicy
from cirri.model.policy import ANY_PEER
from cirri.proxies import DNS_PORT, DnsRule, NameSelector, NodeProxies, ProxyEndpoint, Serving

WAIT_S = 2.0
"""How long a policy waits for its listeners before it is put in force without them."""
FORGOTTEN_S = 60.0
"""How long after that a policy is remembered that nobody came under."""
TRIED = 1
"""The port of redirects that are only tried out: nobody is sent there, but they let pass."""
SETTINGS = ("tofqdns-", "dnsproxy-", "http-", "proxy-")
"""What keys of the configuration begin with that proxies are told."""


class _Awaited(NamedTuple):
    """A policy that is not in force yet."""

    policy: SubjectPolicy
    wanted: frozenset[Wanted]
    until: float
    """Seconds of the monotonic clock."""


class Proxied:
    """Listeners and numbers of names of this node, for the policies that redirect."""

    def __init__(self, state_dir: Path, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """*begin* is called before the first redirect is written, *end* long after the last one."""
        self.listeners = Listeners(state_dir / "listeners", time.time)
        self.names = Names(state_dir / "names")
        self._begin, self._end = begin, end
        self._led: dict[int, Led] = {}
        """By identity."""
        self._lost: dict[int, dict[Wanted, list[EntryKey]]] = {}
        """By identity, what entries made anew lead to no more."""
        self._unread = {one.subject for one in self.listeners.all()}
        """Identities whose entries are still those of the process before."""
        self._awaited: dict[int, _Awaited] = {}
        self._served: set[int] = set()
        self._told: dict[int, tuple[tuple[DnsRule, ...], tuple[NameSelector, ...]]] = {}
        """What proxies are told of the policies of identities, as far as that holds still."""
        self._used = time.monotonic()

    # waiting -------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a policy waits for its listeners."""
        return bool(self._awaited)

    def listens(self, identity: int, policy: SubjectPolicy, wanted: Callable[[], Iterable[Wanted]]) -> bool:
        """Whether the listeners *wanted* for *policy* are there, or were waited for long enough."""
        if not any(rule.redirect in LISTENERS for rule in (*policy.ingress.rules, *policy.egress.rules)):
            self._awaited.pop(identity, None)
            return True
        known = self._awaited.get(identity)
        if known is None or known.policy is not policy:
            needed = frozenset(one for one in wanted() if one.kind in LISTENERS)
            # However often it changes, the policy before it holds no longer than that.
            until = known.until if known is not None else time.monotonic() + WAIT_S
            known = self._awaited[identity] = _Awaited(policy, needed, until)
        return not self.listeners.announce(identity, known.wanted) or time.monotonic() > known.until

    def serving(self, report: Serving) -> None:
        """Take note of which listeners really listen."""
        self._served |= self.listeners.serving(report.ports, report.failed)

    def unheard(self, peer: int) -> bool:
        """Whether entries about *peer* wait for listeners."""
        return any(
            to.kind in LISTENERS and not self.listeners.port(identity, to)
            for identity, led in self._led.items()
            for to in led.of(peer)
        )

    def served(self) -> set[int]:
        """Identities whose entries may have ports now, since the last call."""
        found, self._served = self._served, set()
        return found

    # entries -------------------------------------------------------------------------

    def ported(self, identity: int, made: Expansion, only: Iterable[int] | None = None) -> Entries:
        """Entries of *made* with the ports of their listeners, as far as these listen; *only*: those peers'
        were made."""
        led = self._led.get(identity)
        if not made.redirects and led is None:
            return made.entries
        if led is None:
            led = self._led[identity] = Led()
        self._lost[identity] = led.take(made.redirects, only)
        self._begin()
        self.listeners.announce(identity, (to for to in made.redirects.values() if to.kind in LISTENERS))
        entries = dict(made.entries)
        for key, to in made.redirects.items():
            # Programs redirect what pods send; what the node itself sends could only pass unread.
            dns_port = DNS_PORT if identity != Reserved.HOST else 0
            port = self.listeners.port(identity, to) if to.kind in LISTENERS else dns_port
            entries[key] = entries[key]._replace(proxy_port=port)
        return entries

    def leading(self, identity: int, entries: Entries) -> dict[Wanted, list[EntryKey]] | None:
        """Which of *entries*, which are about to be replaced, lead to what nothing will lead to any more;
        None: there is nothing to :meth:`settle`."""
        lost = self._lost.pop(identity, {})
        if identity not in self._unread:
            return lost if identity in self._led or self.listeners.has(identity) else None
        self._unread.discard(identity)
        ports = {one.port: one.wanted for one in self.listeners.all() if one.subject == identity}
        for key, value in entries.items():
            if value.proxy_port in ports:
                lost.setdefault(ports[value.proxy_port], []).append(key)
        return lost

    def settle(
        self, identity: int, policy: SubjectPolicy, entries: Entries, led: Mapping[Wanted, list[EntryKey]]
    ) -> None:
        """*entries* are in force, where those of *led* led to listeners before."""
        awaited = self._awaited.get(identity)
        if awaited is not None and awaited.policy is policy:
            del self._awaited[identity]
            awaited = None
        now = self._led.get(identity) or Led()
        wanted = {*now.wanted, *(awaited.wanted if awaited else ())}
        enforced = {INGRESS: policy.ingress.enforced, EGRESS: policy.egress.enforced}
        self.listeners.retain(identity, wanted, entries, led, enforced=enforced)
        if not now:
            self._led.pop(identity, None)

    def leave(self, identity: int) -> None:
        """No endpoint has *identity* any more."""
        self._led.pop(identity, None)
        self._awaited.pop(identity, None)
        self._told.pop(identity, None)
        self.listeners.drop(lambda one: one.subject == identity)

    def forget(self, identity: int, *, moved: bool = False) -> None:
        """What proxies are told of *identity* must be made anew; *moved*: only members have changed."""
        if not moved or self._told.get(identity, ((), ()))[0]:
            self._told.pop(identity, None)

    def tidy(self, spoken_of: Iterable[str], subjects: Collection[int], *, certain: bool) -> set[str]:
        """Forget what has long been of no use; selectors whose members changed by that.

        *spoken_of*: keys of the selectors in force; *subjects*: identities under a policy here; *certain*:
        every policy is known.
        """
        now = time.monotonic()
        # Who waits is soon under its policy, or its pod has gone meanwhile.
        self._awaited = {n: one for n, one in self._awaited.items() if now < one.until + FORGOTTEN_S}
        kept = {*subjects, *self._awaited}
        self.listeners.drop(lambda one: one.subject not in kept)
        self.listeners.expire()
        if self._led or self.listeners.all() or not certain:
            self._used = now
        elif now > self._used + RETIRED_S:
            self._end()
        return self.names.prune(frozenset(spoken_of), now) if certain else set()

    def faults(self) -> list[str]:
        """What is not as it should be, one sentence each."""
        awaited = {(number, one) for number, each in self._awaited.items() for one in each.wanted}
        return self.listeners.faults(awaited)

    # what proxies are told --------------------------------------------------------------

    def snapshot(
        self,
        *,
        node: str,
        endpoints: Iterable[ProxyEndpoint],
        policies: Mapping[int, SubjectPolicy],
        members: Callable[[str], BitMap],
        name: Callable[[str], str],
        settings: Mapping[str, str],
    ) -> NodeProxies:
        """Everything, with revision 0.  *members* and *name* are those of a selector in force."""
        dns: list[DnsRule] = []
        names: dict[int, tuple[NameSelector, ...]] = {}
        for identity in sorted(policies):
            if (told := self._told.get(identity)) is None:
                told = _rules(identity, policies[identity], members), _names(policies[identity], name)
                self._told[identity] = told
            dns += told[0]
            if told[1]:
                names[identity] = told[1]
        return NodeProxies(
            revision=0,
            node=node,
            endpoints=tuple(sorted(endpoints, key=lambda one: one.id)),
            listeners=tuple(one.listener for one in self.listeners.all()),
            dns=tuple(dns),
            names=names,
            sets=dict(sorted(self.names.sets.items())),
            settings={key: value for key, value in sorted(settings.items()) if key.startswith(SETTINGS)},
        )


def tried(made: Expansion) -> Entries:
    """Entries of *made* that are only tried out: their redirects let pass."""
    ported = {key: made.entries[key]._replace(proxy_port=TRIED) for key in made.redirects}
    return made.entries | ported if ported else made.entries


def names_flag(goals: Iterable[SubjectPolicy], name: Callable[[str], str]) -> EndpointFlag:
    """Whether endpoints under *goals* have to look for names."""
    named = any(rule.selector and name(rule.selector) for goal in goals for rule in goal.egress.rules)
    return EndpointFlag.NAMES if named else EndpointFlag(0)


def _rules(identity: int, policy: SubjectPolicy, members: Callable[[str], BitMap]) -> tuple[DnsRule, ...]:
    return tuple(
        DnsRule(
            subject=identity,
            protocol=one.protocol,
            port=one.port,
            peers=None if one.selector == ANY_PEER else members(one.selector).serialize(),
            entries=one.entries,
            any=one.any,
            cookie=one.cookie,
        )
        for one in dns_grants(policy)
    )


def _names(policy: SubjectPolicy, name: Callable[[str], str]) -> tuple[NameSelector, ...]:
    keys = sorted({rule.selector for rule in policy.egress.rules} - {ANY_PEER})
    return tuple(NameSelector(key=key, entry=entry_of(text)) for key in keys if (text := name(key)))
