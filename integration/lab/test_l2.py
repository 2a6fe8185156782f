"""Addresses of Services on the segment: who answers, what people ask for, and what a dead node costs."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from integration.lab.l2world import OBJECTS, addresses, holder, killed, places, probing, processes_of, service
from scapy.layers.inet6 import ICMPv6ND_NA
from scapy.layers.l2 import ARP, Ether

from cirri.testing.lab import CIRRI, Lab

NODES = ("node1", "node2", "node3")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(3, "", "--without", "flows", services=("l2",)) as made:
        made.apply(OBJECTS + service("web", "web") + service("echo", "echo"))
        made.apply(service("local", "web", policy="Local"))
        made.wait(lambda: len(places(made)) == 6, what="six addresses wanted")
        made.wait(lambda: all(each["node"] for each in places(made).values()), what="six addresses held")
        yield made


def answers(lab: Lab, address: str) -> bool:
    url = f"http://[{address}]/v1/" if ":" in address else f"http://{address}/v1/"
    return "Death Star" in lab.on("client", "curl", "-s", "-m", "5", url).stdout


def test_a_client_outside_is_answered(lab: Lab) -> None:
    """IPv4 and IPv6, traffic policies Cluster and Local; a Local one is where its backend is."""
    for name in ("web", "local"):
        for address in addresses(lab, name):
            lab.wait(lambda a=address: answers(lab, a), what=f"{name} answers at {address}")  # type: ignore[misc]
            assert name != "local" or holder(lab, address) == "node3"


FIELDS = ("eth.src", "eth.dst", "arp.opcode", "arp.src.proto_ipv4", "arp.dst.proto_ipv4", "arp.src.hw_mac")
FIELDS6 = ("icmpv6.type", "icmpv6.nd.ns.target_address", "icmpv6.nd.na.target_address", "icmpv6.opt.linkaddr")


@contextmanager
def captured(lab: Lab) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """What tshark sees at the client while the body runs: of each frame its fields."""
    names = FIELDS + FIELDS6
    told = [word for name in names for word in ("-e", name)]
    command = ["tshark", "-n", "-l", "-i", "eth0", "-f", "arp or icmp6", "-T", "fields", *told]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        enter = [str(CIRRI), "--context", lab.name, "lab", "exec", "--host", "client", "--", *command]
        with subprocess.Popen(enter, stdout=out, stderr=error, start_new_session=True) as process:

            def frames() -> list[dict[str, str]]:
                assert process.poll() is None, error.seek(0) or error.read()
                out.seek(0)
                rows = [line.rstrip("\n").split("\t") for line in out if line.endswith("\n")]
                return [dict(zip(names, row, strict=True)) for row in rows]

            try:
                yield frames
            finally:
                os.killpg(process.pid, signal.SIGTERM)


def mac(lab: Lab, node: str) -> str:
    return str(json.loads(lab.on(node, "ip", "-j", "link", "show", "eth0").stdout)[0]["address"])


@pytest.mark.parametrize("family", [4, 6])
def test_the_wire(lab: Lab, family: int) -> None:
    """A question and its answer by the holder; the new one tells everybody when the address moves."""
    address = addresses(lab, "web")[family == 6]
    before = holder(lab, address)
    after = next(node for node in NODES if node != before)
    old, new = mac(lab, before), mac(lab, after)
    asked: dict[str, str]
    answer: dict[str, str]
    if family == 4:
        asked = {"arp.opcode": "1", "arp.dst.proto_ipv4": address, "eth.dst": "ff:ff:ff:ff:ff:ff"}
        answer = {"arp.opcode": "2", "arp.src.proto_ipv4": address, "arp.src.hw_mac": old, "eth.src": old}
        moved = {"arp.src.proto_ipv4": address, "arp.dst.proto_ipv4": address, "arp.src.hw_mac": new}
    else:
        asked = {"icmpv6.type": "135", "icmpv6.nd.ns.target_address": address}
        answer = {"icmpv6.type": "136", "icmpv6.nd.na.target_address": address, "icmpv6.opt.linkaddr": old}
        moved = answer | {"icmpv6.opt.linkaddr": new, "eth.src": new, "eth.dst": "33:33:00:00:00:01"}
    with captured(lab) as frames:

        def has(wanted: dict[str, str]) -> bool:
            return any(wanted.items() <= frame.items() for frame in frames())

        def shown() -> bool:  # anew until tshark listens
            lab.on("client", "ip", f"-{family}", "neigh", "flush", "to", address)
            return answers(lab, address) and has(asked) and has(answer)

        lab.wait(shown, what="a question and its answer")
        lab.cirri("l2", "move", address, after)
        lab.wait(lambda: has(moved), what="the new holder's word to everybody")
    lab.cirri("l2", "release", address)
    lab.wait(lambda: holder(lab, address) == before, what="the release")


def test_people_ask_and_move(lab: Lab) -> None:
    first, second = addresses(lab, "web")
    hashed = holder(lab, first)
    other = next(node for node in NODES if node != hashed)
    lab.cirri("l2", "move", first, other)
    lab.wait(lambda: holder(lab, first) == other, what="the move")
    row = places(lab)[first]
    assert (row["reason"], row["services"]) == ("claim", ["default/web"])
    said = lab.cirri("l2", "explain", first).stdout
    assert f"held by {other} (claim)" in said
    lab.wait(lambda: answers(lab, first), what="an answer from there")
    lab.cirri("l2", "drain", other)
    lab.wait(lambda: holder(lab, first) != other, what="the drain")
    lab.cirri("l2", "undrain", other)
    lab.wait(lambda: holder(lab, first) == other, what="the end of the drain")
    lab.cirri("l2", "release", first)
    lab.wait(lambda: holder(lab, first) == hashed, what="the release")
    local = addresses(lab, "local")[0]
    refused = lab.cirri("l2", "move", local, "node1", check=False)
    assert "no ready backend" in refused.stderr
    assert "not announced: no Service" in lab.cirri("l2", "explain", "192.0.2.1").stdout
    assert second in lab.cirri("l2", "list").stdout


def test_a_bad_policy_says_so_and_changes_nothing(lab: Lab) -> None:
    done = lab.cirri(
        "apply", "-f", "-", check=False, stdin=OBJECTS.split("---")[1].replace("^eth[0-9]+", "eth[")
    )
    assert "no regular expression" in done.stderr
    assert all(each["node"] for each in places(lab).values())


@pytest.mark.parametrize("family", [4, 6])
def test_a_dead_node_is_replaced_and_comes_back_once(lab: Lab, family: int) -> None:
    """The frames are on the wire; the old holder is silent after the new one spoke; two moves in all."""
    address = addresses(lab, "echo")[family == 6]
    victim = "node1"
    lab.cirri("l2", "move", address, victim)
    lab.wait(lambda: holder(lab, address) == victim, what="the move")
    pids = processes_of(lab, victim)
    with probing(lab, address, 8.0) as found:
        lab.wait(lambda: places(lab)[address]["answers"] > 0, what="answers of the kernel")
        with killed(lab, victim, pids):
            lab.wait(lambda: holder(lab, address) not in ("", victim), what="another holder")
    (saw,) = found
    if family == 4:
        arps = [Ether(frame)[ARP] for frame in saw.frames if ARP in Ether(frame)]
        gratuitous = [each for each in arps if each.psrc == each.pdst == address]
        assert {each.op for each in gratuitous} == {1, 2}, "announced as a request and as an answer"
        assert len(saw.holders) >= 2, "nobody took over"
        assert saw.both_s <= 1.0
    else:
        told = [Ether(frame)[ICMPv6ND_NA] for frame in saw.frames if ICMPv6ND_NA in Ether(frame)]
        assert any(each.tgt == address for each in told)
    assert saw.outage_s < 8.0, "it never came back"
    lab.wait(lambda: holder(lab, address) == victim, seconds=60, what="the node's return")
    lab.cirri("l2", "release", address)
