"""From labels to identity to policy: only what is certain is used."""

from pyroaring import BitMap

from cirri.datapath.identify import configuration, identity_of, policy_of
from cirri.labels import canonical, probes
from cirri.model import Direction, Identity, PolicyEntry, Rule, SelectorSet, SubjectPolicy

LABELS = ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=default", "k8s:pod-template-hash=1")
RELEVANT = canonical(LABELS[:2])
FIRST, SECOND, *_ = probes(RELEVANT)
CONFIG = configuration({}, "default")


def identity(number: int, labels: tuple[str, ...] = RELEVANT) -> dict[str, Identity]:
    return {str(number): Identity(id=number, labels=labels)}


def test_the_identity_of_labels_is_found_wherever_probing_put_it() -> None:
    other = ("k8s:app=other",)
    assert identity_of(LABELS, CONFIG, {}) == 0
    assert identity_of(LABELS, CONFIG, identity(FIRST)) == FIRST
    assert identity_of(LABELS, CONFIG, identity(FIRST, other)) == 0
    assert identity_of(LABELS, CONFIG, identity(FIRST, other) | identity(SECOND)) == SECOND
    assert identity_of(LABELS, CONFIG, identity(FIRST, ()) | identity(SECOND)) == SECOND, "retired number"


def test_the_filter_the_cluster_and_the_ranges_come_from_the_configuration() -> None:
    data = {"labels": "k8s:tier k8s:io.kubernetes.pod.namespace", "cluster-name": "north"}
    found = configuration(data | {"service-cluster-ip-range": "10.50.0.0/20"}, "default")
    assert (found.cluster, found.errors) == ("north", ())
    assert found.filter.relevant(LABELS) == frozenset(LABELS[1:2])
    assert list(map(str, found.services)) == ["10.50.0.0/20"]
    assert list(map(str, CONFIG.services)) == ["10.96.0.0/16", "fd00:10:96::/112"]


def test_in_place_of_what_is_wrong_the_last_good_holds_as_in_the_identity_service() -> None:
    wrong = {"labels": "k8s:[", "service-cluster-ip-range": "ten", "cluster-name": "south"}
    good = configuration({"labels": "k8s:tier", "service-cluster-ip-range": "10.50.0.0/20"}, "default")
    found = configuration(wrong, "default", good)
    assert (found.filter, found.services, found.cluster) == (good.filter, good.services, "south")
    assert len(found.errors) == 2
    assert "k8s:[" in found.errors[0]
    assert "service-cluster-ip-range" in found.errors[1]
    assert configuration({}, "default", found) == CONFIG, "gone means default"


def test_a_policy_waits_for_every_selector_that_it_names() -> None:
    rules = (Rule(selector="aa"), Rule(selector="bb"), Rule(selector=""))
    subject = SubjectPolicy(identity=300, ingress=Direction(enforced=True, rules=rules))
    policies = {"300": PolicyEntry(subject=subject)}
    one = {"aa": SelectorSet(key="aa", text="a", identities=BitMap([1]).serialize())}
    both = one | {"bb": SelectorSet(key="bb", text="b", identities=BitMap().serialize())}

    assert policy_of(300, {}, both).policy is None
    assert policy_of(300, policies, one).missing == {"bb"}
    assert policy_of(300, policies, both).policy == subject
