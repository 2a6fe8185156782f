"""Who is behind addresses and numbers, at the time at which something happened."""

import numpy as np
import pytest

from cirri.flows.book import GONE_NS, Book, frontends_of, owners_of, workloads_of
from cirri.layout import address16
from cirri.model import End, Endpoint, NodeStatus, Resource, Workload

A, B, NODE = "10.0.0.1", "10.0.0.2", "192.168.0.1"


def endpoint(pod: str, number: int = 1, node: str = "n1", ipv4: str = A, **more: object) -> Endpoint:
    return Endpoint(
        node=node,
        id=number,
        namespace="shop",
        pod=pod,
        container_id="",
        interface="",
        ipv4=ipv4,
        identity=300 + number,
        **more,  # type: ignore[arg-type]
    )


def end(book: Book, address: str, at_ns: int, identity: int = 300) -> End:
    addresses = np.frombuffer(address16(address), "V16")
    who = book.find(addresses, np.array([at_ns], np.uint64))
    return book.end(int(who[0]) << 32 | identity)[0]


def test_pods_of_this_node_and_of_others() -> None:
    book = Book("n1", "east")
    book.identities = {301: ("k8s:app=web",)}.get
    book.endpoint("n1.1", endpoint("web"), 1)
    book.endpoint("n2.1", endpoint("api", 1, "n2", B), 1)

    assert end(book, A, 5, 301) == End(
        identity=301,
        labels=("k8s:app=web",),
        namespace="shop",
        pod="web",
        endpoint=1,
        node="n1",
        workloads=(Workload(kind="Pod", name="web"),),
        cluster="east",
    )
    there = end(book, B, 5, 301)
    assert (there.pod, there.endpoint, there.node) == ("api", 0, "n2")
    assert end(book, "10.0.0.9", 5, 2) == End(identity=2, labels=("reserved:world",))


def test_a_pod_that_is_gone_keeps_its_name_for_a_while() -> None:
    book = Book("n1")
    book.endpoint("n1.1", endpoint("web"), 1)
    book.endpoint("n1.1", None, 100)
    book.forget(100 + GONE_NS)
    assert end(book, A, 90).pod == "web"
    book.forget(101 + GONE_NS)
    assert end(book, A, 90).pod == ""


def test_an_address_that_changes_hands_is_told_by_time() -> None:
    book = Book("n1")
    book.endpoint("n1.1", endpoint("old"), 10)
    book.endpoint("n1.2", endpoint("new", 2), 100)
    book.endpoint("n1.1", None, 110)

    assert [end(book, A, at).pod for at in (50, 99, 100, 150)] == ["old", "old", "new", "new"]
    book.forget(200 + GONE_NS)
    assert end(book, A, 150).pod == "new"
    book.endpoint("n1.2", None, 300)
    book.forget(400 + GONE_NS)
    assert end(book, A, 350).pod == ""


def test_news_about_a_pod_reach_its_earlier_rows() -> None:
    """Its first packets came before it was known, and its identity later still."""
    book = Book("n1")
    assert end(book, A, 5).pod == ""
    book.endpoint("n1.1", endpoint("web", state="waiting-for-identity"), 10)
    book.endpoint("n1.1", endpoint("web", state="ready"), 20)
    assert end(book, A, 5).pod == "web"


def test_what_there_may_be_news_of() -> None:
    book = Book("n1")
    book.identities = {300: ("k8s:app=web",), 0x01000005: ("cidr:1.2.3.0/24", "reserved:world")}.get
    asked = []
    book.unnamed = lambda: asked.append(1)
    settled = {n: book.end(n)[1] for n in (0, 1, 2, 6, 7, 300, 301, 0x01000005, 0x01000006, 0x03000001)}
    assert settled == {
        0: True, 1: True, 2: True, 6: True, 7: True,
        300: False,  # of a pod, and nobody has the address
        301: False, 0x01000005: True, 0x01000006: False, 0x03000001: False,
    }  # fmt: skip
    assert asked
    book.named = {0x03000001: ("*.example.com",)}
    book.news()
    assert book.end(0x03000001) == (
        End(identity=0x03000001, labels=("fqdn:*.example.com", "reserved:world")),
        True,
    )


def test_labels_of_an_identity_that_is_gone_stay() -> None:
    book = Book("n1")
    known = {300: ("k8s:app=web",)}
    book.identities = known.get
    assert end(book, A, 1).labels == ("k8s:app=web",)
    known.clear()
    book.news()
    assert end(book, A, 1).labels == ("k8s:app=web",)


def test_nodes() -> None:
    book = Book("n1", "east")
    book.machine("n2", NodeStatus(node="n2", addresses=(NODE,)), 1)
    remote = end(book, NODE, 1, 6)
    assert (remote.node, remote.labels, remote.cluster) == ("n2", ("reserved:remote-node",), "east")
    assert end(book, "127.0.0.1", 1, 1).node == "n1"


def test_much_coming_and_going_leaves_nothing_behind() -> None:
    book = Book("n1")
    for n in range(5000):
        book.endpoint(f"n1.{n}", endpoint(f"p{n}", n + 1, ipv4=f"10.1.{n % 50}.{n % 20}"), n)
        book.endpoint(f"n1.{n}", None, n)
        book.forget(n * GONE_NS)
    assert len(book._whos) < 1300
    assert end(book, A, 1).pod == ""


def pod(labels: dict[str, str] | None = None, **owner: object) -> Resource:
    metadata = {"labels": labels or {}, "ownerReferences": [owner] if owner else []}
    return Resource(kind="Pod", namespace="a", name="web-5d8-x2", node="n1", manifest={"metadata": metadata})


@pytest.mark.parametrize(
    ("given", "kind", "name"),
    [
        (pod(), "Pod", "web-5d8-x2"),
        (pod(kind="ReplicaSet", name="web-5d8"), "Pod", "web-5d8-x2"),
        (pod(kind="ReplicaSet", name="web-5d8", controller=True), "ReplicaSet", "web-5d8"),
        (
            pod({"pod-template-hash": "5d8"}, kind="ReplicaSet", name="web-5d8", controller=True),
            "Deployment",
            "web",
        ),
        (pod(kind="DaemonSet", name="web", controller=True), "DaemonSet", "web"),
    ],
)
def test_owners(given: Resource, kind: str, name: str) -> None:
    assert owners_of(given) == (Workload(kind=kind, name=name),)


@pytest.mark.parametrize(
    ("pod_name", "labels", "expected"),
    [
        ("web-5d8-x2", ("k8s:pod-template-hash=5d8",), ("Deployment", "web")),
        ("web-0", ("k8s:statefulset.kubernetes.io/pod-name=web-0",), ("StatefulSet", "web")),
        ("web-x2", ("k8s:controller-revision-hash=5d8",), ("DaemonSet", "web")),
        ("web-x2", ("k8s:job-name=web",), ("Job", "web")),
        ("web", ("k8s:app=web",), ("Pod", "web")),
    ],
)
def test_workloads_of_others(pod_name: str, labels: tuple[str, ...], expected: tuple[str, str]) -> None:
    kind, name = expected
    assert workloads_of(pod_name, labels) == (Workload(kind=kind, name=name),)


def test_frontends() -> None:
    spec = {
        "clusterIP": "10.9.0.1",
        "clusterIPs": ["10.9.0.1", "fd00::1"],
        "externalIPs": ["1.2.3.4"],
        "ports": [{"port": 80, "nodePort": 30000}, {"port": 53, "protocol": "UDP"}],
    }
    status = {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}, {"hostname": "x"}]}}
    one = Resource(kind="Service", namespace="a", name="b", manifest={"spec": spec, "status": status})
    addresses = ("10.9.0.1", "fd00::1", "1.2.3.4", "5.6.7.8")
    expected = {(address16(a), p) for a in addresses for p in (6 << 16 | 80, 17 << 16 | 53)}
    assert set(frontends_of(one, [NODE])) == expected | {(address16(NODE), 6 << 16 | 30000)}
    headless = Resource(kind="Service", namespace="a", name="c", manifest={"spec": {"clusterIP": "None"}})
    assert set(frontends_of(headless, [NODE])) == set()
