"""``cirri bpf``: real maps, filled as the services fill them, read with no service at all."""

import json
import shutil
import time
from ipaddress import ip_network
from typing import Any

import pytest
from click.testing import Result

from cirri.layout import (
    CT,
    ENDPOINTS,
    EVENT_COUNTER,
    IPCACHE,
    LB_BACKENDS,
    LB_SERVICES,
    METRICS,
    POLICY,
    RUNTIME,
    CtFlag,
    CtKey,
    CtValue,
    EndpointFlag,
    EndpointValue,
    IpcacheKey,
    IpcacheValue,
    LbBackend,
    LbBackendKey,
    LbService,
    LbServiceKey,
    MetricsValue,
    PolicyDirection,
    PolicyKey,
    PolicyValue,
    RuntimeConfig,
    address16,
    metrics_index,
)
from cirri.maps import open_per_cpu, open_pinned, possible_cpus

INGRESS, EGRESS = PolicyDirection.INGRESS, PolicyDirection.EGRESS
POD, PEER = "10.52.0.10", "10.52.1.20"
XWING = ["k8s:class=xwing", "k8s:io.kubernetes.pod.namespace=default"]
ORIGIN = {
    "kind": "CiliumNetworkPolicy",
    "namespace": "default",
    "name": "rule1",
    "section": "spec.ingress[0]",
    "source": "sw.yaml:3",
}


def lines(result: Result) -> list[list[str]]:
    """Cells of a printed table: columns are three blanks apart at least."""
    assert result.exit_code == 0, result.output
    return [
        [cell.strip() for cell in line.split("   ") if cell.strip()] for line in result.stdout.splitlines()
    ]


def test_policy(cluster: Any) -> None:
    endpoint = EndpointValue(ifindex=5, id=77, policy_id=4, audit_policy_id=6, identity=300)
    with open_pinned(cluster.bpffs["node1"], ENDPOINTS) as endpoints:
        endpoints.put_many([(address16(POD), endpoint), (address16("fd00::a"), endpoint)])
    with open_pinned(cluster.bpffs["node1"], POLICY) as policy:
        policy.put_many(
            [
                (PolicyKey.of(4, 300, INGRESS, 6, 80, 16), PolicyValue(rule=7, packets=2, bytes=120)),
                (PolicyKey.of(4, 301, INGRESS, 6, 8080, 12), PolicyValue(rule=8)),
                (PolicyKey.of(4, 1, INGRESS), PolicyValue(rule=9)),
                (PolicyKey.of(4, 0, EGRESS, 17), PolicyValue(rule=10, action=1)),
                (PolicyKey.of(5, 400, EGRESS), PolicyValue()),
                (PolicyKey.of(6, 400, INGRESS, 6, 80, 16), PolicyValue(action=2)),
                (PolicyKey.of(6, 401, INGRESS, 6, 80, 16), PolicyValue(priority=101)),
            ]
        )
    cluster.name("node1", "rules.json", {"7": ORIGIN})
    cluster.name("node1", "identities.json", {"300": XWING})

    shown = lines(cluster.run("bpf", "policy", "list", "--node", "node1"))
    rule = "CiliumNetworkPolicy default/rule1 spec.ingress[0] (sw.yaml:3)"

    assert shown[0][:4] == ["ENDPOINT", "POLICY", "DIRECTION", "LABELS (source:key[=value])"]
    assert shown[0][4:] == ["PORT/PROTO", "PROXY PORT", "AUTH TYPE", "BYTES", "PACKETS", "PREFIX", "RULE"]
    assert shown[1:] == [
        ["77", "Allow", "Ingress", "reserved:host", "ANY", "NONE", "disabled", "0", "0", "0", "9"],
        ["77", "Allow", "Ingress", XWING[0], "80/TCP", "NONE", "disabled", "120", "2", "24", rule],
        [XWING[1]],
        ["77", "Allow", "Ingress", "301", "8080-8095/TCP", "NONE", "disabled", "0", "0", "20", "8"],
        ["77", "Deny", "Egress", "ANY", "ANY/UDP", "NONE", "disabled", "0", "0", "8", "10"],
        ["-", "Allow", "Egress", "400", "ANY", "NONE", "disabled", "0", "0", "0", "-"],
        ["77 (audit)", "Allow", "Ingress", "400", "80/TCP", "NONE", "required", "0", "0", "24", "-"],
        ["77 (audit)", "Allow", "Ingress", "401", "80/TCP", "none: drops", "disabled", "0", "0", "24", "-"],
    ]
    numeric = lines(cluster.run("bpf", "policy", "list", "--node", "node1", "-n", "--endpoint", "77"))
    assert [row[3] for row in numeric] == ["IDENTITY", "1", "300", "301", "ANY", "400", "401"]
    unknown = cluster.run("bpf", "policy", "list", "--endpoint", "78")
    assert (unknown.exit_code, unknown.stderr) == (1, 'Error: no endpoint "78". Endpoints: 77\n')
    records = cluster.json("bpf", "policy", "list", "--endpoint", "77")
    assert [record["node"] for record in records] == ["node1"] * 6
    assert records[1]["rule"] == {"cookie": 7, **ORIGIN}
    assert records[1]["labels"] == XWING
    assert records[3]["verdict"] == "deny"


def test_ct(cluster: Any) -> None:
    expires = time.monotonic_ns() + 60 * 10**9
    out = CtKey.of(POD, 40000, PEER, 80, 6)
    back = CtKey.of("fd00::1", 50000, "fd00::2", 53, 17)
    flags = CtFlag.ESTABLISHED | CtFlag.SEEN_REPLY

    def opened_by(key: CtKey, address: str) -> CtFlag:
        return CtFlag.FROM_HIGH if key.high == address16(address) else CtFlag(0)

    with open_pinned(cluster.bpffs["node1"], ENDPOINTS) as endpoints:
        endpoints.put(address16(POD), EndpointValue(ifindex=5))
    with open_pinned(cluster.bpffs["node1"], CT) as ct:
        counted = {"forward_packets": 3, "forward_bytes": 180, "reply_packets": 2, "reply_bytes": 500}
        value = CtValue(
            expires=expires,
            flags=flags | opened_by(out, POD),
            source_identity=300,
            egress_rule=7,
            epoch=2,
            **counted,
        )
        ct.put(out, value)
        ct.put(back, CtValue(expires=expires, flags=opened_by(back, "fd00::1")))

    shown = cluster.run("bpf", "ct", "list", "--node", "node1").stdout.splitlines()
    records = cluster.json("bpf", "ct", "list")

    assert shown == [
        f"TCP OUT {POD}:40000 -> {PEER}:80 expires=60s Packets=3 Bytes=180 ReplyPackets=2 ReplyBytes=500 "
        "Flags=[ SeenReply Established ] RevNAT=0 SourceSecurityID=300 DestinationSecurityID=0 Epoch=2",
        "UDP IN [fd00::1]:50000 -> [fd00::2]:53 expires=60s Packets=0 Bytes=0 ReplyPackets=0 ReplyBytes=0 "
        "Flags=[  ] RevNAT=0 SourceSecurityID=0 DestinationSecurityID=0 Epoch=0",
    ]
    assert (records[0]["sourcePort"], records[0]["destinationPort"]) == (40000, 80)
    assert records[0]["egressRule"] == {"cookie": 7}
    assert 0 < records[0]["expiresInSeconds"] <= 60


def test_ipcache(cluster: Any) -> None:
    with open_pinned(cluster.bpffs["node2"], IPCACHE) as ipcache:
        ipcache.put_many(
            (IpcacheKey.of(ip_network(prefix)), value)
            for prefix, value in {
                "fd00:10:52::5/128": IpcacheValue(identity=300),
                f"{PEER}/32": IpcacheValue(identity=300, node=address16("192.168.3.11")),
                "0.0.0.0/0": IpcacheValue(identity=9),
            }.items()
        )
    cluster.name("node2", "identities.json", {"300": XWING})

    assert lines(cluster.run("bpf", "ipcache", "list", "--node", "node2"))[1:] == [
        ["0.0.0.0/0", "9", "reserved:world-ipv4", "-"],
        [f"{PEER}/32", "300", XWING[0], "192.168.3.11"],
        [XWING[1]],
        ["fd00:10:52::5/128", "300", XWING[0], "-"],
        [XWING[1]],
    ]


def test_tunnel(cluster: Any) -> None:
    """Nodes and the ranges behind them; pods and nodes' own addresses are in the ipcache too."""
    hop = address16("192.168.3.11")
    with open_pinned(cluster.bpffs["node2"], IPCACHE) as ipcache:
        ipcache.put_many(
            (IpcacheKey.of(ip_network(prefix)), IpcacheValue(identity=identity, node=hop))
            for prefix, identity in {"fd00:10:52::/120": 3, "10.52.1.0/24": 3, f"{PEER}/32": 300}.items()
        )
    with open_pinned(cluster.bpffs["node2"], RUNTIME) as runtime:
        assert lines(cluster.run("bpf", "tunnel", "list", "--node", "node2"))[1:] == []
        runtime.put(0, RuntimeConfig(tunnel_ifindex=7))

    assert lines(cluster.run("bpf", "tunnel", "list", "--node", "node2")) == [
        ["TUNNEL TO", "POD CIDRS"],
        ["192.168.3.11", "10.52.1.0/24 fd00:10:52::/120"],
    ]
    assert cluster.json("bpf", "tunnel", "list", "--node", "node2")[0]["tunnelTo"] == "192.168.3.11"


def test_endpoint(cluster: Any) -> None:
    value = EndpointValue(
        ifindex=5,
        id=77,
        identity=300,
        policy_id=4,
        flags=EndpointFlag.ENFORCE_INGRESS,
        mac=b"\x02\0\0\0\0\1",
        node_mac=b"\x02\0\0\0\0\2",
    )
    with open_pinned(cluster.bpffs["node1"], ENDPOINTS) as endpoints:
        endpoints.put(address16(POD), value)

    assert lines(cluster.run("bpf", "endpoint", "list", "--node", "node1"))[1:] == [
        [
            POD,
            "id=77 sec_id=300 flags=EnforceIngress ifindex=5 mac=02:00:00:00:00:01 "
            "nodemac=02:00:00:00:00:02 policy=4",
        ]
    ]


def test_metrics(cluster: Any) -> None:
    each = [MetricsValue(packets=2, bytes=100)] * possible_cpus()
    with open_per_cpu(cluster.bpffs["node1"], METRICS) as metrics:
        metrics.put(metrics_index(0, EGRESS), each)
        metrics.put(metrics_index(133, INGRESS), each)
    packets, total = str(2 * possible_cpus()), str(100 * possible_cpus())

    assert lines(cluster.run("bpf", "metrics", "list", "--node", "node1"))[1:] == [
        ["Success", "EGRESS", packets, total],
        ["Policy denied", "INGRESS", packets, total],
    ]


def test_lb(cluster: Any) -> None:
    with (
        open_pinned(cluster.bpffs["node1"], LB_SERVICES) as services,
        open_pinned(cluster.bpffs["node1"], LB_BACKENDS) as backends,
    ):
        services.put(
            LbServiceKey(address=address16("10.96.0.7"), port=80, protocol=6),
            LbService(id=3, frontend=1, count=2),
        )
        services.put(
            LbServiceKey(address=address16("fd00::7"), port=53, protocol=17),
            LbService(id=4, frontend=2, count=0),
        )
        backends.put(LbBackendKey(service=3, slot=0), LbBackend(address=address16(PEER), port=8080))

    assert lines(cluster.run("bpf", "lb", "list", "--node", "node1"))[1:] == [
        ["10.96.0.7:80/TCP", f"{PEER}:8080/TCP (3) (0)"],
        ["missing/TCP (3) (1)"],
        ["[fd00::7]:53/UDP", "-"],
    ]


def test_events(cluster: Any) -> None:
    with open_per_cpu(cluster.bpffs["node2"], EVENT_COUNTER) as counters:
        counters.put(0, [5] * possible_cpus())
        counters.put(1, [1] * possible_cpus())
        counters.put(2, [2] * possible_cpus())

    assert cluster.json("bpf", "events", "list") == [
        {"node": "node1", "submitted": 0, "lost": 0, "forgonePackets": 0, "forgoneBytes": 0},
        {
            "node": "node2",
            "submitted": 5 * possible_cpus(),
            "lost": possible_cpus(),
            "forgonePackets": 2 * possible_cpus(),
            "forgoneBytes": 0,
        },
    ]
    assert cluster.run("bpf", "events", "list").stdout.splitlines()[0] == "Node: node1"


@pytest.mark.parametrize("kind", ["policy", "ct", "ipcache", "endpoint", "metrics", "lb", "events"])
def test_a_node_without_maps_does_not_hide_the_others(cluster: Any, kind: str) -> None:
    shutil.rmtree(cluster.bpffs["node1"])

    one = cluster.run("bpf", kind, "list", "-o", "json")
    shutil.rmtree(cluster.bpffs["node2"])
    none = cluster.run("bpf", kind, "list")

    assert one.exit_code == 1
    assert {record["node"] for record in json.loads(one.stdout)} <= {"node2"}
    assert "node1: map cirri_" in one.stderr
    assert none.exit_code == 1
    assert "is not pinned at" in none.stderr
    assert "Traceback" not in none.output


def test_an_unknown_node_names_the_known_ones(cluster: Any) -> None:
    result = cluster.run("bpf", "ct", "list", "--node", "node9")

    assert result.exit_code == 1
    assert 'no node "node9". Nodes with maps on this machine: node1, node2' in result.output


@pytest.mark.parametrize("kind", ["policy", "ct", "ipcache", "endpoint"])
def test_numbers_alone_can_be_asked_for_wherever_there_are_identities(cluster: Any, kind: str) -> None:
    with open_pinned(cluster.bpffs["node1"], IPCACHE) as ipcache:
        ipcache.put(IpcacheKey.of(ip_network("0.0.0.0/0")), IpcacheValue(identity=9))
    for flag in ("-n", "--numeric"):
        result = cluster.run("bpf", kind, "list", flag)
        assert result.exit_code == 0, result.output
        assert "reserved:" not in result.stdout
        assert "LABELS" not in result.stdout


@pytest.mark.parametrize("content", ["", "[1]", "{"], ids=["empty", "list", "cut off"])
def test_broken_names_leave_numbers(cluster: Any, content: str) -> None:
    (cluster.run_dir / "node1" / "rules.json").write_text(content)
    with open_pinned(cluster.bpffs["node1"], POLICY) as policy:
        policy.put(PolicyKey.of(4, 300, INGRESS), PolicyValue(rule=7))

    assert cluster.json("bpf", "policy", "list")[0]["rule"] == {"cookie": 7}
