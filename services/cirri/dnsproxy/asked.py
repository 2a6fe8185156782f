"""What people ask about names: ``cirri fqdn cache list|clean`` and ``cirri fqdn names``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec

from cirri.dnsproxy.facts import Facts, Gone, Record
from cirri.dnsproxy.matcher import Matcher
from cirri.dnsproxy.message import text
from cirri.engine.names import name_complaint
from cirri.layout.address import address_of
from cirri.model.request import LearntName, NameCacheReply, NameCacheRequest, NameUse, NameUsesReply
from cirri.proxies import NodeProxies

Note = Callable[[Callable[[], Iterable[Record]]], int]


def cache(facts: Facts, note: Note, request: NameCacheRequest) -> NameCacheReply:
    """Names that are like *request*; with ``clean`` they go from the facts by *note*."""
    if request.pattern and (wrong := name_complaint(request.pattern, pattern=True)):
        return NameCacheReply(error=wrong)
    entry = msgspec.json.encode({"matchPattern": request.pattern or "*"}).decode()
    like = Matcher([(entry, 0)])
    found = [
        (pod, name, known)
        for pod in facts.pods.values()
        if request.endpoint in (None, pod.id)
        for name, known in pod.names.items()
        if like.find(text(name))
    ]
    names = tuple(
        LearntName(
            endpoint=pod.id,
            pod=pod.who.partition(" ")[0],
            name=text(name),
            addresses=tuple((str(address_of(address)), until) for address, until in known.items()),
        )
        for pod, name, known in found
    )
    if request.clean:
        note(lambda: [Gone(pod.id, name, tuple(known)) for pod, name, known in found])
    return NameCacheReply(names=names)


def uses(facts: Facts, told: NodeProxies | None) -> NameUsesReply:
    """Every name selector of the node's policies, and what is known under it."""
    if told is None:
        return NameUsesReply()
    addresses: dict[str, set[bytes]] = defaultdict(set)
    for pod in facts.pods.values():
        for address, held in pod.held.items():
            for key in held.keys:
                addresses[key].add(address)
    subjects: dict[str, set[int]] = defaultdict(set)
    entries: dict[str, str] = {}
    for subject, selectors in told.names.items():
        for each in selectors:
            entries[each.key] = each.entry
            subjects[each.key].add(subject)
    return NameUsesReply(
        uses=tuple(
            NameUse(
                entry=entries[key],
                identities=tuple(sorted(subjects[key])),
                addresses=tuple(str(address_of(one)) for one in sorted(addresses[key])),
            )
            for key in sorted(entries, key=entries.__getitem__)
        )
    )
