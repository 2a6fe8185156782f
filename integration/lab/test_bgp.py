"""Announcements over BGP: BIRD and FRR take them, and clients outside reach Services through either.

The lab has three: BIRD; FRR beside it, with a password and on another port, both writing the router's kernel;
and FRR behind the router, which connects to the nodes over IPv6.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import pytest
from integration.lab.bgpworld import (
    BIRD,
    NAME,
    PEERS,
    SERVICE,
    WORLD,
    addresses,
    established,
    has_ways,
    known,
    peers,
    reaches,
    ways,
)
from integration.lab.frr import FAR, FAR_CONFIG, FOREIGN, NEAR, NEAR_CONFIG, SECRET, Frr

from cirri.testing.lab import Lab

NODES = ("node1", "node2")
SERVICES = (("cluster", 2), ("local", 1))
"""And how many nodes lead to it."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(2, NAME, "--without", "flows", services=("bgp",)) as running:
        named = [SERVICE.format(name=name, policy=name.title()) for name, _ in SERVICES]
        running.apply(WORLD + "---" + PEERS + "".join(named))
        running.wait(lambda: established(running) == 2, seconds=60, what="two sessions with BIRD")
        yield running


class Routers(NamedTuple):
    """FRR twice, and the routes of the nodes' kernels before it came."""

    near: Frr
    far: Frr
    before: dict[str, str]


@pytest.fixture(scope="module")
def frr(lab: Lab) -> Iterator[Routers]:
    before = {node: routes(lab, node) for node in NODES}
    assert lab.on("router", "ip", "address", "add", f"{NEAR}/24", "dev", "eth0").returncode == 0
    assert lab.on("internet", "ip", "address", "add", f"{FAR}/128", "dev", "lo").returncode == 0
    with (
        Frr(lab, "router", NEAR_CONFIG, kernel=True) as near,
        Frr(lab, "internet", FAR_CONFIG, kernel=False) as far,
    ):
        lab.wait(lambda: established(lab) == 6, seconds=90, what="six sessions")
        yield Routers(near, far, before)


def routes(lab: Lab, node: str) -> str:
    """The main tables of a node's kernel."""
    return "".join(lab.on(node, "ip", family, "route").stdout for family in ("-4", "-6"))


def advertised(lab: Lab, family: str = "ipv4") -> dict[str, set[str]]:
    """Node -> prefixes that it tells its peers."""
    told = json.loads(lab.cirri("bgp", "routes", "advertised", family, "unicast", "-o", "json").stdout)
    return {node: {r["prefix"] for r in told if r["node"] == node} for node in NODES}


def test_clients_outside_reach_services_by_every_node_that_may(lab: Lab) -> None:
    for name, nodes in SERVICES:
        for address in addresses(lab, name):
            lab.wait(partial(has_ways, lab, address, nodes), what=f"{nodes} ways to {address}")
            assert all(reaches(lab, address) for _ in range(4)), address


def test_what_the_router_hears_and_the_command_says(lab: Lab) -> None:
    words = lab.on("router", *BIRD, "show", "route", "all").stdout
    assert "(65001,99)" in words
    assert "(65001, 1, 2)" in words
    assert "4294967295" not in words, "what routes are marked with stays on the node"
    by_node = advertised(lab)
    local = f"{addresses(lab, 'local')[0]}/32"
    assert local in by_node["node1"]
    assert local not in by_node["node2"]
    for peer in (each for each in peers(lab) if each["name"] == "router"):
        assert [count["advertised"] for count in peer["families"]] == [len(by_node[peer["node"]])] * 2
    config = lab.get("cbgpnode", "node1")
    assert config["spec"]["bgpInstances"][0]["peers"][0]["peerAddress"] == "192.168.3.2"


LEGACY = """
apiVersion: cilium.io/v2alpha1
kind: CiliumBGPPeeringPolicy
metadata: {name: old}
spec:
  nodeSelector: {}
  virtualRouters:
  - localASN: 65001
    exportPodCIDR: false
    serviceSelector: {matchExpressions: [{key: never, operator: DoesNotExist}]}
    neighbors:
    - peerAddress: 192.168.3.2/32
      peerASN: 64512
      connectRetryTimeSeconds: 1
      families: [{afi: ipv4, safi: unicast}, {afi: ipv6, safi: unicast}]
"""


def told(lab: Lab, prefix: str) -> int:
    """How many next hops the router's kernel has for *prefix* itself."""
    found = lab.on("router", "ip", "-j", "route", "show", "exact", prefix, "proto", "bird").stdout
    return sum(len(route.get("nexthops", [route])) for route in json.loads(found or "[]"))


def test_one_route_for_many_addresses(lab: Lab) -> None:
    """Of Services that every node serves; those with a Local policy keep their own."""
    cluster, local = (addresses(lab, name)[0] for name, _ in SERVICES)
    everything = WORLD.split("---")[1]
    lab.apply(everything.replace("[LoadBalancerIP]", "[LoadBalancerIP], aggregationLengthIPv4: 26"))
    lab.wait(lambda: told(lab, "198.51.100.0/26") == 2, what="one route by two nodes")
    lab.wait(lambda: told(lab, f"{cluster}/32") == 0, what="no route of its own")
    assert told(lab, f"{local}/32") == 1
    assert all(reaches(lab, cluster) for _ in range(4))
    lab.apply(everything)
    lab.wait(lambda: told(lab, f"{cluster}/32") == 2, what="routes of their own")
    lab.wait(lambda: told(lab, "198.51.100.0/26") == 0, what="the end of the aggregate")


def test_the_legacy_policy(lab: Lab) -> None:
    """It holds while there is no ClusterConfig."""
    (cluster, *_) = addresses(lab, "cluster")
    lab.delete("ciliumbgpclusterconfig", "lab")
    lab.wait(lambda: told(lab, f"{cluster}/32") == 0, what="the end of the sessions")
    lab.apply(LEGACY)
    for address in addresses(lab, "cluster"):
        lab.wait(partial(has_ways, lab, address, 2), seconds=60, what=f"two ways to {address}")
        assert reaches(lab, address)
    prefixes = {prefix for each in advertised(lab).values() for prefix in each}
    assert {prefix.partition("/")[2] for prefix in prefixes} == {"32"}, "no pods' ranges"
    lab.delete("ciliumbgppeeringpolicy", "old")
    lab.apply(PEERS)
    lab.wait(lambda: established(lab) == 2, seconds=60, what="two sessions with BIRD")
    lab.wait(partial(has_ways, lab, cluster, 2), what="two ways again")


@contextmanager
def without_birds_routes(lab: Lab) -> Iterator[None]:
    """BIRD keeps its sessions, and takes its routes out of the kernel: zebra prefers what is there."""
    protocols = ("kernel1", "kernel2")
    try:
        for each in protocols:
            lab.on("router", *BIRD, "disable", each)
        yield
    finally:
        for each in protocols:
            lab.on("router", *BIRD, "enable", each)


def test_frr_takes_them_as_well(lab: Lab, frr: Routers) -> None:
    """Through zebra into the router's kernel, and clients come by its routes."""
    with without_birds_routes(lab):
        for name, nodes in SERVICES:
            for address in addresses(lab, name):
                lab.wait(
                    partial(has_ways, lab, address, nodes, "bgp"), what=f"FRR's {nodes} ways to {address}"
                )
                assert ways(lab, address) == 0, "by BIRD"
                assert all(reaches(lab, address) for _ in range(4)), address
    said = json.loads(frr.near.say("show bgp ipv4 unicast json"))
    assert len(said["routes"][f"{addresses(lab, 'cluster')[0]}/32"]) == 2
    lab.wait(partial(has_ways, lab, address, 1), what="BIRD's routes")


def test_what_a_router_says_changes_nothing(lab: Lab, frr: Routers) -> None:
    """NEAR announces a default route, the pods' and the Services' ranges and a node; all of it is heard."""
    lab.wait(
        lambda: all(p["families"][0]["received"] >= len(FOREIGN) for p in peers(lab) if p["name"] == "near"),
        what="routes heard (FRR passes on those of the other node, too)",
    )
    assert {node: routes(lab, node) for node in NODES} == frr.before
    address = addresses(lab, "cluster")[0]
    assert ways(lab, address) == 2
    assert not any("0.0.0.0/0" in told or "10.52.0.0/16" in told for told in advertised(lab).values())
    assert lab.on("client", "curl", "-s", "-m", "5", "-o", "/dev/null", f"http://{address}/").returncode == 0


def kept(frr: Routers) -> tuple[int, int]:
    """Paths that FRR has, by family."""
    found = [json.loads(frr.near.say(f"show bgp {family} unicast json")) for family in ("ipv4", "ipv6")]
    v4, v6 = (sum(len(paths) for paths in each["routes"].values()) for each in found)
    return v4, v6


def hops(frr: Routers) -> set[str]:
    """Next hops of the IPv4 paths that FRR has."""
    found = json.loads(frr.near.say("show bgp ipv4 unicast json"))
    return {hop["ip"] for paths in found["routes"].values() for path in paths for hop in path["nexthops"]}


@pytest.mark.parametrize("program", ["bgp-node1", "gobgpd-node1"])
def test_killing_it_withdraws_nothing(lab: Lab, frr: Routers, program: str) -> None:
    address = addresses(lab, "local")[0]
    before = (known(lab), kept(frr))
    old = lab.pids()[program]
    os.kill(old, signal.SIGKILL)

    def back() -> bool:
        assert (known(lab), kept(frr)) == before, "a route is gone"
        assert reaches(lab, address)
        return lab.pids()[program] not in (0, old) and established(lab) == 6

    lab.wait(back, seconds=90, what=f"{program} is back")
    assert (known(lab), kept(frr)) == before


def test_a_drained_node_announces_nothing_and_its_peers_have_it(lab: Lab, frr: Routers) -> None:
    (address, _), before = addresses(lab, "cluster"), (known(lab), kept(frr))
    assert "192.168.3.12" in hops(frr)
    done = json.loads(lab.cirri("bgp", "drain", "node2", "-o", "json").stdout)
    assert [(peer["advertised"], peer["confirmed"]) for peer in done["peers"]] == [(0, True)] * 3
    lab.wait(lambda: ways(lab, address) == 1, what="one way is left")
    assert "192.168.3.12" not in hops(frr), "FRR has nothing of that node"
    assert reaches(lab, address)
    lab.cirri("bgp", "undrain", "node2")
    lab.wait(lambda: (known(lab), kept(frr)) == before, what="everything is announced again")


def test_a_wrong_password_shows(lab: Lab, frr: Routers) -> None:
    """Whichever end has another one; with the right one the session is back."""
    frr.near.configure("neighbor NODES password another")
    frr.near.say("clear bgp *")

    def shows() -> bool:
        mine = [each for each in peers(lab) if each["name"] == "near"]
        return all(each["state"] != "established" and "password" in each["problem"] for each in mine)

    lab.wait(shows, seconds=60, what="it shows in cirri bgp peers")
    assert established(lab) == 4, "others are as they were"
    frr.near.configure(f"neighbor NODES password {SECRET}")
    lab.wait(lambda: established(lab) == 6, seconds=60, what="sessions with the right password")


def manifest(kind: str, spec: str, name: str = "bad") -> str:
    """An object, with a *spec* in the short form."""
    return f"apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


CONFIG, PEER_CONFIG = "CiliumBGPClusterConfig", "CiliumBGPPeerConfig"


def config(*instances: tuple[str, int, str], asn: int = 64999, address: str = "192.168.3.99") -> str:
    """A config of instances (name, AS, what else its one peer has)."""
    peer = f"name: x, peerASN: {asn}, peerAddress: {address}"
    said = [f"{{name: {n}, localASN: {own}, peers: [{{{peer}{more}}}]}}" for n, own, more in instances]
    return f"{{bgpInstances: [{', '.join(said)}]}}"


ONE = ("a", 65009, "")
REFUSED = {
    "AS 0": (CONFIG, config(("a", 0, "")), "spec.bgpInstances[0].localASN: 0 is out of range"),
    "AS 0 of a peer": (CONFIG, config(ONE, asn=0), "spec.bgpInstances[0].peers[0].peerASN: 0 is out of"),
    "one AS twice": (CONFIG, config(ONE, ("b", 65009, "")),
                     "spec.bgpInstances[1].localASN: 65009 is already that of instance 0"),
    "one name twice": (CONFIG, config(ONE, ("a", 65008, "")), "spec.bgpInstances[1].name"),
    "one peer twice": (CONFIG, config(ONE, ("b", 65008, "")), '"192.168.3.99" is already a peer of instance'),
    "no address": (CONFIG, config(ONE, address="router"), "spec.bgpInstances[0].peers[0].peerAddress"),
    "group's address": (CONFIG, config(ONE, address="224.0.0.5"), '"224.0.0.5" is not the address of'),
    "family": (PEER_CONFIG, "{families: [{afi: l2vpn, safi: evpn}]}", "spec.families[0].afi"),
    "BFD": (PEER_CONFIG, "{bfdProfileRef: {name: fast}}", "has no BFD"),
    "timers": (PEER_CONFIG, "{timers: {holdTimeSeconds: 9, keepAliveTimeSeconds: 30}}",
               "spec.timers.keepAliveTimeSeconds"),
}  # fmt: skip
UNKNOWN = config(("a", 65009, ", peerConfigRef: {name: nowhere}"))


def test_what_cannot_be_meant_is_refused_and_changes_nothing(lab: Lab, frr: Routers) -> None:
    """At the door; a PeerConfig that does not exist, and a second config for the nodes, by condition."""
    before = (known(lab), kept(frr), established(lab), {node: routes(lab, node) for node in NODES})
    for what, (kind, spec, says) in REFUSED.items():
        done = lab.cirri("apply", "-f", "-", stdin=manifest(kind, spec), check=False)
        assert (done.returncode, "nothing was applied" in done.stderr) == (1, True), what
        assert says in done.stderr, (what, done.stderr)
    lab.apply(manifest(CONFIG, UNKNOWN, "zz-bad"), wait=False)

    def named() -> bool:
        said = lab.get("cbgpcluster", "zz-bad").get("status", {}).get("conditions", [])
        true = {c["type"]: c["message"] for c in said if c["status"] == "True"}
        return "nowhere" in true.get("cilium.io/MissingPeerConfigs", "") and "lab holds" in true.get(
            "cilium.io/ConflictingClusterConfig", ""
        )

    lab.wait(named, what="conditions")
    assert before == (known(lab), kept(frr), established(lab), {node: routes(lab, node) for node in NODES})
    lab.cirri("delete", "cbgpcluster", "zz-bad")


def test_a_missing_secret_is_named_and_changes_nothing(lab: Lab, frr: Routers) -> None:
    before = known(lab)
    with_secret = PEERS.replace("gracefulRestart:", "authSecretRef: absent\n  gracefulRestart:", 1)
    lab.apply(with_secret, wait=False)

    def condition() -> bool:
        found = lab.get("cbgppeer", "router").get("status", {}).get("conditions", [])
        return any(c["type"] == "cilium.io/MissingAuthSecret" and c["status"] == "True" for c in found)

    lab.wait(condition, what="the condition")
    assert (known(lab), lab.on("router", *BIRD, "show", "protocols").stdout.count("Established")) == (
        before,
        2,
    )
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: absent, namespace: kube-system}\n"
    lab.apply(secret + "stringData: {password: wrong}\n", wait=False)
    # The router knows of no password: it hears nothing, and neither does the node.
    lab.wait(lambda: any("password" in peer["problem"] for peer in peers(lab)), what="it shows", seconds=60)
    lab.apply(PEERS, wait=False)
    lab.wait(lambda: established(lab) == 6, seconds=60, what="sessions without a password")
