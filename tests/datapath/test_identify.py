"""From labels to identity to policy: only what is certain is used."""

from typing import Any

import pytest

from cirri.datapath.identify import configuration, flags_of, goals_of, identity_of, selectors_of
from cirri.labels import canonical, probes
from cirri.layout import EndpointFlag
from cirri.model import Direction, Identity, Rule, SubjectPolicy

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


OPEN, CLOSED = Direction(), Direction(enforced=True, rules=(Rule(selector="aa"), Rule(selector="")))
TRIED = Direction(enforced=True, rules=(Rule(selector="bb", deny=True),))
INGRESS, EGRESS = EndpointFlag.ENFORCE_INGRESS, EndpointFlag.ENFORCE_EGRESS


@pytest.mark.parametrize(
    ("sides", "flags", "selectors"),
    [
        ({"ingress": OPEN, "egress": CLOSED}, EGRESS, {"aa"}),
        (
            {"ingress": CLOSED, "egress": OPEN, "audit_egress": TRIED},
            INGRESS | EndpointFlag.AUDIT_INGRESS | EndpointFlag.AUDIT_EGRESS,
            {"aa", "bb"},
        ),
        ({"audit_ingress": TRIED, "audit_egress": OPEN}, EndpointFlag.AUDIT_INGRESS, {"bb"}),
    ],
    ids=["nothing to try out", "one direction tried out", "both tried out"],
)
def test_what_is_tried_out_is_a_whole_policy_beside_the_one_in_force(
    sides: dict[str, Any], flags: EndpointFlag, selectors: set[str]
) -> None:
    policy = SubjectPolicy(identity=300, **sides)
    goals = goals_of(policy)
    assert flags_of(goals) == flags
    assert selectors_of(policy) == selectors
    if len(goals) > 1:
        assert goals[1].ingress == sides.get("audit_ingress", sides.get("ingress", OPEN))
        assert goals[1].egress == sides.get("audit_egress", sides.get("egress", OPEN))
