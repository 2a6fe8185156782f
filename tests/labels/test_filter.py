import pytest

from cirri.labels import InvalidLabelFilter, LabelFilter

KEYS = {
    "app": True,
    "example.com/team": True,
    "io.kubernetes.pod.namespace": True,
    "io.kubernetes.other": False,
    "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": True,
    "io.cilium.k8s.policy.serviceaccount": True,
    "app.kubernetes.io/name": True,
    "kubernetes.io/os": False,
    "statefulset.kubernetes.io/pod-name": False,
    "apps.kubernetes.io/pod-index": False,
    "failure-domain.beta.kubernetes.io/zone": False,
    "k8s.io/x": False,
    "pod-template-hash": False,
    "pod-template-generation": False,
    "controller-revision-hash": False,
    "controller-uid": False,
    "batch.kubernetes.io/job-completion-index": False,
    "annotation.x": False,
    "etcd_node": False,
    "topology.kubernetes.io/zone": False,
}


@pytest.mark.parametrize(("key", "counts"), KEYS.items())
def test_defaults(key: str, counts: bool) -> None:
    assert bool(LabelFilter.parse().relevant([f"k8s:{key}=v"])) == counts


@pytest.mark.parametrize(
    ("user", "label", "counts"),
    [
        ("", "reserved:host", True),
        ("k8s:app", "k8s:app=web", True),
        ("k8s:app", "k8s:tier=web", False),
        ("k8s:app", "k8s:io.kubernetes.pod.namespace=x", True),
        ("k8s:app", "other:app=web", False),
        ("!team", "k8s:team=x", False),
        ("!team", "k8s:app=x", True),
        ("k8s:!team", "k8s:team=x", False),
        ("!k8s:team", "other:team=x", True),
        ("pod-template-hash", "k8s:pod-template-hash=1", False),
        (".*", "k8s:kubernetes.io/os=linux", True),
        ("app !application", "k8s:application=x", False),
        ("app !a", "k8s:app=x", True),
        ("!team$", "k8s:teams=x", True),
    ],
)
def test_user_prefixes(user: str, label: str, counts: bool) -> None:
    assert bool(LabelFilter.parse(user.split()).relevant([label])) == counts


@pytest.mark.parametrize("prefix", ["k8s:", "!", "[", "k8s:(a"])
def test_refused(prefix: str) -> None:
    with pytest.raises(InvalidLabelFilter, match="is not a prefix"):
        LabelFilter.parse([prefix])
