"""Keys that Python builds are the keys that programs build."""

import struct
from itertools import product
from pathlib import Path

from cirri.layout import CtFlag, CtKey, address16
from cirri.maps import Objects, test_run

ADDRESSES = ("10.0.0.1", "10.0.0.2", "1.0.0.10", "fd00::1", "fd00::1:0:0:0:2", "fe80::1")
PORTS = (80, 0x5000, 256, 40000)
ENDS = struct.Struct("!16s16sHHB3x")


def test_connections_have_the_key_that_programs_give_them(objects: Path, bpffs: Path) -> None:
    ends = list(product(ADDRESSES, PORTS))
    with Objects.load(objects, bpffs, names=["shipped"]) as programs:
        for (source, source_port), (destination, destination_port) in product(ends, ends):
            packet = ENDS.pack(address16(source), address16(destination), source_port, destination_port, 6)
            run = test_run(programs["tc/key"], bytes(14) + packet)

            key = CtKey.of(source, source_port, destination, destination_port, 6)

            assert key.pack() == run.packet[14:]
            flags = CtFlag.FROM_HIGH if run.action else CtFlag(0)
            assert key.ends(flags)[0] == (address16(source), source_port)
