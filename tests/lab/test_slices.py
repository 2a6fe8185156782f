"""Services and Pods become EndpointSlices, one family and one set of ports each."""

from typing import Any

from cirri.lab.objects import Ref
from cirri.lab.slices import MANAGED_LABEL, MAX_ENDPOINTS, SERVICE_LABEL, plan, resolved_ports

IPS = ("10.52.0.1", "fd00:10:52::1")
LABELS = {"app": "web"}
HTTP = [{"name": "http", "port": 80, "targetPort": 8080}]


def test_one_slice_for_each_family(make: Any) -> None:
    pod = make.pod("a", node="node1", ready=True, ips=IPS, labels=LABELS)

    v4, v6 = plan([make.service(ports=HTTP)], [pod], []).apply

    assert (v4["addressType"], v6["addressType"]) == ("IPv4", "IPv6")
    assert v4["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    assert v4["endpoints"] == [
        {
            "addresses": ["10.52.0.1"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": "node1",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "a", "uid": "Pod-a"},
        }
    ]
    assert v4["metadata"]["labels"][SERVICE_LABEL] == "web"
    assert v4["metadata"]["name"] != v6["metadata"]["name"]


def test_single_stack_services_get_one_family(make: Any) -> None:
    pod = make.pod("a", ready=True, ips=IPS, labels=LABELS)

    (only,) = plan([make.service(ports=HTTP, ipFamilies=["IPv6"])], [pod], []).apply

    assert only["addressType"] == "IPv6"


def test_pods_without_address_or_label_are_left_out(make: Any) -> None:
    pods = [make.pod("a", labels=LABELS), make.pod("b", ips=IPS)]

    assert plan([make.service(ports=HTTP)], pods, []).apply == ()


def test_unready_pods_are_listed_as_such(make: Any) -> None:
    pod = make.pod("a", ips=IPS[:1], labels=LABELS)
    normal = make.service(ports=HTTP)
    eager = make.service(ports=HTTP, publishNotReadyAddresses=True)

    assert plan([normal], [pod], []).apply[0]["endpoints"][0]["conditions"]["ready"] is False
    assert plan([eager], [pod], []).apply[0]["endpoints"][0]["conditions"]["ready"] is True


def test_named_ports_are_resolved_for_each_pod(make: Any) -> None:
    service = make.service(ports=[{"port": 80, "targetPort": "web"}])
    old = make.pod(
        "a", ready=True, ips=IPS[:1], labels=LABELS, ports=[{"name": "web", "containerPort": 8080}]
    )
    new = make.pod(
        "b", ready=True, ips=["10.52.0.2"], labels=LABELS, ports=[{"name": "web", "containerPort": 9090}]
    )
    none = make.pod("c", ready=True, ips=["10.52.0.3"], labels=LABELS)

    assert resolved_ports(service, old) == (("", "TCP", 8080),)
    assert resolved_ports(service, none) == ()
    slices = plan([service], [old, new, none], []).apply
    assert sorted([p["port"] for p in s["ports"]] for s in slices) == [[], [8080], [9090]]


def test_protocols_of_one_name_are_told_apart(make: Any) -> None:
    service = make.service(ports=[{"port": 53, "protocol": "UDP", "targetPort": "dns"}])
    ports = [
        {"name": "dns", "containerPort": 53, "protocol": "TCP"},
        {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
    ]

    assert resolved_ports(service, make.pod("a", ports=ports)) == (("", "UDP", 5353),)


def test_large_services_are_split(make: Any) -> None:
    pods = [make.pod(f"p{i:03}", ready=True, ips=[f"10.52.1.{i}"], labels=LABELS) for i in range(150)]

    slices = plan([make.service(ports=HTTP)], pods, []).apply

    assert sorted(len(s["endpoints"]) for s in slices) == [50, MAX_ENDPOINTS]


def test_what_is_written_is_not_written_again(make: Any) -> None:
    service, pod = make.service(ports=HTTP), make.pod("a", ready=True, ips=IPS, labels=LABELS)
    stored = [make.stored(m) for m in plan([service], [pod], []).apply]

    again = plan([service], [pod], stored)

    assert (again.apply, again.delete) == ((), ())


def test_slices_of_a_deleted_service_go_and_foreign_ones_stay(make: Any) -> None:
    foreign = make.stored({"kind": "EndpointSlice", "metadata": {"name": "mine", "namespace": "default"}})
    own = make.stored(
        {
            "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1",
                "namespace": "default",
                "labels": {MANAGED_LABEL: "endpointslice-controller.k8s.io"},
            },
        }
    )

    assert plan([], [], [foreign, own]).delete == (Ref("EndpointSlice", "default", "web-1"),)


def test_services_without_selector_are_their_authors_business(make: Any) -> None:
    assert plan([make.service(selector={}, ports=HTTP)], [make.pod("a", ips=IPS)], []).apply == ()
