"""Events and records become tables whose rows point to the right things."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from cirri.flows import decode, proxied
from cirri.flows.book import Book
from cirri.flows.enrich import Enricher
from cirri.flows.lookup import Lookup, keys_of
from cirri.flows.names import PodNames
from cirri.flows.publish import parts
from cirri.flows.rules import RuleFile
from cirri.history import Reply, Rows, RowType, Table, Verdict
from cirri.layout import EventRecord, EventType, address16
from cirri.model import DnsFacts, End, Endpoint, L7Batch, L7Record, Resource, RuleRef, ServiceRef
from cirri.model.request import LearntName

WEB, API, OUT, VIP = "10.0.0.1", "fd00::2", "203.0.113.5", "10.9.0.1"


def event(
    type_: int = EventType.TRACE, source: str = WEB, destination: str = API, **more: int
) -> EventRecord:
    given = {"source_identity": 301, "destination_identity": 302, "protocol": 6, "destination_port": 80}
    return EventRecord(
        type=type_, source=address16(source), destination=address16(destination), **{**given, **more}
    )


def rows(*events: EventRecord, offset_ns: int = 1000) -> Rows:
    raw = np.frombuffer(b"".join(one.pack() for one in events), np.uint8)
    return decode.rows_of(decode.events_of(raw.reshape(len(events), -1)), offset_ns, 1)


def book() -> Book:
    found = Book("n1")
    found.identities = {301: ("k8s:app=web",), 302: ("k8s:app=api",)}.get
    for number, (pod, ipv4, ipv6, node) in enumerate((("web", WEB, "", "n1"), ("api", "", API, "n2")), 1):
        one = Endpoint(
            node=node, id=number, namespace=f"{pod}s", pod=pod, container_id="", interface="",
            ipv4=ipv4, ipv6=ipv6, identity=300 + number,
        )  # fmt: skip
        found.endpoint(f"{node}.{number}", one, 1)
    service = {"spec": {"clusterIP": VIP, "ports": [{"port": 80}]}}
    found.addresses([Resource(kind="Service", namespace="a", name="b", manifest=service)], [])
    return found


def table(*events: EventRecord, names: PodNames | None = None) -> Table:
    rule = RuleRef(kind="CiliumNetworkPolicy", name="r")
    enricher = Enricher(book(), names or PodNames(), {77: rule}.get, 5)
    found, _ = enricher.table(rows(*events))
    return found


def ends(found: Table, at: int) -> tuple[End, End]:
    row = found.rows[at]
    return found.ends[row["source_end"] - 1], found.ends[row["destination_end"] - 1]


def test_every_field_is_taken_over() -> None:
    one = event(
        timestamp=5, source_port=40000, type_=EventType.DROP, direction=2, reason=133, rule=9, length=60,
        endpoint=4, tcp_flags=2, match=3, point=101, ifindex=8, state=2, reply=1, packets=6, bytes=360,
    )  # fmt: skip
    row = rows(one)[0]
    same = (
        *("source_port", "destination_port", "direction", "reason", "rule", "length", "endpoint", "bytes"),
        *("tcp_flags", "match", "point", "ifindex", "state", "reply", "packets", "protocol"),
    )
    assert {name: int(row[name]) for name in same} == {name: getattr(one, name) for name in same}
    assert (row["time"], row["seq"], row["type"]) == (1005, 1, RowType.DROP)
    assert row["source"].tobytes() == address16(WEB)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (event(), Verdict.FORWARDED),
        (event(EventType.CONNECTION_CLOSED), Verdict.FORWARDED),
        (event(EventType.DROP, reason=133), Verdict.DROPPED),
        (event(EventType.POLICY_VERDICT), Verdict.FORWARDED),
        (event(EventType.POLICY_VERDICT, reason=133), Verdict.DROPPED),
        (event(EventType.POLICY_VERDICT, reason=133, audited=1), Verdict.AUDIT),
        (event(EventType.POLICY_VERDICT, proxy_port=10001), Verdict.REDIRECTED),
    ],
)
def test_verdicts(given: EventRecord, expected: Verdict) -> None:
    assert rows(event(), given)["verdict"].tolist() == [Verdict.FORWARDED, expected]


def test_ends_services_and_rules() -> None:
    found = table(
        event(),
        event(source=API, destination=WEB, source_identity=302, destination_identity=301),
        event(destination=OUT, destination_identity=2),
        event(destination=VIP, destination_identity=2, rule=77),
        event(destination=VIP, destination_identity=2, rule=78, destination_port=81),
        event(source_identity=0, destination_identity=0),
    )
    pods = [(a.pod, a.endpoint, b.pod, b.endpoint) for a, b in (ends(found, n) for n in range(6))]
    assert pods == [
        ("web", 1, "api", 0), ("api", 0, "web", 1), ("web", 1, "", 0), ("web", 1, "", 0), ("web", 1, "", 0),
        ("web", 1, "api", 0),
    ]  # fmt: skip
    assert found.rows["destination_service"].tolist() == [0, 0, 0, 1, 0, 0]
    assert found.services == [ServiceRef(namespace="a", name="b")]
    assert found.rows["rule_ref"].tolist() == [0, 0, 0, 1, 0, 0]
    assert (found.rows[5]["source_identity"], found.rows[5]["destination_identity"]) == (301, 302)
    assert ends(found, 0) == ends(found, 5)


def test_names_are_those_of_the_pod_that_asked() -> None:
    names = PodNames()
    names.learn(1, "Example.com.", [OUT])
    names.restore([LearntName(endpoint=1, pod="webs/web", name="cdn.example.com", addresses=((OUT, 99),))])
    names.learn(2, "other.com", [OUT])
    found = table(
        event(destination=OUT, destination_identity=2),
        event(source=OUT, destination=WEB, source_identity=2, destination_identity=301),
        event(source=API, source_identity=302, destination=OUT, destination_identity=2),
        names=names,
    )
    assert list(found.names) == [("cdn.example.com", "example.com")]
    assert found.rows["destination_names"].tolist() == [1, 0, 0]
    assert found.rows["source_names"].tolist() == [0, 1, 0]
    names.forget(frozenset({1}))
    assert not table(event(destination=OUT), names=names).names


def record(**more: object) -> L7Record:
    given: dict[str, object] = {
        "time": 5, "node": "n1", "type": "request", "verdict": "forwarded", "direction": "egress",
        "endpoint": 1, "source": f"{WEB}:40000", "destination": f"[{API}]:80", "source_identity": 301,
    }  # fmt: skip
    return L7Record(**{**given, **more})  # type: ignore[arg-type]


def test_records_of_proxies() -> None:
    records = (record(), record(type="response", verdict="error"), record(source="", dns=DnsFacts()))
    made = proxied.rows_of(records, 10)
    found, _ = Enricher(book(), PodNames(), lambda _: None, 5).table(made, records)

    assert made["seq"].tolist() == [10, 11, 12]
    assert made["l7"].tolist() == [1, 2, 3]
    assert made["verdict"].tolist() == [Verdict.FORWARDED, Verdict.ERROR, Verdict.FORWARDED]
    assert made["reply"].tolist() == [Reply.NO, Reply.YES, Reply.NO]
    assert made["source_port"].tolist() == [40000, 80, 0]
    assert made["protocol"].tolist() == [6, 6, 17]
    assert [(a.pod, b.pod) for a, b in (ends(found, n) for n in range(2))] == [("web", "api"), ("api", "web")]
    assert made["destination_identity"].tolist()[:2] == [302, 301]


def test_records_that_did_not_arrive_are_counted() -> None:
    def batch(number: int, told: int, lost: int = 0, count: int = 2, instance: str = "1") -> L7Batch:
        return L7Batch(
            node="n1", proxy="dnsproxy", instance=instance, number=number, told=told, lost=lost,
            records=(record(),) * count,
        )  # fmt: skip

    heard = proxied.Heard()
    heard.note(batch(7, told=100, lost=50))  # all before it was another's to count
    assert heard.lost == 0
    heard.note(batch(8, told=102, lost=53))
    assert heard.lost == 3
    heard.note(batch(10, told=111, lost=53))
    assert heard.lost == 10
    heard.note(batch(1, told=0, lost=4, instance="2"))
    assert heard.lost == 14
    later = proxied.Heard()
    later.restore(heard.state())
    later.note(batch(12, told=120, lost=53))
    assert later.lost == 7


def test_rows_are_stored_by_namespace_and_verdict() -> None:
    found = table(
        event(endpoint=1),
        event(EventType.DROP, endpoint=1),
        event(EventType.POLICY_VERDICT, reason=133, audited=1, endpoint=1),
        event(source=OUT, destination=VIP, source_identity=2, destination_identity=2),
        event(source=API, destination=WEB, endpoint=1),
    )
    told = {key: which.tolist() for key, which in parts(found)}
    assert told == {
        ("webs", "forwarded"): [0, 4],
        ("webs", "dropped"): [1],
        ("webs", "audited"): [2],
        ("", "forwarded"): [3],
    }


def test_lookups_are_exact() -> None:
    draw = np.random.default_rng(1)
    known = {(draw.bytes(16), int(draw.integers(3))): n for n in range(1, 2001)}
    lookup = Lookup(known)
    asked = [*known, *((address, more + 3) for address, more in known), (bytes(16), 0)]
    found = lookup.find(
        keys_of(
            np.frombuffer(b"".join(a for a, _ in asked), "V16"), np.array([m for _, m in asked], np.uint64)
        )
    )
    assert found.tolist() == [*known.values(), *([0] * 2001)]
    assert Lookup({}).find(keys_of(np.zeros(3, "V16"))).tolist() == [0, 0, 0]


def test_rules_by_their_cookies(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    rules = RuleFile(file)
    assert rules.get(5) is None
    origin = {"cookie": 5, "kind": "CiliumNetworkPolicy", "namespace": "a", "name": "r", "section": "spec"}
    file.write_bytes(msgspec.json.encode({"5": origin}))
    assert rules.get(5) == RuleRef(
        kind="CiliumNetworkPolicy",
        namespace="a",
        name="r",
        section="spec",
        labels=(
            "k8s:io.cilium.k8s.policy.derived-from=CiliumNetworkPolicy",
            "k8s:io.cilium.k8s.policy.name=r",
            "k8s:io.cilium.k8s.policy.namespace=a",
        ),
    )
    file.write_bytes(b"{}")
    assert rules.get(6) is None
    assert rules.get(5) is not None  # what was known stays


def test_rules_name_the_revision_of_their_object(tmp_path: Path) -> None:
    """As it is now, also of an object that changed after its rule was first met; built-in rules have none."""
    file, revisions = tmp_path / "rules.json", {("NetworkPolicy", "a", "r"): 7}
    origins = {
        "5": {"cookie": 5, "kind": "NetworkPolicy", "namespace": "a", "name": "r", "section": "spec"},
        "6": {"cookie": 6, "kind": "", "namespace": "", "name": "", "section": "allow-localhost"},
    }
    file.write_bytes(msgspec.json.encode(origins))
    rules = RuleFile(file, lambda *name: revisions.get(name, 0))
    assert [getattr(rules.get(cookie), "revision", None) for cookie in (5, 6, 8)] == [7, 0, None]
    revisions["NetworkPolicy", "a", "r"] = 9
    assert getattr(rules.get(5), "revision", None) == 9
