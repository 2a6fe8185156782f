"""What happens to a packet (sections 2, 12, 15, 16, 20 and 26)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cirri.testing.oracle.ports import NO_PROXY, WHOLE, Redirect
from cirri.testing.oracle.sections import Item, Section, section
from cirri.testing.oracle.world import Seen, World, look, look_at_subject

AUTH = {"disabled": 0, "required": 1, "test-always-fail": 2}


class Answer(NamedTuple):
    """``allow``, or why not: ``drop/D`` (no rule allows it), ``drop/X`` (a rule denies it), ``drop/A`` (the
    two ends have to authenticate each other first)."""

    verdict: str
    redirect: str = ""
    """The kind of proxy that it goes through, if it is allowed."""

    def __str__(self) -> str:
        return f"{self.verdict} via {self.redirect}" if self.redirect else self.verdict


class Hit(NamedTuple):
    """An allow that covers the packet."""

    everybody: bool
    """It holds for any peer, by the wildcard."""
    specificity: int
    redirect: Redirect
    auth: int | None
    """None: it does not say."""


class Oracle:
    """Answers about one world.  What manifests say about a subject is read once.

    *here*: the node of the endpoints that are no pods (health, init).
    """

    def __init__(self, world: World, here: str) -> None:
        self.world, self.here = world, here
        self._sections: dict[tuple[str, str, bool], Section] = {}
        self._seen: dict[tuple[str, str], Seen] = {}

    def ask(
        self,
        subject: str,
        direction: str,
        peer: str,
        protocol: int,
        port: int,
        *,
        audit: bool = False,
    ) -> Answer:
        """What the policy of *subject* says about a new connection.

        Args:
            subject: a party of the world, see :class:`World`.
            direction: ``ingress`` or ``egress``.
            peer: a party of the world, or an address outside.
            protocol: IANA number.
            port: destination port, or ICMP type.
            audit: count objects in audit mode too: what would hold if they were in force.
        """
        world, config = self.world, self.world.config
        kind, _, name = subject.partition(":")
        host = kind == "node"
        if config.get("enable-policy") == "never" or (host and config.get("enable-host-firewall") != "true"):
            return Answer("allow")
        found = self._section(subject, direction, audit)
        forced = config.get("enable-policy") == "always" or subject == "reserved:init"
        if not found.said and not forced:
            return Answer("allow")
        where = name if host else world.pods[subject].node if subject in world.pods else self.here
        other = self._look(peer, where)
        names = self._look(subject, where).ports if direction == "ingress" else other.ports
        hits = []
        for item in found.items:
            for specificity, redirect in _covering(item, protocol, port, names):
                if item.peers.test(other):
                    if item.deny:
                        return Answer("drop/X")
                    hits.append(Hit(item.peers.everybody, specificity, redirect, AUTH.get(item.auth)))
        localhost = config.get("allow-localhost", "auto") != "policy"
        if direction == "ingress" and other.has("reserved", "host") and not host and localhost:
            hits.append(Hit(False, WHOLE, NO_PROXY, AUTH["disabled"]))
        if not (forced or found.default_deny):
            hits.append(Hit(True, WHOLE, NO_PROXY, None))
        if not hits:
            return Answer("drop/D")
        if _auth(hits):
            return Answer("drop/A")
        return Answer("allow", min(hits, key=lambda hit: hit.redirect.rank).redirect.kind)

    def _section(self, subject: str, direction: str, audit: bool) -> Section:
        key = (subject, direction, audit)
        if key not in self._sections:
            party = look_at_subject(self.world, subject)
            self._sections[key] = section(self.world, party, direction, audit=audit)
        return self._sections[key]

    def _look(self, party: str, viewpoint: str) -> Seen:
        key = (party, viewpoint)
        if key not in self._seen:
            self._seen[key] = look(self.world, party, viewpoint)
        return self._seen[key]


def _covering(
    item: Item, protocol: int, port: int, names: Mapping[tuple[str, str], int]
) -> Iterator[tuple[int, Redirect]]:
    """(specificity, redirect) of each way in which the ports of *item* cover the packet."""
    if item.ports is None:
        yield WHOLE, NO_PROXY
    for each in item.ports or ():
        specificity = each.specificity(protocol, port, names)
        if specificity is not None:
            yield specificity, each.redirect


def _auth(hits: list[Hit]) -> bool:
    """Whether the two ends must authenticate each other before the packet passes.

    The entry that decides is found as in section 15: a stronger redirect hides what it covers,
    then the closer entry counts, then the one that names the peer.  If it does not say, it inherits
    from the next broader one of the same peer, and the stricter of the two candidates holds.
    """
    if not any(hit.auth for hit in hits):
        return False
    merged: dict[tuple[bool, int], tuple[int, int | None]] = {}
    for hit in hits:
        rank, auth = merged.get((hit.everybody, hit.specificity), (NO_PROXY.rank, None))
        said = [each for each in (auth, hit.auth) if each is not None]
        merged[hit.everybody, hit.specificity] = min(rank, hit.redirect.rank), max(said, default=None)
    shown = {
        (everybody, specificity): (rank, auth)
        for (everybody, specificity), (rank, auth) in merged.items()
        if not any(
            stronger < rank and other <= specificity and wild in {True, everybody}
            for (wild, other), (stronger, _) in merged.items()
        )
    }
    candidates = []
    for side in (False, True):
        own, inherited = None, 0
        entry = None
        for (everybody, specificity), (rank, auth) in sorted(shown.items()):
            if everybody == side:
                own, inherited = auth, inherited if auth is None else auth
                entry = (rank, -specificity, side)
        if entry:
            candidates.append((entry, own, inherited))
    _, own, _ = min(candidates)
    return bool(own if own is not None else max(inherited for _, _, inherited in candidates))
