"""Permissions are the contract, read by a machine."""

import pytest

from cirri.kv.wire import matches
from cirri.model import ENDPOINTS, IDENTITIES, LEASES, NODES, RESOURCES
from cirri.runtime import Service
from cirri.runtime.permissions import Allowed, nats_config, of_people, of_service

CLUSTER = Service("policy", "P.", scope="cluster", reads=(ENDPOINTS,), writes=(IDENTITIES,), serves=("ask",))
NODE = Service(
    "datapath",
    "D.",
    scope="node",
    reads=(RESOURCES,),
    writes=(ENDPOINTS, NODES),
    serves=("flush",),
    calls=("cirri.policy.ask",),
    tells=("l7",),
)


def may(subjects: tuple[str, ...], subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in subjects)


CASES: list[tuple[str, Allowed, str, bool]] = [
    ("own bucket", of_service(CLUSTER, "policy"), "$KV.identities.300", True),
    ("own marker", of_service(CLUSTER, "policy"), "$KV.identities._complete", True),
    ("read bucket", of_service(CLUSTER, "policy"), "$KV.endpoints.n1.1", False),
    ("own lease", of_service(CLUSTER, "policy"), "$KV.leases.policy.leader", True),
    ("other lease", of_service(CLUSTER, "policy"), "$KV.leases.ipam.leader", False),
    ("make own", of_service(CLUSTER, "policy"), "$JS.API.STREAM.CREATE.KV_identities", True),
    ("make read", of_service(CLUSTER, "policy"), "$JS.API.STREAM.CREATE.KV_endpoints", False),
    ("delete own", of_service(CLUSTER, "policy"), "$JS.API.STREAM.DELETE.KV_identities", False),
    (
        "follow read",
        of_service(CLUSTER, "policy"),
        "$JS.API.CONSUMER.CREATE.KV_endpoints.c.x",
        True,
    ),
    ("follow other", of_service(CLUSTER, "policy"), "$JS.API.CONSUMER.CREATE.KV_nodes.c.x", False),
    ("own shard", of_service(NODE, "datapath-n1", "n1"), "$KV.endpoints.n1.1", True),
    ("own shard's only key", of_service(NODE, "datapath-n1", "n1"), "$KV.nodes.n1", True),
    ("other shard", of_service(NODE, "datapath-n1", "n1"), "$KV.endpoints.n2.1", False),
    ("name with dots", of_service(NODE, "datapath-a.b", "a.b"), "$KV.endpoints.a=2Eb.1", True),
    ("part of a name with dots", of_service(NODE, "datapath-a", "a"), "$KV.endpoints.a=2Eb.1", False),
    ("purge shared", of_service(NODE, "datapath-n1", "n1"), "$JS.API.STREAM.PURGE.KV_nodes", False),
    ("declared call", of_service(NODE, "datapath-n1", "n1"), "cirri.policy.ask", True),
    ("undeclared call", of_service(CLUSTER, "policy"), "cirri.datapath.n1.flush", False),
    ("told by the node", of_service(NODE, "datapath-a.b", "a.b"), "cirri.l7.a=2Eb", True),
    ("told by another", of_service(NODE, "datapath-n1", "n1"), "cirri.l7.n2", False),
    ("told by none", of_service(CLUSTER, "policy"), "cirri.l7.n1", False),
    ("no lease for nodes", of_service(NODE, "datapath-n1", "n1"), "$KV.leases.datapath.leader", False),
    ("people call", of_people("cli", [CLUSTER, NODE]), "cirri.datapath.n1.flush", True),
    ("people do not write", of_people("cli", [CLUSTER, NODE]), "$KV.identities.1", False),
]


@pytest.mark.parametrize(
    ("allowed", "subject", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_publish(allowed: Allowed, subject: str, expected: bool) -> None:
    assert may(allowed.publish, subject) is expected


def test_inboxes_do_not_overlap() -> None:
    a, ab = of_service(NODE, "datapath-a", "a"), of_service(NODE, "datapath-a.b", "a.b")
    assert may(a.subscribe, "_INBOX_datapath-a.x")
    assert not may(a.subscribe, "_INBOX_datapath-a=2Eb.x")
    assert may(ab.subscribe, "_INBOX_datapath-a=2Eb.x")


def test_own_requests_are_heard() -> None:
    allowed = of_service(NODE, "datapath-n1", "n1")
    assert may(allowed.subscribe, "cirri.datapath.n1.flush")
    assert not may(allowed.subscribe, "cirri.datapath.n2.flush")
    assert not may(allowed.subscribe, "cirri.policy.ask")
    assert may(of_people("cli", [CLUSTER, NODE]).subscribe, "cirri.l7.n1")
    assert may(allowed.subscribe, "$SRV.PING.datapath.id")
    assert not may(allowed.subscribe, "$SRV.PING.policy")


def test_text() -> None:
    text = nats_config(
        [(CLUSTER, "policy", 'a"b\\c', None), (NODE, "datapath-n1", "pw", "n1")],
        host="10.0.0.1",
        port=4999,
        store_dir="/x",
        people={"cli": "c"},
    )
    assert 'host: "10.0.0.1"\nport: 4999\nmax_payload: 8388608\njetstream { store_dir: "/x" }\n' in text
    assert 'user: "policy", password: "a\\"b\\\\c"' in text
    assert text.count("user: ") == 3
    assert "[]" not in text  # an empty allow list would allow everything
    assert LEASES.name in text
