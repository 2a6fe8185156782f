import pytest

from cirri.identity.demand import Demand
from cirri.labels import LabelFilter
from cirri.model import Endpoint

WEB = ("k8s:app=web", "k8s:pod-template-hash=1")


def endpoint(number: int, labels: tuple[str, ...], identity: int = 0) -> Endpoint:
    return Endpoint(
        node="n1", id=number, namespace="shop", pod="p", container_id="c", interface="i",
        labels=labels, identity=identity,
    )  # fmt: skip


def test_only_relevant_labels_make_a_set() -> None:
    demand = Demand(LabelFilter.parse())
    demand.update("n1.1", endpoint(1, WEB))
    demand.update("n1.2", endpoint(2, ("k8s:app=web", "k8s:pod-template-hash=2")))
    assert list(demand.sets) == [("k8s:app=web",)]
    assert demand.take_fresh() == {("k8s:app=web",)}
    assert demand.take_fresh() == set()
    demand.update("n1.1", None)
    assert demand.wants(("k8s:app=web",))
    demand.update("n1.2", None)
    assert not demand.wants(("k8s:app=web",))


@pytest.mark.parametrize(
    "labels", [(), ("reserved:health",), ("reserved:init",), ("k8s:pod-template-hash=1",)]
)
def test_who_needs_no_number(labels: tuple[str, ...]) -> None:
    demand = Demand(LabelFilter.parse())
    demand.update("n1.1", endpoint(1, labels))
    assert list(demand.sets) == []


def test_numbers_in_force() -> None:
    demand = Demand(LabelFilter.parse())
    for number, identity in enumerate((700, 700, 800, 0)):
        demand.update(f"n1.{number}", endpoint(number, WEB, identity))
    assert demand.reported(("k8s:app=web",)) == [700, 800]
    assert demand.holds(800)
    assert not demand.held_by_others(800, ("k8s:app=web",))
    assert demand.held_by_others(800, ("k8s:app=api",))
    demand.update("n1.2", None)
    assert not demand.holds(800)


def test_another_filter_makes_other_sets() -> None:
    demand = Demand(LabelFilter.parse())
    endpoints = {"n1.1": endpoint(1, ("k8s:app=web", "k8s:tier=a"), 700)}
    demand.update("n1.1", endpoints["n1.1"])
    demand.refilter(LabelFilter.parse(["k8s:app"]), endpoints)
    assert list(demand.sets) == [("k8s:app=web",)]
    assert demand.holds(700)
