"""``cirri monitor``: real ring buffers, events as the programs write them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from cirri.cli.monitor import describe, line
from cirri.cli.pins import Names
from cirri.layout import (
    DropReason,
    EventRecord,
    EventType,
    PolicyDirection,
    PolicyMatch,
    TracePoint,
    TraceState,
    address16,
)
from cirri.maps import RingBuffer, test_run

SYN, ACK = 2, 16
NAMES = Names(
    {"7": {"kind": "CiliumNetworkPolicy", "namespace": "default", "name": "rule1", "section": "spec"}},
    {"300": ["k8s:class=xwing"]},
)


def event(kind: EventType, **fields: Any) -> EventRecord:
    base = {
        "timestamp": 5_000_000_000,
        "source": address16("10.52.0.1"),
        "destination": address16("10.52.1.2"),
        "source_port": 40000,
        "destination_port": 80,
        "source_identity": 300,
        "destination_identity": 301,
        "protocol": 6,
        "endpoint": 77,
        "tcp_flags": SYN,
    }
    return EventRecord(type=kind, **{**base, **fields})


class Case(NamedTuple):
    """An event and the line it makes."""

    id: str
    record: EventRecord
    expected: str
    verbose: bool = False


CASES = [
    Case(
        "drop",
        event(EventType.DROP, reason=DropReason.POLICY, direction=PolicyDirection.INGRESS),
        "xx drop (Policy denied) endpoint 77, identity 300->301: 10.52.0.1:40000 -> 10.52.1.2:80 tcp SYN",
    ),
    Case(
        "allowed in",
        event(EventType.POLICY_VERDICT, direction=PolicyDirection.INGRESS, match=PolicyMatch.IDENTITY_PORT),
        "Policy verdict log: local EP ID 77, remote ID 300, proto TCP, ingress, action allow, match L3-L4, "
        "10.52.0.1:40000 -> 10.52.1.2:80 tcp SYN",
    ),
    Case(
        "redirected",
        event(
            EventType.POLICY_VERDICT,
            direction=PolicyDirection.EGRESS,
            match=PolicyMatch.PORT,
            proxy_port=10100,
        ),
        "Policy verdict log: local EP ID 77, remote ID 301, proto TCP, egress, action redirect, "
        "match L4-Only, 10.52.0.1:40000 -> 10.52.1.2:80 tcp SYN",
    ),
    Case(
        "denied out",
        event(
            EventType.POLICY_VERDICT,
            direction=PolicyDirection.EGRESS,
            reason=DropReason.POLICY_DENY,
            match=PolicyMatch.NONE,
        ),
        "Policy verdict log: local EP ID 77, remote ID 301, proto TCP, egress, action deny, match none, "
        "10.52.0.1:40000 -> 10.52.1.2:80 tcp SYN",
    ),
    Case(
        "audited",
        event(
            EventType.POLICY_VERDICT,
            direction=PolicyDirection.INGRESS,
            reason=DropReason.POLICY_AUTH_REQUIRED,
            match=PolicyMatch.IDENTITY,
            audited=1,
        ),
        "Policy verdict log: local EP ID 77, remote ID 300, proto TCP, ingress, action audit, match L3-Only, "
        "10.52.0.1:40000 -> 10.52.1.2:80 tcp SYN",
    ),
    Case(
        "new, IPv6, UDP",
        event(
            EventType.TRACE,
            source=address16("fd00::1"),
            destination=address16("fd00::2"),
            protocol=17,
            tcp_flags=0,
            point=TracePoint.TO_ENDPOINT,
            state=TraceState.NEW,
        ),
        "-> endpoint 77, identity 300->301 state new: [fd00::1]:40000 -> [fd00::2]:80 udp",
    ),
    Case(
        "closed",
        event(EventType.CONNECTION_CLOSED, packets=12, bytes=3400, tcp_flags=SYN | ACK),
        "-- identity 300->301 state closed: 10.52.0.1:40000 -> 10.52.1.2:80 tcp SYN,ACK "
        "12 packets 3400 bytes",
    ),
    Case(
        "ping",
        event(
            EventType.TRACE,
            protocol=1,
            source_port=99,
            destination_port=8,
            tcp_flags=0,
            point=TracePoint.FROM_HOST,
        ),
        "<- host, identity 300->301 state unknown: 10.52.0.1 -> 10.52.1.2 icmp type 8 id 99",
    ),
    Case(
        "verbose",
        event(EventType.TRACE, rule=7, point=TracePoint.TO_STACK, state=TraceState.ESTABLISHED),
        "1970-01-01T00:01:05.000000Z -> stack, identity 300->301 state established: "
        "10.52.0.1:40000 -> 10.52.1.2:80 tcp SYN "
        "rule CiliumNetworkPolicy default/rule1 spec",
        verbose=True,
    ),
    Case(
        "of a later version",
        EventRecord(type=200, protocol=250, match=99, direction=3),
        "-- identity 0->0 type 200: [::]:0 -> [::]:0 250",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_line(case: Case) -> None:
    described = describe(case.record, NAMES, 60_000_000_000)

    assert line(described, verbose=case.verbose) == case.expected
    json.dumps(described)


def test_an_audited_event_says_why_it_would_have_been_dropped() -> None:
    record = event(EventType.POLICY_VERDICT, reason=DropReason.POLICY_AUTH_REQUIRED, audited=1)

    described = describe(record, NAMES, 0)

    assert (described["verdict"], described["reason"]) == ("audit", 189)
    assert described["reasonText"] == "Authentication required"


def send(cluster: Any, node: str, *records: EventRecord) -> list[int]:
    program = cluster.programs[node]["tc/event"]
    return [test_run(program, bytes(14) + record.pack()).action for record in records]


@contextmanager
def monitor(cluster: Any, *arguments: str, begins: str = "") -> Iterator[subprocess.Popen[str]]:
    """The command, listening."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "cirri.cli", "--context", cluster.context, "monitor", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert first.startswith("Listening for events on node")
        assert begins in first
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate(timeout=10)


def shown(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip() for _ in range(count)]


def test_events_of_all_nodes_are_followed(cluster: Any) -> None:
    with monitor(cluster) as process:
        send(cluster, "node1", event(EventType.TRACE))
        first = shown(process, 1)
        send(cluster, "node2", event(EventType.DROP, reason=134), event(EventType.CONNECTION_CLOSED))
        rest = shown(process, 2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

        assert process.returncode == 0

    assert first[0].startswith("[node1] -> somewhere, identity 300->301 state unknown: ")
    assert rest[0].startswith("[node2] xx drop (Invalid packet) endpoint 77")
    assert rest[1].startswith("[node2] -- identity 300->301 state closed: ")


def test_what_was_there_before_is_shown_only_when_asked_for(cluster: Any) -> None:
    said = []
    for arguments in ((), ("--all",)):
        send(cluster, "node1", *(event(EventType.DROP, reason=133, endpoint=200 + n) for n in (0, 1)))
        with monitor(cluster, "--node", "node1", *arguments) as process:
            send(cluster, "node1", event(EventType.DROP, reason=133, endpoint=299))
            said.append(shown(process, 3 if arguments else 1))
    assert ["endpoint 299" in line for line in said[0]] == [True]
    assert ["endpoint 299" in line for line in said[1]] == [False, False, True]


def test_it_says_where_it_begins(cluster: Any) -> None:
    send(cluster, "node1", *(event(EventType.TRACE) for _ in range(3)))
    with monitor(cluster, "--node", "node1", begins="from now on; 3 earlier ones are thrown away"):
        pass
    with monitor(cluster, "--node", "node1", "--all", begins="all that are there, then new ones"):
        pass


def test_events_can_be_chosen(cluster: Any) -> None:
    arguments = ["--node", "node1", "-o", "json", "-t", "drop", "-t", "trace", "--related-to", "77"]
    with monitor(cluster, *arguments) as process:
        send(
            cluster,
            "node1",
            event(EventType.CONNECTION_CLOSED),
            event(EventType.DROP, endpoint=78, reason=133),
            event(EventType.DROP, reason=133),
            event(EventType.TRACE),
        )
        events = [json.loads(text) for text in shown(process, 2)]

    assert [(e["node"], e["type"]) for e in events] == [("node1", "drop"), ("node1", "trace")]
    assert (events[0]["reason"], events[0]["reasonText"]) == (133, "Policy denied")
    assert events[0]["tcpFlags"] == ["SYN"]
    assert events[0]["sourcePort"] == 40000


def test_losses_are_told(cluster: Any) -> None:
    with monitor(cluster, "--node", "node1", "-t", "drop") as process:
        os.kill(process.pid, signal.SIGSTOP)
        packet = bytes(14) + event(EventType.TRACE).pack()
        # More than the ring's 4 MiB take, whatever the kernel's own overhead.
        test_run(cluster.programs["node1"]["tc/event"], packet, repeat=50_000)
        lost = cluster.json("bpf", "events", "list", "--node", "node1")[0]["lost"]
        os.kill(process.pid, signal.SIGCONT)
        assert process.stderr is not None
        said = process.stderr.readline()

    assert lost > 0
    assert said == f"node1: {lost} events lost: the ring buffer was full\n"


def test_a_ring_has_one_reader(cluster: Any) -> None:
    with RingBuffer(cluster.bpffs["node1"] / "cirri_events"):
        result = cluster.run("monitor", "--node", "node1")

    assert result.exit_code == 1
    assert "another process reads" in result.stderr
