"""The chart, by Helm's own engine: what its values make, what they cannot, and what containers may."""

import base64
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import helm_python
import pytest

from cirri.lab.services import COMPANIONS
from cirri.manifests.config import KEYS, config_faults
from cirri.model import Resource
from cirri.testing import chart, chartvalues
from cirri.testing.docs import services
from cirri.testing.rendering import HOSTS, Manifest, faults, of, pods, render

VERSIONS = ("1.25", "1.37")
SERVICES = {s.name: s for s in services()}
EVERYBODY = {
    f"cirri-{name}"
    for name in SERVICES
    if not {*chart.GATES.get(name, ())}
    - {"hubble.enabled", "hubble.relay.enabled", "l7Proxy", "healthChecking"}
} | {"cirri-nats"}
ONE_HOST = {"nats": {"replicas": 1, "hosts": HOSTS[:1]}}


class Case(NamedTuple):
    """What *values* say in ``cirri-config``, and which workloads they leave out."""

    id: str
    values: dict[str, Any]
    config: dict[str, str] = {}  # noqa: RUF012
    without: frozenset[str] = frozenset()


CASES = [
    Case("defaults", {}, {"routing-mode": "native", "enable-hubble": "true"}),
    Case(
        "as the field's documents install it",
        {
            "kubeProxyReplacement": True,
            "k8sServiceHost": "192.0.2.1",
            "k8sServicePort": 6443,
            "bpf": {"masquerade": True},
            "ipam": {"mode": "cluster-pool"},
        },
    ),
    Case(
        "tunnels",
        {"routingMode": "tunnel", "tunnelProtocol": "vxlan", "tunnelPort": 8473},
        {"routing-mode": "tunnel", "tunnel-protocol": "vxlan", "tunnel-port": "8473"},
    ),
    Case(
        "native routing",
        {
            "routingMode": "native",
            "ipv4NativeRoutingCIDR": "10.0.0.0/8",
            "enableIPv6Masquerade": False,
            "nonMasqueradeCIDRs": ["10.1.0.0/16", "10.2.0.0/16"],
        },
        {
            "ipv4-native-routing-cidr": "10.0.0.0/8",
            "enable-ipv6-masquerade": "false",
            "non-masquerade-cidrs": "10.1.0.0/16 10.2.0.0/16",
        },
    ),
    Case(
        "own pools",
        {
            "ipam": {
                "operator": {
                    "clusterPoolIPv4PodCIDRList": ["10.60.0.0/16", "10.61.0.0/16"],
                    "clusterPoolIPv4MaskSize": 26,
                }
            },
            "serviceClusterIPRange": ["10.43.0.0/16"],
        },
        {
            "cluster-pool-ipv4-cidr": "10.60.0.0/16 10.61.0.0/16",
            "cluster-pool-ipv4-mask-size": "26",
            "service-cluster-ip-range": "10.43.0.0/16",
        },
    ),
    Case(
        "without IPv6",
        {"ipam": {"operator": {"clusterPoolIPv6PodCIDRList": []}}},
        {"cluster-pool-ipv6-cidr": ""},
    ),
    Case(
        "load balancing",
        {
            "loadBalancer": {
                "algorithm": "maglev",
                "mode": "dsr",
                "dsrDispatch": "ipip",
                "acceleration": "best-effort",
            },
            "maglev": {"tableSize": 65521},
            "socketLB": {"hostNamespaceOnly": True},
        },
        {
            "bpf-lb-algorithm": "maglev",
            "bpf-lb-mode": "dsr",
            "bpf-lb-dsr-dispatch": "ipip",
            "bpf-lb-acceleration": "best-effort",
            "bpf-lb-maglev-table-size": "65521",
            "bpf-lb-sock-hostns-only": "true",
        },
    ),
    Case(
        "nothing is observed",
        {"hubble": {"enabled": False}},
        {"enable-hubble": "false"},
        frozenset({"cirri-flows", "cirri-relay"}),
    ),
    Case("no relay", {"hubble": {"relay": {"enabled": False}}}, without=frozenset({"cirri-relay"})),
    Case(
        "no rules on requests", {"l7Proxy": False}, {"enable-l7-proxy": "false"}, frozenset({"cirri-l7proxy"})
    ),
    Case(
        "strict",
        {"policyEnforcementMode": "always", "hostFirewall": {"enabled": True}, "allowLocalhost": "policy"},
        {"enable-policy": "always", "enable-host-firewall": "true", "allow-localhost": "policy"},
    ),
    Case(
        "observed by Prometheus and Grafana",
        {
            "hubble": {"metrics": {"enabled": ["dns:query", "drop"]}},
            "prometheus": {
                "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
                "rules": {"enabled": True},
            },
            "dashboards": {"enabled": True},
        },
        {"hubble-metrics": "dns:query drop"},
    ),
    Case(
        "redaction",
        {
            "hubble": {
                "redact": {
                    "enabled": True,
                    "http": {"urlQuery": True, "headers": {"deny": ["cookie", "x-token"]}},
                }
            }
        },
        {"hubble-redact-enabled": "true", "hubble-redact-http-headers-deny": "cookie,x-token"},
    ),
    Case(
        "names",
        {"dnsProxy": {"minTtl": 60, "dnsRejectResponseCode": "nameError"}},
        {"tofqdns-min-ttl": "60", "tofqdns-dns-reject-response-code": "nameError"},
    ),
    Case("any key", {"extraConfig": {"flowlog-dropped-max-age": "30d"}}, {"flowlog-dropped-max-age": "30d"}),
    Case(
        "one node, storage of a class",
        {"operator": {"replicas": 1}, **ONE_HOST}
        | {"nats": {**ONE_HOST["nats"], "storage": {"className": "fast", "size": "8Gi"}}},
    ),
    Case(
        "images of one's own",
        {
            "image": {"registry": "registry.example.com/net/", "tag": "1.2", "pullPolicy": "Always"},
            "imagePullSecrets": [{"name": "pull"}],
            "services": {
                "datapath": {"resources": {"limits": {"memory": "1Gi"}}, "env": {"CIRRI_UPLINK": "bond0"}},
                "policy": {"nodeSelector": {"zone": "a"}},
            },
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_values(case: Case) -> None:
    made = render(case.values)
    assert {
        name: found
        for m in made
        for name in [f"{m['kind']}/{m['metadata']['name']}"]
        for version in (VERSIONS if case.values == {} else VERSIONS[-1:])
        if (found := faults(m, version))
    } == {}
    (config,) = of(made, "ConfigMap", "cirri-config")
    assert config["data"] | case.config == config["data"]
    kept = Resource(kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest=config)
    assert list(config_faults(kept)) == [], "as `cirri apply` would see it"
    assert config["data"].keys() <= KEYS.keys()
    assert pods(made).keys() == EVERYBODY - case.without
    assert len({(m["kind"], m["metadata"]["name"]) for m in made}) == len(made)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kubeProxyReplacement": False}, "'/kubeProxyReplacement': value must be true"),
        ({"ipam": {"mode": "eni"}}, "'/ipam/mode': value must be"),
        ({"tunnelProtocol": "geneve"}, "'/tunnelProtocol': value must be"),
        ({"encryption": {"enabled": True}}, "additional properties 'encryption' not allowed"),
        ({"hubble": {"ui": {"enabled": True}}}, "at '/hubble': additional properties 'ui' not allowed"),
        ({"extraConfig": {"enable-nonsense": "true"}}, "invalid propertyName 'enable-nonsense'"),
        ({"services": {"operator": {}}}, "additional properties 'operator' not allowed"),
        ({"loadBalancer": {"mode": "annotation"}}, "'/loadBalancer/mode': value must be one of"),
    ],
)
def test_what_there_is_not_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(helm_python.HelmValuesError) as refused:
        render(values)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("nats", "says"),
    [
        (
            {},
            "nats.hosts must name the addresses of the 3 nodes that run the bus (nats.replicas), and names 0",
        ),
        ({"enabled": False}, "nats.external.urls must say where the bus is"),
        (
            {"enabled": False, "external": {"urls": ["tls://bus:4222"]}},
            "nats.external.credentialsSecret must name",
        ),
    ],
)
def test_a_bus_that_nobody_could_find_is_refused(nats: dict[str, Any], says: str) -> None:
    with pytest.raises(helm_python.HelmRenderError) as refused:
        render({"nats": nats}, bus=False)
    assert says in str(refused.value)


@pytest.fixture(scope="module")
def made() -> list[Manifest]:
    """Everything that can be switched on."""
    switches = {path: True for paths in chart.GATES.values() for path in paths if _exists(path)}
    values: dict[str, Any] = {}
    for path in switches:
        here = values
        for part in path.split(".")[:-1]:
            here = here.setdefault(part, {})
        here[path.split(".")[-1]] = True
    return render(values)


def _exists(path: str) -> bool:
    return path in {v.path for v in chartvalues.table(tuple(SERVICES), chart.gates(list(SERVICES.values())))}


def containers(made: list[Manifest]) -> list[tuple[str, dict[str, Any], Manifest]]:
    """(service/container, container, pod) of every container."""
    return [
        (f"{name.removeprefix('cirri-')}/{one['name']}", one, pod)
        for name, pod in pods(made).items()
        for one in (*pod.get("initContainers", ()), *pod["containers"])
    ]


def test_only_datapath_is_privileged(made: list[Manifest]) -> None:
    assert {n for n, c, _ in containers(made) if c["securityContext"]["privileged"]} == {"datapath/datapath"}


def test_containers_may_what_contracts_name_and_no_more(made: list[Manifest]) -> None:
    own = {
        f"{s.name}/{s.name}{r}": set(s.capabilities)
        for s in SERVICES.values()
        for r in (["-a", "-b"] if s.replicas > 1 else [""])
    }
    beside = {f"{s.name}/{c.name}": set(c.capabilities) for s in SERVICES.values() for c in s.companions}
    expected = own | beside | {"datapath/cni": set(), "nats/nats": set(), "nats/own-storage": {"CHOWN"}}
    for name, container, _ in containers(made):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True, name
        if name != "datapath/datapath":
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["capabilities"]["drop"] == ["ALL"], name
            assert set(rights["capabilities"].get("add", ())) == expected[name], name
    assert expected.keys() == {name for name, _, _ in containers(made)}


def test_the_lab_and_contracts_name_the_same_companions() -> None:
    in_contracts = {s.name: {c.name for c in s.companions} for s in SERVICES.values() if s.companions}
    assert in_contracts == {name: set(beside) for name, beside in COMPANIONS.items()}


def test_who_can_do_without_root_is_not_root(made: list[Manifest]) -> None:
    for name, pod in pods(made).items():
        service = SERVICES.get(name.removeprefix("cirri-"))
        rights = pod["securityContext"]
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}, name
        if service is None or service.scope == "cluster":
            assert (rights["runAsNonRoot"], rights["runAsUser"]) == (True, 65532), name
            assert not [v for v in pod["volumes"] if "hostPath" in v and name != "cirri-nats"], name
        assert pod["automountServiceAccountToken"] is (name == "cirri-kubernetes"), name
        assert pod["hostNetwork"] is (name != "cirri-relay"), name
        assert bool(pod.get("hostPID")) is (name == "cirri-sensor"), name


def test_nobody_meets_on_a_port_of_the_node(made: list[Manifest]) -> None:
    ports = [
        p["containerPort"] for _, c, pod in containers(made) if pod["hostNetwork"] for p in c.get("ports", ())
    ]
    assert len(set(ports)) == len(ports)


def test_every_service_is_probed_and_has_a_disruption_budget(made: list[Manifest]) -> None:
    beside = {f"{s.name}/{c.name}" for s in SERVICES.values() for c in s.companions}
    probes = {"startupProbe", "livenessProbe", "readinessProbe"}
    for name, container, _ in containers(made):
        if name not in beside | {"datapath/cni", "nats/own-storage"}:
            assert probes <= container.keys(), name
    budgets = {m["metadata"]["name"] for m in of(made, "PodDisruptionBudget")}
    assert budgets == {f"cirri-{s.name}" for s in SERVICES.values() if s.scope == "cluster"} | {"cirri-nats"}


def test_each_service_has_its_own_password(made: list[Manifest]) -> None:
    secrets = {m["metadata"]["name"]: m["data"].get("password") for m in of(made, "Secret") if "data" in m}
    for name, container, _ in containers(made):
        service = name.partition("/")[0]
        asked = [
            e["valueFrom"]["secretKeyRef"]["name"]
            for e in container.get("env", ())
            if "secretKeyRef" in e.get("valueFrom", {})
        ]
        assert asked in ([], [f"cirri-nats-{service}"]), name
    passwords = [secrets[f"cirri-nats-{name}"] for name in (*SERVICES, "cli")]
    assert len(set(passwords)) == len(passwords)


def test_only_kubernetes_may_ask_the_api_server(made: list[Manifest]) -> None:
    subjects = [
        s["name"]
        for kind in ("ClusterRoleBinding", "RoleBinding")
        for m in of(made, kind)
        for s in m["subjects"]
    ]
    assert subjects == ["cirri-kubernetes"]
    (role,) = of(made, "ClusterRole")
    verbs = {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}
    assert not {v for _, v in verbs} & {"*", "deletecollection", "escalate", "bind", "impersonate"}
    assert {v for r, v in verbs if r == "secrets"} == {"get", "list", "watch"}


def test_nats_takes_its_configuration(made: list[Manifest], tmp_path: Path) -> None:
    secrets = {m["metadata"]["name"]: m for m in of(made, "Secret")}
    text = secrets["cirri-nats-config"]["stringData"]["nats.conf"]
    for name, encoded in secrets["cirri-nats-tls"]["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(encoded))
    config = tmp_path / "nats.conf"
    config.write_text(text.replace("/etc/nats/tls", str(tmp_path)).replace("/data", str(tmp_path)))
    done = subprocess.run(
        ["nats-server", "-t", "-c", config],
        capture_output=True,
        text=True,
        check=False,
        env={"POD_NAME": "cirri-nats-0", "PATH": "/usr/bin:/usr/sbin"},
    )
    assert done.returncode == 0, done.stderr
    names = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "tls.crt", "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(host in names for host in HOSTS[:2]), names


def test_values_do_not_speak_of_keys_that_nobody_reads() -> None:
    for value in chartvalues.table(tuple(SERVICES), ()):
        if value.key:
            assert value.key in KEYS, value.path
            for choice in value.schema.get("enum", ()):
                assert not KEYS[value.key].complaint(choice), value.path


@pytest.mark.parametrize("path", list(chart.files()), ids=lambda path: path.name)
def test_the_chart_says_what_the_contracts_say(path: Path) -> None:
    assert path.read_text() == chart.files()[path], "run: .venv/bin/python -m cirri.testing.docs"
