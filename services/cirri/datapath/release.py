"""UDP sockets that are connected to a backend that is gone: they fail, and who has them connects again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from cirri.datapath.grace import programs_ended
from cirri.layout import LbBackend, LbReverse, LbReverseKey, LbServiceKey
from cirri.maps import BpfMap
from cirri.netlink import NamespaceGone, inside, namespace
from cirri.netlink.sockets import End, end_udp

UDP = 17


def orphans(
    reverse: Mapping[LbReverseKey, LbReverse], kept: Mapping[LbServiceKey, frozenset[LbBackend]]
) -> frozenset[End]:
    """Sockets, with the backend each was given, that no frontend of *kept* lets keep it.

    TCP sockets may be among them, which notice by themselves.
    """
    found = []
    for key, front in reverse.items():
        frontend = LbServiceKey(address=front.address, port=front.port, protocol=UDP)
        if LbBackend(address=key.address, port=key.port) not in kept.get(frontend, ()):
            found.append((key.cookie, key.address, key.port))
    return frozenset(found)


def release(
    reverse: BpfMap[LbReverseKey, LbReverse],
    kept: Mapping[LbServiceKey, frozenset[LbBackend]],
    namespaces: Iterable[str],
) -> int:
    """End those sockets here and in *namespaces*, by path; how many there were.  Blocks.

    Raises:
        NetlinkRefused: the kernel cannot do that.
    """
    programs_ended()  # what a socket was given by the old list, it has by now
    ends = orphans(reverse.to_dict(), kept)
    if not ends:
        return 0
    count = end_udp(ends)
    for path in namespaces:
        with suppress(NamespaceGone), namespace(path) as fd:
            count += inside(fd, lambda: end_udp(ends))
    return count
