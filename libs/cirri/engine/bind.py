"""From what an object says to what it means among other objects and for one subject.

:func:`bind` replaces names of other objects by peers, and ports by name in egress by the numbers that pods
give them; :func:`for_subject` does what depends on the subject: ports by name in ingress, and requirements
that rules of several objects make together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cirri.engine.cidr import prefix_selector
from cirri.engine.context import Context, names_of
from cirri.engine.ports import PROTOCOL_NAMES
from cirri.engine.rule import GroupReference, ObjectRule, Ports, Section, Term
from cirri.engine.scope import service_peer
from cirri.engine.select import Requirement, Selector, require
from cirri.labels import PORT, port_label

Numbers = Callable[[str], Iterable[str]]
"""The numbers that pods give to a port by name (key of its label, ``tcp/http``)."""


def port_key(ports: Ports) -> str:
    """Key of the label that says which number a pod gives to *ports*, which are a name."""
    return port_label(PROTOCOL_NAMES[ports.protocol], ports.name).removeprefix(f"{PORT}:")


def names(rule: ObjectRule) -> set[str]:
    """What the meaning of *rule* depends on: it must be bound anew when one of them changes."""
    found = {name for term in _terms(rule) for name in names_of(term.refers)}
    egress = (ports for term in rule.egress.terms for ports in term.ports or () if ports.name)
    return found | {port_name(port_key(ports)) for ports in egress}


def port_name(key: str) -> str:
    """As one of :func:`names`: the port by name with label *key*."""
    return f"port {key}"


def ingress_ports(rule: ObjectRule) -> set[str]:
    """Keys of the ports by name that *rule* lets in or keeps out."""
    return {port_key(one) for term in rule.ingress.terms for one in term.ports or () if one.name}


def bind(rule: ObjectRule, context: Context, numbers: Numbers) -> ObjectRule:
    """*rule* among the objects of *context*, while pods give their ports *numbers*."""
    if not names(rule):
        return rule
    ingress = [bound for term in rule.ingress.terms for bound in _referred(term, context)]
    egress = [
        bound
        for term in rule.egress.terms
        for each in _referred(term, context)
        for bound in _numbered(each, numbers)
    ]
    return replace(
        rule,
        ingress=replace(rule.ingress, terms=tuple(ingress)),
        egress=replace(rule.egress, terms=tuple(egress)),
    )


def _terms(rule: ObjectRule) -> Iterator[Term]:
    yield from rule.ingress.terms
    yield from rule.egress.terms


def _referred(term: Term, context: Context) -> Iterator[Term]:
    """*term* with the peers that it refers to; none where those mean nobody now."""
    if not term.refers:
        yield term
        return
    addresses = list(term.peers or ())
    pods: list[Selector] = []
    for reference in term.refers:
        if isinstance(reference, GroupReference):
            addresses.append(context.group_selector(reference))
            continue
        for service in context.services(reference):
            if service.selector:
                pods.append(service_peer(service.selector, service.namespace, reference.cluster))
            else:
                addresses.append(prefix_selector(context.addresses(service)))
    for peers, endpoints in ((addresses, False), (pods, True)):
        known = tuple(dict.fromkeys(each for each in peers if each.alternatives))
        if known:
            yield replace(term, peers=known, refers=(), endpoints=endpoints)


def _numbered(term: Term, numbers: Numbers) -> Iterator[Term]:
    """*term* with a number for each port by name: the peers that give it this number."""
    named = [one for one in term.ports or () if one.name]
    if not named:
        yield term
        return
    if plain := tuple(one for one in term.ports or () if not one.name):
        yield replace(term, ports=plain)
    for one in named:
        key = port_key(one)
        for number in sorted(numbers(key), key=int):
            owns = [require(PORT, key, "In", [number])]
            peers = [Selector.of([])] if term.peers is None else term.peers
            yield replace(
                term,
                peers=tuple(each.narrowed(owns) for each in peers),
                ports=(Ports(one.protocol, int(number)),),
            )


def for_subject(rules: Sequence[ObjectRule], ports: Mapping[str, str]) -> list[ObjectRule]:
    """*rules*, which select one subject, as they hold for it; *ports* are its own by name (``tcp/http``)."""
    narrowing = {
        (direction, deny): tuple(_requires(rules, direction, deny=deny))
        for direction in ("ingress", "egress")
        for deny in (False, True)
    }
    if not any(narrowing.values()) and not any(ingress_ports(rule) for rule in rules):
        return list(rules)

    def section(known: Section, direction: str) -> Section:
        own = ports if direction == "ingress" else {}
        terms = [_own_ports(_narrowed(term, narrowing[direction, term.deny]), own) for term in known.terms]
        return replace(known, terms=tuple(term for term in terms if term.ports != ()))

    return [
        replace(rule, ingress=section(rule.ingress, "ingress"), egress=section(rule.egress, "egress"))
        for rule in rules
    ]


def _requires(rules: Sequence[ObjectRule], direction: str, *, deny: bool) -> Iterator[Requirement]:
    for rule in rules:
        section = rule.ingress if direction == "ingress" else rule.egress
        yield from section.deny_requires if deny else section.requires


def _narrowed(term: Term, further: tuple[Requirement, ...]) -> Term:
    if not further or not term.endpoints or term.peers is None:
        return term
    return replace(term, peers=tuple(each.narrowed(further) for each in term.peers))


def _own_ports(term: Term, own: Mapping[str, str]) -> Term:
    """*term* with the subject's numbers for ports by name; a name that it does not have is no port."""
    if not any(one.name for one in term.ports or ()):
        return term
    found = []
    for one in term.ports or ():
        number = own.get(port_key(one)) if one.name else None
        if not one.name:
            found.append(one)
        elif number is not None:
            found.append(Ports(one.protocol, int(number)))
    return replace(term, ports=tuple(found))
