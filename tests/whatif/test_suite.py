"""Suites of ``policy test``: how they are read and how flows end."""

import re
from pathlib import Path

import pytest

from cirri.manifests import ManifestError
from cirri.whatif.run import Result, matches, run
from cirri.whatif.suite import EXPECT, suites

WORLD = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: a, port: 80, targetPort: http}, {name: b, port: 81, targetPort: 9}]
---
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {selector: {io.cirri.none: x}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ext}
spec: {ports: [{name: a, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ext-1, labels: {kubernetes.io/service-name: ext}}
addressType: IPv4
ports: [{name: a, port: 8081}]
endpoints: [{addresses: [192.0.2.1]}, {addresses: [192.0.2.2]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
    - toPorts:
        - ports: [{port: "8080", protocol: TCP}]
        - ports: [{port: "8443", protocol: TCP}]
          rules: {http: [{method: GET, path: /a, headers: ["X-Who: me"]}]}
  egress: [{toPorts: [{ports: [{port: "8081", protocol: TCP}]}]}]
"""


def results(folder: Path, text: str) -> list[Result]:
    (folder / "world.yaml").write_text(WORLD)
    (folder / "suite.yaml").write_text(f"manifests: [world.yaml]\n{text}")
    return [result for suite in suites([str(folder / "suite.yaml")]) for result in run(suite)[0]]


def case(flow: str) -> str:
    return f"cases: [{{{flow}, expect: allow}}]"


@pytest.mark.parametrize(
    ("flow", "got"),
    [
        ("from: default/db, to: default/web, port: 8080", "direct"),
        ("from: default/db, to: default/web, port: 80", "default-deny"),
        ("from: default/db, to: {service: default/web}, port: 80", "direct"),
        ("from: default/db, to: {service: default/web}, port: 81", "default-deny"),
        ("from: default/web, to: {service: default/web}, port: 81", "direct"),
        ("from: default/web, to: {service: default/ext}, port: 80", "direct"),
        ("from: default/web, to: {ip: 192.0.2.1}, port: 80", "default-deny"),
        ("from: reserved:host, to: default/web, port: 80", "direct"),
        ("from: {labels: [reserved:remote-node]}, to: default/web, port: 80", "default-deny"),
        ("from: {labels: [app=db], ports: {http: 1}}, to: default/web, port: 8080/UDP", "default-deny"),
    ],
)
def test_flows(tmp_path: Path, flow: str, got: str) -> None:
    (found,) = results(tmp_path, case(flow))
    assert found.got == got
    assert found.passed == (got == "direct")


@pytest.mark.parametrize(
    ("request_", "got", "reason"),
    [
        ("http: {path: /a, headers: {x-who: me}}", "redirect",
         'listed by CiliumNetworkPolicy default/web spec.ingress[0] (F): {"headers":["X-Who: me"],'
         '"method":"GET","path":"/a"}'),
        ("http: {path: /a}", "403",
         "refused, no rule lists it; CiliumNetworkPolicy default/web spec.ingress[0] (F) asks for the proxy"),
        ("http: {method: PUT, path: /a, headers: {X-Who: me}}", "403", "refused, no rule lists it"),
        ("dns: a.example", "closed", "reads other requests than that"),
    ],
)  # fmt: skip
def test_requests(tmp_path: Path, request_: str, got: str, reason: str) -> None:
    (found,) = results(tmp_path, case(f"from: default/db, to: default/web, port: 8443, {request_}"))
    assert found.got == got
    told = re.sub(r"\([^)]*/world.yaml:\d+\)", "(F)", found.reasons[-1])
    assert told.startswith(f"default/web: ingress: http proxy: {reason}")


def test_a_request_is_passed_on_where_no_proxy_looks(tmp_path: Path) -> None:
    (found,) = results(tmp_path, case("from: default/db, to: default/web, port: 8080, http: {method: PUT}"))
    assert (found.got, found.request) == ("direct", "PUT /")


def test_lists_are_all_their_combinations(tmp_path: Path) -> None:
    ends = (
        "from: [default/db, {ip: 192.0.2.9}], to: [default/web, {service: default/web}], port: [80, 81/UDP]"
    )
    with pytest.raises(ManifestError, match="leads nowhere at 81/UDP"):
        results(tmp_path, case(ends))
    found = results(tmp_path, case(ends.replace("81/UDP", "81")))
    assert len({(one.source, one.target, one.port) for one in found}) == 8
    assert {one.got for one in found} == {"direct", "default-deny"}


def test_reasons_name_everybody_who_was_asked(tmp_path: Path) -> None:
    (found,) = results(tmp_path, case("from: default/db, to: default/web, port: 81"))
    assert found.reasons == [
        "default/db: egress: not enforced",
        "default/web: ingress: no rule of CiliumNetworkPolicy default/web allows it (default deny)",
    ]
    assert (found.line, found.target, found.protocol) == (2, "default/web", "TCP")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (case("from: default/wep, to: default/db, port: 1"),
         'suite.yaml: line 2: nobody is called "default/wep" (did you mean "default/web"?)'),
        (case("from: default/db, to: {service: default/wep}, port: 1"),
         'suite.yaml: line 2: no Service "default/wep" in the manifests (did you mean "default/web"?)'),
        (case("from: default/db, to: {service: default/all}, port: 80"), "leads nowhere at 80/TCP"),
        (case("from: {service: default/web}, to: default/db, port: 80"), "cases[0].from.service: unknown"),
        (case("from: a, to: {service: default/web, ip: 1.2.3.4}, port: 1"), "to.service: stands alone"),
        (case("from: {}, to: default/db, port: 1"), "cases[0].from.labels: required, but missing"),
        (case("from: 5, to: [], port: 1"), "cases[0].from: must be a name or a mapping with ip, l"),
        (case("from: 5, to: [], port: 1"), "cases[0].to: must not be empty"),
        (case("from: a, to: b, port: [1, x]"), 'line 2: cases[0].port[1]: "x" is not a port'),
        (case("from: a, to: b, port: 1, http: {}, sni: x"), "cases[0].sni: a case asks one thing: http"),
        ("cases:\n- from: a\n  to: b\n  port: 1\n  expect: alow",
         'line 6: cases[0].expect: "alow" is not allowed (did you mean "allow"?)'),
        ("cases: []", "cases: must have at least one item"),
        ("name: x", "cases: required, but missing"),
        ("config: {enable-polic: never}", '"enable-polic" is no key of the configuration (did you mean '),
        ("case: []", 'case: unknown field (did you mean "cases"?)'),
        ("objects:\n- kind: Pod\n  spec: {}\n" + case("from: a, to: b, port: 1"), "line 3: metadata: req"),
    ],
)  # fmt: skip
def test_wrong_suites(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ManifestError) as caught:
        results(tmp_path, text)
    assert error in str(caught.value)


def test_a_manifest_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(f"manifests: [../none.yaml]\n{case('from: a, to: b, port: 1')}")
    with pytest.raises(ManifestError, match=f"{tmp_path.parent}/none.yaml: no such file"):
        run(suites([str(tmp_path / "suite.yaml")])[0])


def test_words_stand_for_outcomes() -> None:
    outcomes = set(EXPECT) - {"allow", "deny"}
    assert {one for one in outcomes if matches("allow", one)} == {"direct", "redirect", "audited"}
    assert {one for one in outcomes if matches("deny", one)} == {"default-deny", "deny-rule", "auth-required"}
    assert all([other for other in outcomes if matches(one, other)] == [one] for one in outcomes)
