"""Addresses of Services on the segment: who answers, what people ask for, and what a dead node costs."""

from collections.abc import Iterator

import pytest
from integration.lab.l2world import OBJECTS, addresses, holder, killed, places, probing, processes_of, service
from scapy.layers.inet6 import ICMPv6ND_NA
from scapy.layers.l2 import ARP, Ether

from cirri.testing.lab import Lab

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
