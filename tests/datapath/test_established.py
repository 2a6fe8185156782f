"""The kernel's tables of sockets, read; what is written from them continues where the connection is."""

import socket
import time

from cirri.datapath.established import Connection, End, connections, remember
from cirri.layout import CT, CtFlag, address16
from cirri.maps import open_pinned

from .test_kernel import pinned

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TCP4 = (
    HEAD
    + """\
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 026F1FAC:0016 016F1FAC:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 026F1FAC:9C40 016F1FAC:107E 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   3: 0100007F:9C41 0100007F:107E 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0 100 0 0 10 0
   4: 026F1FAC:9C42 016F1FAC:107E 06 00000000:00000000 00:00000000 00000000     0        0 5 1 0 100 0 0 10 0
"""
)
TCP6 = (
    HEAD
    + """\
   0: 0000000000000000FFFF0000026F1FAC:0016 0000000000000000FFFF0000016F1FAC:C351 08 0 0 0 0 0 0 6
   1: B80D0120000000000000000002000000:9C43 B80D0120000000000000000001000000:01BB 01 0 0 0 0 0 0 7
"""
)
NODE, PEER = "172.31.111.2", "172.31.111.1"
NODE6, PEER6 = "2001:db8::2", "2001:db8::1"


def end(address: str, port: int) -> End:
    from ipaddress import ip_address

    return End(ip_address(address), port)


def test_who_listens_did_not_open_the_connection() -> None:
    found = set(connections([TCP4, TCP6], [NODE, NODE6]))
    assert found == {
        Connection(end(PEER, 50000), end(NODE, 22)),
        Connection(end(PEER, 50001), end(NODE, 22)),
        Connection(end(NODE, 40000), end(PEER, 4222)),
        Connection(end(NODE6, 40003), end(PEER6, 443)),
    }


def test_a_real_connection_is_remembered_by_who_opened_it_and_known_ones_are_left_alone() -> None:
    with pinned() as bpffs, socket.create_server(("127.0.0.1", 0)) as server, open_pinned(bpffs, CT) as ct:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            assert remember(ct, ["127.0.0.1"], 7) >= 1
            ours = client.getsockname()
            (found,) = [(k, v) for k, v in ct.items() if ours[1] in (k.low_port, k.high_port)]
            key, value = found
            opener, other = key.ends(value.flags)
            assert (opener, other) == ((address16("127.0.0.1"), ours[1]), (address16("127.0.0.1"), port))
            assert value.epoch == 6
            assert value.flags & CtFlag.ESTABLISHED
            assert value.expires > time.monotonic_ns() + 3600 * 10**9
            ct.put(key, type(value)(epoch=99))
            remember(ct, ["127.0.0.1"], 8)
            assert ct[key].epoch == 99
