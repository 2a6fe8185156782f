"""The command line against the real service on a real bus; the test plays the nodes."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pyroaring import BitMap

from cirri.model import (
    ACKS,
    ENDPOINTS,
    IDENTITIES,
    NODES,
    POLICIES,
    SELECTORS,
    Ack,
    Compiled,
    Direction,
    Endpoint,
    Identity,
    NodeStatus,
    Origin,
    PolicyEntry,
    Rule,
    SelectorSet,
    SubjectPolicy,
)

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
DEMO, POLICY = str(EXAMPLES / "http-sw-app.yaml"), str(EXAMPLES / "sw_l3_l4_policy.yaml")
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: %s}\n"


@pytest.fixture(scope="module")
def cirri(served: Any) -> Any:
    """The demo, as a cluster of two nodes would have it."""
    served.ok("apply", "-f", DEMO)
    served.put(ENDPOINTS, *PODS)
    served.put(IDENTITIES, *IDENTITY)
    served.put(NODES, NodeStatus(node="node1", addresses=("192.168.3.11",)))
    served.put(SELECTORS, EMPIRE)
    served.put(
        POLICIES,
        PolicyEntry(subject=DEATHSTAR),
        PolicyEntry(compiled=Compiled(resources=9, selectors=1)),
    )
    return served


LABELS = ("k8s:class=deathstar", "k8s:io.kubernetes.pod.namespace=default", "k8s:org=empire")
IDENTITY = (
    Identity(id=6822, labels=LABELS),
    Identity(id=25698, labels=("k8s:class=tiefighter", "k8s:io.kubernetes.pod.namespace=default")),
    Identity(id=300, labels=()),
)
PODS = (
    Endpoint(
        node="node1", id=1453, namespace="default", pod="deathstar-b4b8ccfb5-w84sn", container_id="c1",
        interface="lxc1", ipv4="10.52.1.239", identity=6822, state="ready", ingress_enforced=True,
    ),
    Endpoint(
        node="node2", id=7, namespace="default", pod="tiefighter", container_id="c2", interface="lxc2",
        ipv4="10.52.2.26", ipv6="fd00:10:52::2:26", identity=25698, state="ready",
    ),
    Endpoint(
        node="node2", id=65535, namespace="", pod="", container_id="", interface="", identity=1,
        state="ready",
    ),
)  # fmt: skip
EMPIRE = SelectorSet(key="abc", text="k8s:org=empire", identities=BitMap([6822, 25698]).serialize())
DEATHSTAR = SubjectPolicy(
    identity=6822,
    ingress=Direction(
        enforced=True,
        rules=(
            Rule(selector="abc", protocol=6, port=80, origins=(5,)),
            Rule(selector="", deny=True, protocol=17),
        ),
    ),
    origins=(
        Origin(
            cookie=5, kind="CiliumNetworkPolicy", namespace="default", name="rule1",
            section="spec.ingress[0]", source="rule1.yaml:3",
        ),
    ),
)  # fmt: skip


def test_apply_says_what_kubectl_says(cirri: Any) -> None:
    assert cirri.ok("apply", "-f", POLICY) == "ciliumnetworkpolicy.cilium.io/rule1 created\n"
    assert cirri.ok("apply", "-f", DEMO, "-f", POLICY).splitlines() == [
        "service/deathstar unchanged",
        "deployment.apps/deathstar unchanged",
        "pod/tiefighter unchanged",
        "pod/xwing unchanged",
        "ciliumnetworkpolicy.cilium.io/rule1 unchanged",
    ]
    assert cirri.ok("delete", "cnp", "rule1") == 'ciliumnetworkpolicy.cilium.io "rule1" deleted\n'


def test_standard_input_and_json(cirri: Any) -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

    reply = json.loads(cirri.ok("apply", "-f", "-", "-o", "json", stdin=manifest))

    assert [r["action"] for r in reply["results"]] == ["created"]
    assert reply["revision"] == reply["results"][0]["revision"] > 0
    assert cirri.ok("delete", "-f", "-", stdin=manifest) == 'configmap "a" deleted\n'


def test_wrong_manifests_are_refused_with_their_place(cirri: Any, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n---\napiVersion: v1\nkind: Pod\n"
    )

    result = cirri.run("apply", "-f", str(file))

    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: nothing was applied:\n"
        f"{file}: document 2, line 5: metadata: required, but missing\n"
        f"{file}: document 2, line 5: spec: required, but missing\n"
    )
    assert cirri.run("get", "cm", "good").exit_code == 1


def test_what_is_not_enforced_yet_is_refused(cirri: Any, tmp_path: Path) -> None:
    file = tmp_path / "kafka.yaml"
    file.write_text(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec:\n"
        "  endpointSelector: {}\n  egress:\n  - toPorts:\n    - ports: [{port: '1', protocol: TCP}]\n"
        "      rules: {kafka: [{role: consume}]}\n"
    )

    result = cirri.run("apply", "-f", str(file))

    assert result.exit_code == 1
    assert f"{file}: document 1, line 9: spec.egress[0].toPorts[0].rules.kafka" in result.stderr


def test_a_folder_of_more_than_a_mebibyte_is_one_request(cirri: Any, tmp_path: Path) -> None:
    for number in range(15):
        metadata = {"name": f"big{number}", "namespace": "default"}
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"x": "y" * 200_000},
        }
        (tmp_path / f"{number}.json").write_text(json.dumps(manifest))
    try:
        assert cirri.ok("apply", "-f", str(tmp_path)).count(" created\n") == 15
    finally:
        cirri.run("delete", "-f", str(tmp_path))


def test_what_is_too_large_is_refused_with_the_limit(cirri: Any, tmp_path: Path) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "big"},
        "data": {"x": "y" * 950_000},
    }
    (tmp_path / "big.json").write_text(json.dumps(manifest))
    result = cirri.run("apply", "-f", str(tmp_path))
    assert result.exit_code == 1
    assert "allowed: at most 900000" in result.stderr
    for number in range(10):
        (tmp_path / f"{number}.json").write_text(
            json.dumps(manifest | {"metadata": {"name": f"big{number}"}})
        )
    result = cirri.run("apply", "-f", str(tmp_path))
    assert result.exit_code == 1
    assert "the bus takes 8387584; give fewer files at a time" in result.stderr


TABLES = [
    (
        "svc",
        "NAME        TYPE        CLUSTER-IP     EXTERNAL-IP   PORT(S)   AGE\n"
        "deathstar   ClusterIP   10.96.246.46   <none>        80/TCP    ",
    ),
    (
        "deployments",
        "NAME        READY   UP-TO-DATE   AVAILABLE   AGE\ndeathstar   0/2     0            0           ",
    ),
    (
        "po/xwing",
        "NAME    READY   STATUS    IP       NODE     AGE\nxwing   0/1     Pending   <none>   <none>   ",
    ),
    (
        "cep",
        "NAME                        SECURITY IDENTITY   INGRESS ENFORCEMENT   EGRESS ENFORCEMENT   "
        "VISIBILITY POLICY   ENDPOINT STATE   IPV4          IPV6\n"
        "deathstar-b4b8ccfb5-w84sn   6822                true                  <status disabled>    "
        "<status disabled>   ready            10.52.1.239\n"
        "tiefighter                  25698               <status disabled>     <status disabled>    "
        "<status disabled>   ready            10.52.2.26    fd00:10:52::2:26\n",
    ),
    ("ciliumid", "NAME    NAMESPACE\n6822    default\n25698   default\n"),
]


@pytest.mark.parametrize(("kind", "expected"), TABLES, ids=[t[0] for t in TABLES])
def test_get(cirri: Any, kind: str, expected: str) -> None:
    assert cirri.ok("get", kind).startswith(expected)


def test_get_in_other_forms(cirri: Any) -> None:
    one = json.loads(cirri.ok("get", "pod", "xwing", "-o", "json"))
    assert (one["kind"], one["metadata"]["labels"]["org"]) == ("Pod", "alliance")
    several = json.loads(cirri.ok("get", "pods,svc", "-A", "-o", "json"))
    assert [o["kind"] for o in several["items"]] == ["Pod", "Pod", "Service"]
    endpoint = json.loads(cirri.ok("get", "cep", "tiefighter", "-o", "json"))
    assert endpoint["status"]["networking"]["addressing"] == [
        {"ipv4": "10.52.2.26", "ipv6": "fd00:10:52::2:26"}
    ]
    assert cirri.ok("get", "ns", "-o", "yaml").startswith(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n"
    )
    assert cirri.ok("get", "pods", "-A").startswith("NAMESPACE   NAME")
    assert len(cirri.ok("get", "cep", "-A").splitlines()) == 3  # nodes are endpoints, but no pods
    assert cirri.run("get", "pods", "-n", "x").stderr == "No resources found in x namespace.\n"


FAILURES = [
    (("get", "pod", "ywing"), 1, 'Error: pod "ywing" not found in namespace default'),
    (("get", "podz"), 2, 'Error: unknown kind "podz" (did you mean "pods"?)'),
    (("delete", "pod", "ywing"), 1, "Error: nothing was deleted:\nPod default/ywing: not found"),
    (("delete", "pod"), 2, "Error: which pod? Give its NAME"),
    (("delete",), 2, "Error: give either KIND and NAME, or -f FILE"),
    (("delete", "thing", "x"), 2, 'Error: unknown kind "thing"'),
    (("apply",), 2, "Error: Missing option '-f' / '--filename'."),
    (
        ("apply", "-f", "/nowhere.yaml"),
        1,
        "Error: nothing was applied:\n/nowhere.yaml: no such file or directory",
    ),
    (
        ("get", "foo"),
        2,
        'unknown kind "foo"; known kinds: namespaces (ns), nodes (no), configmaps (cm), secrets, '
        "services (svc), endpointslices (eps), deployments (deploy), events (ev), pods (po), "
        "networkpolicies (netpol), "
        "ciliumnetworkpolicies (cnp), ciliumclusterwidenetworkpolicies (ccnp), ciliumcidrgroups (ccg), "
        "ciliumloadbalancerippools (ippools), "
        "ciliumbgpclusterconfigs (cbgpcluster), ciliumbgppeerconfigs (cbgppeer), "
        "ciliumbgpadvertisements (cbgpadvert), ciliumbgpnodeconfigs (cbgpnode), "
        "ciliumbgpnodeconfigoverrides (cbgpnodeoverride), ciliumbgppeeringpolicies (bgpp), "
        "ciliuml2announcementpolicies (l2announcement), "
        "tracingpolicies (tp), tracingpoliciesnamespaced (tpn), "
        "ciliumendpoints (cep), ciliumidentities (ciliumid)",
    ),
    (("identity", "get", "999"), 1, "Error: no identity 999. Identities: 1, 2, "),
    (("policy", "get", "--identity", "99999"), 1, "Error: no identity 99999. Identities: 1, 2, "),
    (("endpoint", "list", "--node", "node9"), 1, 'Error: no node "node9". Nodes: node1\n'),
    (("endpoint", "get", "7", "--node", "node9"), 1, 'Error: no node "node9". Nodes: node1\n'),
    (("ip", "list", "--node", "node9"), 1, 'Error: no node "node9". Nodes: node1\n'),
    (("endpoint", "get", "x"), 1, 'Error: no endpoint "x"'),
    (("policy", "get", "x"), 1, 'Error: policy "x" not found'),
    (("statsu",), 2, 'Error: no command "statsu" (did you mean "status"?)'),
]


@pytest.mark.parametrize(("arguments", "code", "message"), FAILURES, ids=[" ".join(f[0]) for f in FAILURES])
def test_failures(cirri: Any, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = cirri.run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr


def test_endpoint_list_is_the_table_of_cilium(cirri: Any) -> None:
    assert cirri.ok("endpoint", "list", "--node", "node1").splitlines() == [
        "ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS (source:key[=value])"
        "               IPv6   IPv4          STATUS",
        "           ENFORCEMENT        ENFORCEMENT",
        "",
        "1453       Enabled            Disabled          6822       k8s:class=deathstar"
        "                              10.52.1.239   ready",
        "                                                           k8s:io.kubernetes.pod.namespace=default",
        "                                                           k8s:org=empire",
    ]
    (found,) = json.loads(cirri.ok("endpoint", "get", "default/tiefighter"))
    assert (found["id"], found["node"], found["policyEnabled"]) == (7, "node2", "none")


def test_identities_and_addresses(cirri: Any) -> None:
    identities = {i["id"]: i["labels"] for i in json.loads(cirri.ok("identity", "list", "-o", "json"))}
    assert identities[1] == ["reserved:host"]
    assert identities[6822] == list(LABELS)
    assert 300 not in identities
    assert cirri.ok("ip", "list", "--node", "node1").splitlines() == [
        "IP                     IDENTITY   SOURCE                              NODE",
        "0.0.0.0/0              9          world",
        "10.52.1.239/32         6822       default/deathstar-b4b8ccfb5-w84sn   node1",
        "10.52.2.26/32          25698      default/tiefighter                  node2",
        "192.168.3.11/32        1          host                                node1",
        "::/0                   10         world",
        "fd00:10:52::2:26/128   25698      default/tiefighter                  node2",
    ]


def test_policy_get_names_the_section_of_the_manifest(cirri: Any) -> None:
    cirri.ok("apply", "-f", POLICY)
    assert cirri.ok("policy", "get", "rule1").splitlines() == [
        "Revision: 9",
        "",
        f"Subject 6822: {' '.join(LABELS)}",
        "Ingress enforced, egress not enforced",
        "DIRECTION   VERDICT   PEER             PORT     ORIGIN",
        "ingress     allow     k8s:org=empire   80/TCP   "
        "CiliumNetworkPolicy default/rule1 spec.ingress[0] (rule1.yaml:3)",
    ]
    every = json.loads(cirri.ok("policy", "get", "-o", "json"))["rules"]
    assert [(r["verdict"], r["peer"], r["port"], r["peers"]) for r in every] == [
        ("allow", "k8s:org=empire", "80/TCP", [6822, 25698]),
        ("deny", "any", "any/UDP", []),
        ("deny", "any", "any", []),
    ]
    cirri.ok("delete", "cnp", "rule1")


def test_policy_selectors(cirri: Any) -> None:
    header, first, second = cirri.ok("policy", "selectors").splitlines()
    assert header.split() == ["SELECTOR", "LABELS", "USERS", "IDENTITIES"]
    assert (first.split(), second.split()) == (["k8s:org=empire", "default/rule1", "1", "6822"], ["25698"])


def test_config_view(cirri: Any) -> None:
    config = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cirri-config, namespace: kube-system}\n"
        'data: {enable-policy: always, hubble-metrics: "drop\\nflow\\n"}\n'
    )
    cirri.ok("apply", "-f", "-", stdin=config)

    said = cirri.ok("config", "view")
    lines = dict(line.split(maxsplit=1) for line in said.splitlines() if line[:1].strip() and " " in line)

    at = said.index("always") - said.index("enable-policy")
    assert f"\n{'hubble-metrics':{at}}drop\n{'':{at}}flow\n" in said
    assert lines["enable-policy"] == "always"
    assert lines["cluster-pool-ipv4-cidr"] == "10.52.0.0/16"
    cirri.ok("delete", "-f", "-", stdin=config)


def test_status_counts_what_is_missing(cirri: Any) -> None:
    result = cirri.run("status", "-o", "json")

    assert result.exit_code == 1
    report = json.loads(result.stdout)
    components = {c["name"]: c for c in report["components"]}
    assert components["kubernetes"] == {"name": "kubernetes", "running": 1, "wanted": 1, "problems": []}
    assert components["policy"]["problems"] == ["not running"]
    assert "policy: not running" in report["problems"]
    assert (report["pods"], report["identities"], report["policy_revision"]) == (0, 2, 9)
    assert "Cluster Pods:  0/0 managed by Cirri" in cirri.run("status").stdout


def while_running(act: Callable[[], None], command: Callable[[], Result]) -> Result:
    """The result of *command*, beside which *act* runs."""
    found: list[Result] = []
    thread = threading.Thread(target=lambda: found.append(command()))
    thread.start()
    act()
    thread.join(20)
    return found[0]


def test_wait_names_the_nodes_that_are_behind_and_returns_when_they_are_not(cirri: Any) -> None:
    cirri.ok("apply", "-f", "-", stdin=NODE % "node1" + "---\n" + NODE % "node2")
    try:
        result = cirri.run("apply", "-f", POLICY, "--wait", "--timeout", "0.3")
        assert result.exit_code == 1
        assert result.stdout == "ciliumnetworkpolicy.cilium.io/rule1 created\n"
        revision = json.loads(cirri.ok("apply", "-f", POLICY, "-o", "json"))["revision"]
        late = f"node1: policies up to 0 of {revision}; node2: has not reported"
        assert f"not in force everywhere after 0.3 s: {late}" in result.stderr

        def acknowledge() -> None:
            for node in ("node1", "node2"):
                cirri.put(NODES, NodeStatus(node=node))
                cirri.put(ACKS, Ack(node=node, policy_revision=revision))

        done = while_running(
            acknowledge, lambda: cirri.run("apply", "-f", POLICY, "--wait", "--timeout", "15")
        )
        assert (done.exit_code, done.stdout) == (0, "ciliumnetworkpolicy.cilium.io/rule1 unchanged\n")
    finally:
        cirri.ok("delete", "node", "node1", "node2")
        cirri.run("delete", "cnp", "rule1")
