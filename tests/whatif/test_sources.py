"""What of a folder of manifests counts, and what makes it unusable."""

from pathlib import Path

import pytest

from cirri.engine import InvalidConfig
from cirri.engine.context import Context
from cirri.engine.rule import ServiceReference
from cirri.manifests import ManifestError
from cirri.whatif.sources import sources

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n"
JOB = "kind: Job\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{name: c, image: i}]}}}\n"
ENDPOINTS = """apiVersion: v1
kind: Endpoints
metadata: {name: ext}
subsets:
- addresses: [{ip: 203.0.113.80, nodeName: n}, {ip: "2001:db8::80"}]
  notReadyAddresses: [{ip: 203.0.113.81}]
  ports: [{port: 80}]
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: ext}\nspec: {%sports: [{port: 80}]}\n"
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cirri-config%s}\ndata: {%s}\n"
TEMPLATE = "template: {spec: {containers: [{name: c, image: i}]}}"
WRONG = TEMPLATE.replace("image", "imag")


def write(folder: Path, text: str) -> list[str]:
    (folder / "a.yaml").write_text(text)
    return [str(folder)]


def test_what_policy_does_not_read_is_left_out_and_told(tmp_path: Path) -> None:
    others = "kind: Ingress\nmetadata: {nonsense: 1}\n---\nkind: Gateway\n---\nkind: Ingress\n---\n"
    found = sources(write(tmp_path, f"{others}kind: ServiceAccount\n---\n{POD}"))
    assert [one.kind for one in found.resources] == ["Pod"]
    assert found.warnings == ["left out, policy does not read Gateway (1), Ingress (2)"]


def test_kinds_that_are_only_alike_are_no_typos(tmp_path: Path) -> None:
    """Each begins or ends as one of ours does."""
    kinds = [
        "CiliumClusterwideEnvoyConfig",
        "CiliumEgressGatewayPolicy",
        "CiliumLocalRedirectPolicy",
        "ClusterPolicy",
        "NetworkPolicyEndpoint",
    ]
    found = sources(write(tmp_path, "---\n".join(f"kind: {kind}\n" for kind in kinds)))
    assert found.warnings == [f"left out, policy does not read {', '.join(f'{kind} (1)' for kind in kinds)}"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("kind: CiliumNetworkPolcy", "did you mean"),
        ("kind: CiliumCIDRGroups", "did you mean"),
        ("kind: networkpolicy", "did you mean"),
        ("kind: AdminNetworkPolicy", 'unknown kind "AdminNetworkPolicy"'),
        ("kind: 5", "line 1: kind: must be a string"),
        ("- kind: Pod", "not a list"),
        ("metadata: {}", "line 1: kind: required, but missing"),
        (POD.replace("image: i", "imag: i"), "line 4: spec.containers[0].imag: unknown field"),
        (f"kind: StatefulSet\nmetadata: {{name: a}}\nspec:\n  {WRONG}", "line 4: spec.template.spec.c"),
        ("kind: CronJob\nmetadata: {name: a}\nspec: {jobTemplate: {spec: {}}}", "spec.jobTemplate.spec.t"),
        ("kind: DaemonSet\nspec: {}", "line 1: metadata: required, but missing"),
        (f"{POD}---\n{POD}", "Pod a is already in"),
        (f"{JOB}---\n{JOB}", "metadata.name: Job a is already in"),
        (f"{ENDPOINTS}---\n{ENDPOINTS.replace('ip:', 'ipp:')}", "subsets[0].addresses[0].ipp: unknown field"),
        (CONFIG % (", namespace: kube-system", "enable-policy: alway"), "line 4: data.enable-policy: "),
    ],
    ids=lambda value: value.splitlines()[0],
)  # fmt: skip
def test_wrong_manifests(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ManifestError) as caught:
        sources(write(tmp_path, text))
    assert error in str(caught.value)
    assert f"{tmp_path}/a.yaml: document " in str(caught.value)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    wrong = f"{POD.replace('image', 'imag')}---\nkind: ReplicaSet\nmetadata: {{name: x}}\n"
    with pytest.raises(ManifestError) as caught:
        sources([*write(tmp_path, wrong), str(tmp_path / "none.yaml")])
    assert {problem.path for problem in caught.value.problems} == {
        "", "spec", "spec.containers[0].imag", "spec.containers[0].image",
    }  # fmt: skip


def test_endpoints_of_a_service_without_selector_become_slices(tmp_path: Path) -> None:
    service, *slices = sources(write(tmp_path, f"{ENDPOINTS}---\n{SERVICE % ''}")).resources
    assert {one.kind for one in slices} == {"EndpointSlice"}
    context = Context()
    for one in (service, *slices):
        context.update(one)
    (known,) = context.services(ServiceReference(name="ext"))
    assert set(map(str, context.addresses(known))) == {"203.0.113.80/32", "2001:db8::80/128"}


def test_endpoints_of_a_service_with_a_selector_say_nothing_new(tmp_path: Path) -> None:
    found = sources(write(tmp_path, f"{ENDPOINTS}---\n{SERVICE % 'selector: {app: a}, '}"))
    assert [one.kind for one in found.resources] == ["Service"]
    assert found.warnings == []


def test_workloads_that_cannot_be_applied_are_read(tmp_path: Path) -> None:
    kinds = ("StatefulSet", "DaemonSet", "ReplicaSet", "Job")
    texts = [f"kind: {kind}\nmetadata: {{name: a}}\nspec: {{serviceName: x, {TEMPLATE}}}" for kind in kinds]
    texts.append(f"kind: CronJob\nmetadata: {{name: a}}\nspec: {{jobTemplate: {{spec: {{{TEMPLATE}}}}}}}")
    found = sources(write(tmp_path, "\n---\n".join(texts)))
    assert [one.kind for one in found.resources] == [*kinds, "CronJob"]
    assert found.warnings == []


def test_configuration_is_found_and_can_be_replaced(tmp_path: Path) -> None:
    text = CONFIG % (", namespace: kube-system", "enable-policy: always, cluster-name: here")
    paths = write(tmp_path, f"{text}---\n{CONFIG % ('', 'cluster-name: there')}")
    assert sources(paths).data == {"enable-policy": "always", "cluster-name": "here"}
    found = sources(paths, config={"enable-policy": "never"})
    assert (found.data["enable-policy"], found.warnings) == ("never", [])


def test_configuration_in_another_namespace_counts_with_a_warning(tmp_path: Path) -> None:
    found = sources(write(tmp_path, CONFIG % ("", "cluster-name: here")))
    assert found.data == {"cluster-name": "here"}
    assert "default/cirri-config is taken for the configuration" in found.warnings[0]


def test_a_value_that_means_nothing_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig):
        sources(write(tmp_path, CONFIG % ("", "enable-policy: alway")))
    with pytest.raises(InvalidConfig):
        sources(write(tmp_path, POD), config={"enable-host-firewall": "yes"})


def test_policies_are_checked_under_the_configuration(tmp_path: Path) -> None:
    policy = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: a}
spec:
  endpointSelector: {}
  ingress:
    - icmps: [{fields: [{type: 8}]}]
"""
    paths = write(tmp_path, policy)
    assert sources(paths).resources
    with pytest.raises(ManifestError, match=r"line 8: spec.ingress\[0\].icmps: enable-icmp-rules"):
        sources(paths, config={"enable-icmp-rules": "false"})
