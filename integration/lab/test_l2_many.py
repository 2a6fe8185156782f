"""A thousand addresses on the segment; objects that cannot be understood; a bus that is away."""

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration.lab.l2world import OBJECTS, addresses, holder, places, probing, service

from cirri.testing.lab import Lab

FEW, MANY = 10, 1000
NODES = ("node1", "node2", "node3")
POOL = """---
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {{name: {name}}}
spec:
  serviceSelector: {{matchLabels: {{kind: many}}}}
  blocks: [{blocks}]
"""
MANIFEST = """---
apiVersion: v1
kind: Service
metadata: {{name: many{number}, labels: {{kind: many}}}}
spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80}}]}}
"""
POLICY = """
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {{name: bad}}
spec: {{loadBalancerIPs: true, {spec}}}
"""
REFUSED = {
    "empty block": (POOL.format(name="bad", blocks="{}"), "spec.blocks"),
    "start after stop": (
        POOL.format(name="bad", blocks="{start: 10.9.16.9, stop: 10.9.16.1}"),
        "from 10.9.16.9 on",
    ),
    "wrong family": (
        POOL.format(name="bad", blocks='{start: 10.9.16.1, stop: "fd00::9"}'),
        "not an IPv4 address",
    ),
    "no prefix": (POOL.format(name="bad", blocks="{cidr: 10.9.16.0/33}"), "10.9.16.0/33"),
    "expression": (POLICY.format(spec='interfaces: ["eth["]'), "no regular expression"),
    "selector": (
        POLICY.format(spec="serviceSelector: {matchExpressions: [{key: a, operator: Near}]}"), "Near"
    ),
}  # fmt: skip
SAMPLE_S, AWAY_S = 2.4, 2.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(3, "", "--without", "flows", services=("l2",)) as made:
        pool = POOL.format(name="many", blocks="{cidr: 10.9.0.0/20}")
        with_selector = OBJECTS.replace(
            "spec: {blocks", "spec: {serviceSelector: {matchLabels: {kind: few}}, blocks"
        )
        echo = service("echo", "echo").replace("name: echo,", "name: echo, labels: {kind: few},")
        made.apply(with_selector + pool + echo)
        made.wait(lambda: len(held(made)) == 2, what="addresses of the first Service")
        yield made


def held(lab: Lab) -> dict[str, str]:
    """Address -> node, of those that a node holds."""
    return {address: row["node"] for address, row in places(lab).items() if row["node"]}


def taken(lab: Lab) -> int:
    """How often a node has taken an address, as they log it."""
    return logged(lab, "takes")


def logged(lab: Lab, event: str) -> int:
    """How often they say so."""
    lines = (line for log in logs(lab) for line in log.read_text().splitlines() if line[:1] == "{")
    return sum(json.loads(line)["event"] == event for line in lines)


def logs(lab: Lab) -> Iterator[Path]:
    return Path("/run/cirri", lab.name, "logs").glob("l2-*.log")


def add(lab: Lab, begin: int, end: int) -> None:
    """Services *begin* to *end*, and each has a node."""
    lab.apply("".join(MANIFEST.format(number=number) for number in range(begin, end)), wait=False)
    lab.wait(lambda: len(held(lab)) == 2 + end, seconds=60, what=f"{end} Services are held")


def carried(lab: Lab) -> dict[str, int]:
    """Connection -> bytes that the bus has sent to it."""
    text = lab.on("fabric", "ss", "-tinHO", "state", "established", "sport", "=", ":4222").stdout
    found = {}
    for line in text.splitlines():
        sent = re.search(r"bytes_sent:(\d+)", line)
        found[line.split()[3]] = int(sent[1]) if sent else 0
    return found


def rate(lab: Lab) -> float:
    """Bytes a second that the bus sends to services, the smallest of three samples: what never ends."""
    found = []
    for _ in range(3):
        before, began = carried(lab), time.monotonic()
        time.sleep(SAMPLE_S / 3)
        after, took_s = carried(lab), time.monotonic() - began
        found.append(sum(after[each] - before[each] for each in before.keys() & after.keys()) / took_s)
    return min(found)


def test_a_thousand_services_are_balanced_and_cost_the_bus_nothing(lab: Lab) -> None:
    add(lab, 0, FEW)
    few = rate(lab)
    add(lab, FEW, MANY)
    share = Counter(held(lab).values())
    assert set(share) == set(NODES)
    assert max(share.values()) <= 1.1 * min(share.values()), share
    many = rate(lab)
    print(f"bus: {few:.0f} B/s with {FEW} Services, {many:.0f} B/s with {MANY}; {dict(share)}")
    assert few > 1000, "beats are not seen"
    assert many < 1.5 * few


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_understood_is_refused_and_changes_nothing(lab: Lab, name: str) -> None:
    text, why = REFUSED[name]
    before, moves = held(lab), taken(lab)
    done = lab.cirri("apply", "-f", "-", check=False, stdin=text)
    assert (done.returncode, why in done.stderr) == (1, True), done.stderr
    assert "bad" not in lab.cirri("get", "ippools").stdout
    assert (held(lab), taken(lab)) == (before, moves)


def test_a_pool_that_overlaps_an_older_one_says_so_and_changes_nothing(lab: Lab) -> None:
    before, moves = held(lab), taken(lab)
    lab.apply(POOL.format(name="late", blocks="{cidr: 10.9.1.0/24}"))

    def conflict() -> str:
        found = next(each for each in lab.get("ippools")["items"] if each["metadata"]["name"] == "late")
        told = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
        clash = told.get("cilium.io/PoolConflict", {})
        return f"{clash.get('status')} {clash.get('reason')} {clash.get('message')}"

    clash = "block 10.9.1.0-10.9.1.255 overlaps 10.9.0.0-10.9.15.255 of pool many"
    lab.wait(lambda: conflict() == f"True cidr_overlap {clash}", what="the conflict")
    lab.delete("ippools", "late")
    assert (held(lab), taken(lab)) == (before, moves)


def stop(lab: Lab) -> None:
    """The bus does not answer for a while."""
    pid = lab.pids()["nats-server"]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(AWAY_S)
    os.kill(pid, signal.SIGCONT)


def kill(lab: Lab) -> None:
    """The bus is killed; the lab starts it again."""
    os.kill(lab.pids()["nats-server"], signal.SIGKILL)


@pytest.mark.parametrize("lose", [stop, kill], ids=["stopped", "killed"])
def test_the_loss_of_the_bus_moves_nothing(lab: Lab, lose: Callable[[Lab], None]) -> None:
    """The holder answers all the while and alone, and nobody takes anything, not after the return either."""
    address = addresses(lab, "echo")[0]
    node = holder(lab, address)
    before, moves, back = held(lab), taken(lab), logged(lab, "sees again")
    with probing(lab, address, AWAY_S + 2.5) as found:
        lose(lab)
        lab.wait(lambda: logged(lab, "sees again") - back >= len(NODES), what="all see again")
    (saw,) = found
    assert len(saw.holders) == 1, "another node answered"
    assert saw.answers
    assert saw.outage_s < AWAY_S / 2, "the holder did not answer"
    lab.wait(lambda: held(lab) == before, what="the places of before")
    assert (holder(lab, address), taken(lab)) == (node, moves)
