"""``cirri l7``."""

from cirri.cli.l7 import listening, passing
from cirri.model.request import L7Listener, L7Rule

LABELS = {300: ("k8s:app=api", "port:x=1"), 301: ("k8s:app=web",)}


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_listeners() -> None:
    serving = L7Listener(port=10101, direction="ingress", identity=300, kind="http", state="serving", rules=2)
    failed = L7Listener(
        port=10100, direction="egress", identity=999, kind="tls", state="failed", rules=1, message="no"
    )
    assert rows(listening([("n1", serving), ("n1", failed)], LABELS)) == [
        "NODE PORT KIND DIRECTION IDENTITY LABELS STATE RULES MESSAGE",
        "n1 10100 tls egress 999 - failed 1 no",
        "n1 10101 http ingress 300 k8s:app=api serving 2 -",
    ]


def test_rules() -> None:
    request = {
        "method": "GET",
        "headers": ["X-A: 1"],
        "headerMatches": [
            {"name": "X-T", "value": "1", "mismatch": "LOG"},
            {"name": "X-S", "secret": {"namespace": "d", "name": "s"}},
        ],
    }
    one = L7Rule(port=10100, direction="ingress", identity=300, kind="http", cookie=7, request=request)
    named = L7Rule(
        port=10101, direction="egress", identity=301, kind="tls", server_names=("a.b",), tls=("terminating",)
    )
    every = L7Rule(port=10102, direction="egress", identity=302, kind="http")
    assert rows(
        passing([("n1", one), ("n1", named), ("n1", every)], LABELS, {7: "CiliumNetworkPolicy d/a"})
    ) == [
        "NODE PORT DIRECTION ENDPOINTS REQUESTS POLICY",
        "n1 10100 ingress k8s:app=api method GET CiliumNetworkPolicy d/a",
        "headers X-A: 1",
        "headerMatches X-T: 1, else LOG",
        "headerMatches X-S: Secret d/s",
        "n1 10101 egress k8s:app=web TLS a.b -",
        "TLS terminating here",
        "n1 10102 egress 302 any -",
    ]
