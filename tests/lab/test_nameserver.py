"""Answers of the DNS server, message by message."""

import asyncio
from pathlib import Path
from typing import NamedTuple

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import msgspec
import pytest

from cirri.lab.dns import Zone
from cirri.lab.programs.nameserver import Records, answer, respond, reverse

WEB = "web.default.svc.cluster.local"
ZONE = Zone(
    origins=("cluster.local", "in-addr.arpa", "ip6.arpa"),
    addresses={
        WEB: ["10.96.0.9", "10.96.0.10", "fd00:10:96::9"],
        "big.default.svc.cluster.local": [f"10.52.{i // 200}.{i % 200}" for i in range(400)],
    },
    services={f"_http._tcp.{WEB}": [(80, WEB)]},
    aliases={"alias.default.svc.cluster.local": WEB},
)


class Case(NamedTuple):
    """*name* and *kind* asked: code, and the answer's data, sorted."""

    id: str
    name: str
    kind: str
    code: str
    answer: list[str]


CASES = [
    Case("A", WEB, "A", "NOERROR", ["10.96.0.10", "10.96.0.9"]),
    Case("AAAA", WEB, "AAAA", "NOERROR", ["fd00:10:96::9"]),
    Case("case does not matter", WEB.upper(), "AAAA", "NOERROR", ["fd00:10:96::9"]),
    Case("no such type", WEB, "MX", "NOERROR", []),
    Case("no such name", "nobody.default.svc.cluster.local", "A", "NXDOMAIN", []),
    Case("search path appended", f"{WEB}.default.svc.cluster.local", "A", "NXDOMAIN", []),
    Case("a name above names", "svc.cluster.local", "A", "NOERROR", []),
    Case("the zone itself", "cluster.local", "A", "NOERROR", []),
    Case("SRV", f"_http._tcp.{WEB}", "SRV", "NOERROR", [f"0 100 80 {WEB}."]),
    Case("PTR", "9.0.96.10.in-addr.arpa", "PTR", "NOERROR", [f"{WEB}."]),
    Case(
        "PTR IPv6",
        f"{'.'.join(reversed('fd000010009600000000000000000009'))}.ip6.arpa",
        "PTR",
        "NOERROR",
        [f"{WEB}."],
    ),
    Case("PTR of nobody", "1.2.3.4.in-addr.arpa", "PTR", "NXDOMAIN", []),
    Case("PTR of nonsense", "a.b.in-addr.arpa", "PTR", "NXDOMAIN", []),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_answer(case: Case) -> None:
    query = dns.message.make_query(case.name, case.kind)

    reply = answer(query, ZONE, reverse(ZONE))

    assert reply is not None
    assert dns.rcode.to_text(reply.rcode()) == case.code
    assert sorted(str(data) for rrset in reply.answer for data in rrset) == case.answer
    if not case.answer:
        assert reply.authority[0].rdtype == dns.rdatatype.SOA
    assert reply.flags & dns.flags.AA


def test_names_of_others_are_not_answered() -> None:
    assert answer(dns.message.make_query("github.com", "A"), ZONE, {}) is None


def ask(records: Records, name: str, kind: str, *, stream: bool = False) -> dns.message.Message:
    wire = asyncio.run(respond(dns.message.make_query(name, kind).to_wire(), records, stream=stream))
    assert wire is not None
    return dns.message.from_wire(wire)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    (tmp_path / "zone.json").write_bytes(msgspec.json.encode(ZONE))
    return Records(tmp_path / "zone.json")


def test_an_alias_comes_with_its_target(records: Records) -> None:
    reply = ask(records, "alias.default.svc.cluster.local", "AAAA")

    assert [rrset.to_text().split()[3:] for rrset in reply.answer] == [
        ["CNAME", f"{WEB}."],
        ["AAAA", "fd00:10:96::9"],
    ]


def test_large_answers_are_cut_over_udp_alone(records: Records) -> None:
    short = ask(records, "big.default.svc.cluster.local", "A")
    whole = ask(records, "big.default.svc.cluster.local", "A", stream=True)

    assert short.flags & dns.flags.TC
    assert len(whole.answer[0]) == 400


def test_without_upstream_other_names_are_refused(records: Records) -> None:
    assert ask(records, "github.com", "A").rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("wire", [b"", b"\0" * 5, b"\xff" * 40, b"\0" * 12], ids=repr)
def test_what_is_no_query_gets_no_answer(wire: bytes, records: Records) -> None:
    assert asyncio.run(respond(wire, records, stream=False)) is None


def test_a_replaced_file_is_read_again(tmp_path: Path, records: Records) -> None:
    assert ask(records, "new.default.svc.cluster.local", "A").rcode() == dns.rcode.NXDOMAIN

    draft = tmp_path / "draft"
    draft.write_bytes(
        msgspec.json.encode(
            Zone(origins=("cluster.local",), addresses={"new.default.svc.cluster.local": ["10.96.0.1"]})
        )
    )
    draft.rename(tmp_path / "zone.json")

    assert str(ask(records, "new.default.svc.cluster.local", "A").answer[0][0]) == "10.96.0.1"
