"""Policies on names, with real name servers: what a name's answer opens, for whom, and when.

::

    asker (node1), far (node2), silent (node1): the same policy; silent never asks for names
    refused: may ask for one name alone         denied: all of github.com, but not support.github.com
    picky: requests to a name, by path          chained: names that are aliases
"""

import json
import os
from collections.abc import Iterator

import pytest
from integration.lab.asked import SILENT, UNRESOLVED, Ask, both, differences, heard
from integration.lab.driven import Driven

from cirri.lab.internet import CDN_NAMES, CDN_POOL, address4, address6
from cirri.testing.lab import Lab

ROUNDS = int(os.environ.get("ROUNDS", "2000"))
"""Of each pod in the test of rotating addresses."""
DNS = """
  - toEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": kube-system, k8s-app: kube-dns}}]
    toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [%s]}}]"""
ANY_NAME = '{matchPattern: "*"}'


def pod(name: str, node: str, role: str) -> str:
    return f"""---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{role: {role}}}}}
spec: {{nodeName: {node}, containers: [{{name: main, image: pause}}]}}
"""


def policy(role: str, egress: str, names: str = ANY_NAME, deny: str = "") -> str:
    return f"""---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: {role}}}
spec:
  endpointSelector: {{matchLabels: {{role: {role}}}}}
  egress:{DNS % names}
  - {egress}
{deny}"""


PODS = (
    pod("asker", "node1", "asks")
    + pod("far", "node2", "asks")
    + pod("silent", "node1", "asks")
    + "".join(pod(role, "node1", role) for role in ("refused", "denied", "picky", "chained", "free"))
)
POLICIES = (
    policy("asks", 'toFQDNs: [{matchPattern: "*.cdn.example.net"}, {matchName: api.github.com}]')
    + policy(
        "refused",
        "toFQDNs: [{matchName: api.github.com}, {matchName: github.com}]",
        "{matchName: api.github.com}, {matchPattern: '*.cluster.local'}",
    )
    + policy(
        "denied",
        'toFQDNs: [{matchPattern: "*.github.com"}]',
        deny="  egressDeny:\n  - toFQDNs: [{matchName: support.github.com}]\n",
    )
    + policy(
        "picky",
        "{toFQDNs: [{matchName: api.github.com}], toPorts: [{ports: [{port: '80', protocol: TCP}],"
        " rules: {http: [{method: GET, path: '/repos/.*'}]}}]}",
    )
    + policy("chained", "toFQDNs: [{matchName: media.github.com}]")
)


@pytest.fixture(scope="module")
def world() -> Iterator[Lab]:
    with Lab(2, f"test-{os.getpid()}-names", "--without", "flows") as lab:
        lab.apply(PODS)
        ready = [Ask("free", "http://api.github.com/", "")]
        lab.wait(lambda: heard(lab, ready)[0].startswith("200"), what="the internet")
        lab.apply(POLICIES)
        yield lab


API = "This is api.github.com: GET"
TABLE = [
    Ask("asker", "http://api.github.com/", f"200 {API} /"),
    Ask("far", "http://api.github.com/", f"200 {API} /"),
    Ask("asker", "http://API.GitHub.com/", f"200 {API} /"),
    Ask("asker", "https://api.github.com/", f"200 {API} /"),
    Ask("asker", "http://github.com/", SILENT),
    Ask("asker", "http://n1.cdn.example.net/", "200 This is n1.cdn.example.net: GET /"),
    Ask("asker", "http://many.cdn.example.net/", "200 This is many.cdn.example.net: GET /"),
    Ask("asker", "http://cdn.example.net/", UNRESOLVED),  # it has no address
    Ask("refused", "http://api.github.com/", f"200 {API} /"),
    Ask("refused", "http://github.com/", UNRESOLVED),
    Ask("denied", "http://api.github.com/", f"200 {API} /"),
    Ask("denied", "http://support.github.com/", SILENT),
    Ask("denied", "http://github.com/", SILENT),
    Ask("picky", "http://api.github.com/repos/cirri", f"200 {API} /repos/cirri"),
    Ask("picky", "http://api.github.com/users", "403 Access denied"),
    Ask("picky", "https://api.github.com/repos/cirri", SILENT),
    Ask("chained", "http://media.github.com/", "200 This is media.github.com: GET /"),
    Ask("chained", "http://raw.githubusercontent.com/", SILENT),
    Ask("free", "http://github.com/", "200 This is github.com: GET /"),
]


def test_what_names_open(world: Lab) -> None:
    assert "\n".join(differences(world, both(TABLE))) == ""


def test_an_answer_opens_for_nobody_else(world: Lab) -> None:
    """Its address alone, which another pod's question opened, leads nowhere."""
    own = [Ask("asker", "http://api.github.com/", f"200 {API} /")]
    others = [
        Ask(name, f"--resolve api.github.com:80:{address} http://api.github.com/", SILENT)
        for name in ("silent", "chained")
        for address in ("203.0.113.11", "2001:db8:113::b")
    ]
    assert "\n".join(differences(world, [*both(own), *others])) == ""


def test_the_first_packet_after_every_answer(world: Lab) -> None:
    """Addresses change twice a second: nobody who asked waits; who did not ask, or may not, stays outside."""
    names = [f"{name}.cdn.example.net" for name in (*CDN_NAMES, "many")]
    options = {"names": names, "types": ["A", "AAAA"], "port": 80, "workers": 8}
    wanted = json.dumps({**options, "rounds": ROUNDS})
    pool = [address(n) for n in CDN_POOL for address in (address4, address6)]
    scanned = json.dumps({"addresses": pool, "port": 80})
    in_vain = json.dumps({**options, "rounds": 40, "patience_s": 0.5})
    running = [Driven(world, name, "resolving.py", "scan", scanned) for name in ("silent", "denied")]
    askers = [Driven(world, name, "resolving.py", wanted) for name in ("asker", "far")]
    vain = Driven(world, "picky", "resolving.py", in_vain)
    try:
        accounts = [asker.wait(ROUNDS / 10 + 60) for asker in askers]
        turned_away = vain.wait(30)
        scans = [scan.account() for scan in running]
    finally:
        for each in (*running, *askers, vain):
            each.close()

    print(json.dumps({"rounds": accounts, "in vain": turned_away, "scans": scans}, indent=1))
    assert turned_away["not connected"] == turned_away["answered"] == 40
    for account in accounts:
        assert account["wrong"] == []
        assert account["connected"] == ROUNDS
        assert account["by stream"] > 0
    for scanned_pod in scans:
        assert scanned_pod["tried"] >= len(pool)
        assert scanned_pod["reached"] == {}
