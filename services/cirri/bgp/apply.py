"""Have a speaker be what it is to be: look what it is, tell it the difference.  An edge."""

from __future__ import annotations

from dataclasses import dataclass

from cirri.bgp.encoding import Seen, statement_names
from cirri.bgp.gobgp import GoBGP
from cirri.bgp.speaker import Profile, Speaker, marker
from cirri.loadbalancer.endpoints import version_of

VERSIONS = (4, 6)


@dataclass(slots=True)
class Applied:
    """What an application has changed."""

    started: bool = False
    peers: int = 0
    announced: int = 0
    withdrawn: int = 0

    def __bool__(self) -> bool:
        return bool(self.started or self.peers or self.announced or self.withdrawn)


class Application:
    """Remembers the routes of one GoBGP, only as long as its counts agree; a new one is asked for all."""

    def __init__(self, gobgp: GoBGP) -> None:
        self._gobgp = gobgp
        self._own: dict[str, Seen] | None = None
        self._others = 0

    def forget(self) -> None:
        """Ask the speaker for everything next time."""
        self._own = None

    async def apply(self, wanted: Speaker | None, *, restarting: bool) -> Applied:
        """Tell the speaker what it lacks.  *restarting*: peers have routes of this node.

        Routes come before peers: to one that kept them over a restart everything is said in one go, and
        what it does not hear again has really gone.
        """
        done = Applied()
        is_now = await self._gobgp.bgp()
        if wanted is None:
            if is_now.asn:
                await self._gobgp.stop()
                self.forget()
                done.started = True
            return done
        mine = (wanted.asn, wanted.router_id, max(wanted.listen_port, 0))
        if is_now.asn and (is_now.asn, is_now.router_id, max(is_now.listen_port, 0)) != mine:
            await self._gobgp.stop()  # which tells peers to forget
            is_now.asn, restarting = 0, False
        if not is_now.asn:
            await self._gobgp.start(wanted.asn, wanted.router_id, wanted.listen_port, wanted.listen_addresses)
            self.forget()
            done.started = True
        elif not await self._gobgp.rejects():
            # Begun and left half-way, or changed by somebody else: begin anew.
            await self._gobgp.stop()
            self.forget()
            return await self.apply(wanted, restarting=False)
        await self._routes(wanted, done)
        await self._peers(wanted, done, restarting=restarting and done.started)
        return done

    async def _routes(self, wanted: Speaker, done: Applied) -> None:
        profiles = set(wanted.routes.values())
        own = await self._known()
        numbers: dict[Profile, tuple[int, int]] = {each: marker(each) for each in profiles}
        target = {
            prefix: Seen(wanted.next_hops[version_of(prefix)], numbers[profile])
            for prefix, profile in wanted.routes.items()
        }
        put = {prefix: seen for prefix, seen in target.items() if own.get(prefix) != seen}
        gone = own.keys() - target.keys()
        names = statement_names(profiles)
        has = await self._gobgp.statements()
        stale = [each for name, each in has.items() if name not in names]
        if not names <= has.keys():
            # Those in use stay until their routes have moved: a withdrawal asks who was told.
            await self._gobgp.set_profiles(profiles, stale)
        if put or gone:
            self._own = None
            await self._gobgp.announce(put, gone)
            self._own = target
            done.announced, done.withdrawn = len(put), len(gone)
        if stale:
            await self._gobgp.set_profiles(profiles)

    async def _known(self) -> dict[str, Seen]:
        """The speaker's own routes; asked for one by one only if it does not have as many as it should."""
        counted = sum([await self._gobgp.count(version) for version in VERSIONS])
        if self._own is None or counted != len(self._own) + self._others:
            found: dict[str, Seen] = {}
            for version in VERSIONS:
                found |= await self._gobgp.own(version)
            self._own, self._others = found, counted - len(found)
        return self._own

    async def _peers(self, wanted: Speaker, done: Applied, *, restarting: bool) -> None:
        there = {each.conf.neighbor_address: each.conf.description for each in await self._gobgp.peers()}
        asked = {peer.address: peer for peer in wanted.peers}
        for address, mark in there.items():
            if address in wanted.held or (address in asked and asked[address].mark == mark):
                continue
            await self._gobgp.delete_peer(address)
            done.peers += 1
        for address, peer in asked.items():
            if there.get(address) != peer.mark:
                await self._gobgp.add_peer(peer, restarting=restarting)
                done.peers += 1
