"""Masquerading in real maps, what of NAT's entries is over, and when it complains."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from cirri.addresses import Masquerading
from cirri.datapath.kernel import Kernel
from cirri.datapath.masquerade import Masquerade
from cirri.datapath.nat import NatTable, Pressure, stale
from cirri.layout import NAT, CtFlag, IpcacheKey, NatDirection, NatKey, NatValue, RuntimeFlag, address16
from cirri.layout.mirror import NO_ADDRESS
from cirri.maps import open_pinned

from .test_kernel import pinned

OWN = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")
POD, SERVER = address16("10.0.0.7"), address16("198.51.100.1")
NODE = address16(OWN[0])
TEN, LONG = ip_network("10.0.0.0/8"), ip_network("fd00::/8")


@pytest.fixture
def bpffs() -> Iterator[Path]:
    with pinned() as made:
        yield made


def test_switches_addresses_and_prefixes_follow_the_configuration(bpffs: Path) -> None:
    kernel = Kernel(bpffs)
    both = RuntimeFlag.MASQUERADE4 | RuntimeFlag.MASQUERADE6
    kernel.runtime.host_firewall = True
    for wanted, own, flags, prefixes, feature in (
        (Masquerading(), OWN, both, set(), "BPF [eth0] [IPv4: Enabled, IPv6: Enabled]"),
        (
            Masquerading(ipv6=False, native=(TEN,), exempt=(LONG,)),
            OWN,
            RuntimeFlag.MASQUERADE4,
            {TEN, LONG},
            "BPF [eth0] 10.0.0.0/8 [IPv4: Enabled, IPv6: Disabled]",
        ),
        (
            Masquerading(exempt=(LONG,)),
            OWN[:2],
            RuntimeFlag.MASQUERADE4,
            {LONG},
            "BPF [eth0] [IPv4: Enabled, IPv6: the node has no address]",
        ),
        (Masquerading(ipv4=False, ipv6=False), OWN, RuntimeFlag(0), set(), "Disabled"),
    ):
        masquerade = Masquerade(kernel.runtime, kernel.masquerade_not, "eth0")
        masquerade.step(wanted, own)
        value = kernel.runtime.map[0]
        assert value.flags == flags | RuntimeFlag.HOST_FIREWALL
        assert value.nat4 == NODE
        assert value.nat6 == (address16(OWN[2]) if len(own) > 2 else NO_ADDRESS)
        assert set(kernel.masquerade_not.to_dict()) == set(map(IpcacheKey.of, prefixes))
        assert masquerade.feature == feature


def back(port: int, **more: Any) -> tuple[bytes, bytes]:
    key = NatKey(
        local=NODE, remote=SERVER, local_port=port, remote_port=80, protocol=6, direction=NatDirection.BACK
    )
    plain: dict[str, Any] = {"address": POD, "port": port - 40000, "expires": 100}
    return key.pack(), NatValue(**plain | more).pack()


def out(source_port: int, port: int) -> tuple[bytes, bytes]:
    way = NatDirection.OUT
    key = NatKey(local=POD, remote=SERVER, local_port=source_port, remote_port=80, protocol=6, direction=way)
    return key.pack(), NatValue(address=NODE, port=port).pack()


def test_what_is_over() -> None:
    entries = {
        "lives": back(50000),
        "expired": back(50001, expires=9),
        "another's": back(50002, address=SERVER),
        "leads to what lives": out(10000, 50000),
        "leads to what expired": out(10001, 50001),
        "leads to another's": out(10002, 50002),
        "leads to another port's": out(6000, 50000),
        "leads nowhere": out(10003, 50003),
    }
    names = {key: name for name, (key, _) in entries.items()}
    values = dict(entries.values())
    assert len(values) == len(entries)
    over = {names[key] for key in stale(values.items(), 10, values.get)}
    assert over == entries.keys() - {"lives", "another's", "leads to what lives"}
    over = {names[key] for key in stale(values.items(), 0, values.get, {POD})}
    assert over == entries.keys() - {"another's"}


def test_it_complains_of_what_happened_lately() -> None:
    pressure = Pressure(limit=100)
    for used, failed, changed, says in (
        (50, 7, False, []),  # failures of before this process are no news
        (91, 7, True, ["91 of 100 entries"]),
        (91, 9, True, ["91 of 100 entries", "2 packets were dropped"]),
        (20, 9, True, []),
    ):
        assert pressure.note(used, failed) is changed
        faults = pressure.faults()
        assert len(faults) == len(says)
        assert all(fault.startswith(said) for fault, said in zip(faults, says, strict=True))


def test_a_sweep_removes_what_is_over_and_counts_what_lives(bpffs: Path) -> None:
    Kernel(bpffs)
    table, later = NatTable(bpffs), 1 << 62
    with open_pinned(bpffs, NAT) as entries:
        for port, expires, flags in (
            (50000, later, CtFlag.ESTABLISHED),
            (50001, 1, CtFlag.ESTABLISHED),
            (50002, later, CtFlag.FIN_FORWARD | CtFlag.FIN_REPLY),
            (50003, later, CtFlag.RESET),
            (50004, later, CtFlag.FIN_FORWARD),
        ):
            entries.put_raw(*back(port, expires=expires, flags=flags))
        assert not table.sweep(10)
        assert {key.local_port for key, _ in entries.items()} == {50000, 50002, 50003, 50004}
        assert table.pressure.used == 2
        table.forget({POD})
        assert entries.count() == 0
