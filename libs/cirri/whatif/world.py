"""A cluster that exists only as manifests: everybody's identity and everybody's policy.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from ipaddress import ip_network

from msgspec.structs import replace
from pyroaring import BitMap

from cirri.engine import CONTEXT_KINDS, INGRESS, KINDS, Compiler, Entries, Verdict, entries, verdict
from cirri.engine.l7 import Answer, Request, answer, covering
from cirri.errors import CirriError
from cirri.labels import (
    RESERVED_LABELS,
    Reserved,
    api_server_labels,
    canonical,
    prefix_labels,
    probes,
    reserved_number,
    world_label,
)
from cirri.model import Origin, Resource, SubjectPolicy
from cirri.model.resource import AUDIT_MODE
from cirri.whatif.party import Address, Party, Setting, parties
from cirri.whatif.port import Port


class SameName(CirriError):
    """Two parties have one name, so nobody can tell of whom an answer speaks."""

    hint = "Give each endpoint a name of its own"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f'"{name}" names two endpoints')


class Contradiction(CirriError):
    """Policies that are right one by one cannot hold together."""

    hint = "On a cluster the endpoint would keep the policy it had before"

    def __init__(self, errors: dict[str, str]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{name}: {error}" for name, error in errors.items()))


class World:
    """Everybody that *resources* and *extra* make, under the policies among *resources*.

    Who has policies that contradict each other has no answer: asking raises :class:`Contradiction`.  With
    *isolated* nothing but what is built in may pass, as for an endpoint that is new on a cluster.
    """

    def __init__(
        self,
        resources: Sequence[Resource],
        setting: Setting,
        extra: Iterable[Party] = (),
        *,
        isolated: bool = False,
    ) -> None:
        self.setting = setting
        self.isolated = isolated
        self.parties: dict[str, Party] = {}
        for one in _settled([*parties(resources, setting), *extra]):
            if one.name in self.parties:
                raise SameName(one.name)
            self.parties[one.name] = one
        self._numbers: dict[frozenset[str], int] = {}
        self._labels: dict[int, frozenset[str]] = {}
        subjects = {reserved_number(one.labels) for one in self.parties.values() if self.has_policy(one)}
        self.compiler = Compiler(setting.config, subjects=subjects - {0})
        for resource in resources:
            if resource.kind in (*CONTEXT_KINDS, *KINDS):
                self.compiler.update_resource(resource)
        for one in self.parties.values():
            if one.outside is None:
                self._identity(one.labels)
                self._identity(one.remote or one.labels)
        self.compiler.flush()
        self._prefixes = {ip_network(text) for one in self.compiler.sets.values() for text in one.prefixes}
        """What policies tell apart: addresses with the same longest one have one identity."""
        for prefix in self._prefixes:
            self._identity(frozenset(prefix_labels(prefix)))
        for one in self.parties.values():
            self.number(one)
        self.compiler.flush()
        self.watched = frozenset(_watched(resources))
        """Kind, namespace and name of the objects in audit mode: what they would change is only reported."""
        self._like: dict[int, int] = {}
        self._first: dict[SubjectPolicy, int] = {}
        self._entries: dict[tuple[int, bool], Entries] = {}
        self._verdicts: dict[tuple[int, ...], Verdict] = {}
        self._origins: dict[int, dict[int, Origin]] = {}
        self._objects: dict[tuple[int, int, bool], list[Origin]] = {}
        self.contradictions = {one.name: policy.error for one, policy in self._policies() if policy.error}
        """Whose policies contradict each other, and how."""

    def has_policy(self, party: Party) -> bool:
        """Whether *party* is under policy itself, and not only somebody's peer."""
        return party.role == "endpoint" or (party.role == "node" and self.setting.config.host_firewall)

    def number(self, party: Party, by: Party | None = None) -> int:
        """The identity of *party*, in the eyes of *by*: a node is another to its own pods."""
        if party.outside is not None:
            return self._identity(self._outside(party.labels, party.outside))
        away = by is not None and by.node != party.node
        return self._identity(party.remote if away and party.remote is not None else party.labels)

    def labels(self, party: Party, by: Party | None = None) -> frozenset[str]:
        """Labels of the identity that *party* has, in the eyes of *by*."""
        return self._labels[self.number(party, by)]

    def policy(self, party: Party) -> SubjectPolicy:
        """What holds for *party*, which has a policy."""
        return self.compiler.policies[self.number(party)]

    def verdict(
        self, subject: Party, direction: int, peer: Party, port: Port, *, watched: bool = False
    ) -> Verdict:
        """What the policy of *subject* says about a connection with *peer*.

        *watched*: what it would say if the objects in audit mode counted.
        Raises :class:`Contradiction`.
        """
        if subject.name in self.contradictions and not self.isolated:
            raise Contradiction({subject.name: self.contradictions[subject.name]})
        numbers = self._rules(subject), self.number(peer, subject)
        asked = (*numbers, direction, *port, watched)
        if (found := self._verdicts.get(asked)) is None:
            policy = self._counting(subject, watched=watched)
            key = numbers[0], watched
            if key not in self._entries:
                self._entries[key] = entries(_whole(policy), self._sets)
            enforced = (policy.ingress if direction == INGRESS else policy.egress).enforced
            found = self._verdicts[asked] = verdict(
                self._entries[key], numbers[1], direction, *port, enforced=enforced, proxies=True
            )
        return found

    def answer(self, subject: Party, direction: int, peer: Party, port: Port, request: Request) -> Answer:
        """What the proxy to which the policy of *subject* sends the connection says about *request*."""
        number = self.number(peer, subject)
        selectors = {key for key, members in self._sets.items() if number in members}
        policy = self.policy(subject)
        half = policy.ingress if direction == INGRESS else policy.egress
        return answer(covering(half, selectors, *port), request, enforced=half.enforced)

    def origin(self, subject: Party, cookie: int) -> Origin | None:
        """Which rule of the policy of *subject* has *cookie*; None: no rule."""
        rules = self._rules(subject)
        if rules not in self._origins:
            self._origins[rules] = {one.cookie: one for one in self.policy(subject).origins}
        return self._origins[rules].get(cookie)

    def objects(self, subject: Party, direction: int, *, watched: bool = False) -> list[Origin]:
        """One origin of each object with rules for *direction* of *subject*; *watched*: as in a verdict."""
        asked = self._rules(subject), direction, watched
        if (found := self._objects.get(asked)) is None:
            section = re.compile(rf"(^|\.){'ingress' if direction == INGRESS else 'egress'}(Deny)?(\[|$)")
            by_object = {
                (one.kind, one.namespace, one.name): one
                for one in self.policy(subject).origins
                if section.search(one.section)
            }
            left_out = frozenset() if watched else self.watched
            found = [one for key, one in by_object.items() if key not in left_out]
            self._objects[asked] = found
        return found

    @cached_property
    def _lengths(self) -> dict[int, list[int]]:
        """Lengths of the prefixes that policies name, by IP version, longest first."""
        lengths: dict[int, set[int]] = {4: set(), 6: set()}
        for one in self._prefixes:
            lengths[one.version].add(one.prefixlen)
        return {version: sorted(found, reverse=True) for version, found in lengths.items()}

    @cached_property
    def _sets(self) -> dict[str, BitMap]:
        return {key: BitMap.deserialize(one.identities) for key, one in self.compiler.sets.items()}

    def _policies(self) -> Iterator[tuple[Party, SubjectPolicy]]:
        for one in self.parties.values():
            if self.has_policy(one):
                yield one, self.policy(one)

    def _rules(self, subject: Party) -> int:
        """The same number for everybody who is under the same rules as *subject*."""
        number = self.number(subject)
        if (found := self._like.get(number)) is None:
            rules = replace(self.compiler.policies[number], identity=0)
            found = self._like[number] = self._first.setdefault(rules, number)
        return found

    def _counting(self, subject: Party, *, watched: bool) -> SubjectPolicy:
        """The policy of *subject*; with *watched* what objects in audit mode would make of it."""
        policy = self.policy(subject)
        if not watched:
            return policy
        ingress, egress = policy.audit_ingress or policy.ingress, policy.audit_egress or policy.egress
        return replace(policy, ingress=ingress, egress=egress)

    def _outside(self, labels: frozenset[str], address: Address) -> frozenset[str]:
        """Labels of *address*: those of the longest prefix that a policy names; an API server has its own."""
        if str(address) in self.setting.api_servers or Reserved.KUBE_APISERVER.label in labels:
            return labels | frozenset(api_server_labels(str(address)))
        for length in self._lengths[address.version]:
            if (prefix := ip_network((address, length), strict=False)) in self._prefixes:
                return labels | frozenset(prefix_labels(prefix))
        return labels

    def _identity(self, labels: frozenset[str]) -> int:
        """The number of *labels*, which the compiler knows from now on."""
        if (number := self._numbers.get(labels)) is None:
            number = reserved_number(labels) or next(
                one for one in probes(canonical(labels)) if one not in self._labels
            )
            self._numbers[labels] = number
            self._labels[number] = labels
            if number not in RESERVED_LABELS:
                self.compiler.add_identity(number, canonical(labels))
        return number


def _whole(policy: SubjectPolicy) -> SubjectPolicy:
    """*policy* with entries for the allows of directions that are not enforced too.

    The kernel does without them: what they allow passes anyway.  Here they say which rule allows it.
    """
    ingress, egress = replace(policy.ingress, enforced=True), replace(policy.egress, enforced=True)
    return replace(policy, ingress=ingress, egress=egress)


def _watched(resources: Iterable[Resource]) -> Iterator[tuple[str, str, str]]:
    for one in resources:
        annotations = (one.manifest.get("metadata") or {}).get("annotations") or {}
        if AUDIT_MODE in annotations:
            yield one.kind, one.namespace, one.name


def _settled(known: Sequence[Party]) -> Iterator[Party]:
    """*known*; who gives nothing but an address that is another's is that one."""
    owners = {address: one for one in known if one.outside is None for address in one.addresses}
    for one in known:
        if one.outside is None or one.labels:
            yield one
        elif (owner := owners.get(one.outside)) is not None:
            yield owner._replace(name=one.name)
        else:
            yield one._replace(labels=frozenset((world_label(one.outside.version),)))
