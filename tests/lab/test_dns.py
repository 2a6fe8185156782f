"""Services and EndpointSlices become DNS records."""

from typing import Any

from cirri.lab import dns, slices

PORTS = [{"name": "http", "port": 80}]


def test_a_service_with_addresses(make: Any) -> None:
    service = make.service(clusterIP="10.96.0.9", clusterIPs=["10.96.0.9", "fd00:10:96::9"], ports=PORTS)

    zone = dns.zone([service], [], "192.168.3.4")

    name = "web.default.svc.cluster.local"
    assert zone.addresses == {name: ["10.96.0.9", "fd00:10:96::9"]}
    assert zone.services == {f"_http._tcp.{name}": [(80, name)]}
    assert zone.upstream == "192.168.3.4"


def test_a_headless_service_names_its_ready_pods(make: Any) -> None:
    service = make.service(clusterIP="None", clusterIPs=["None"], ports=PORTS)
    pods = [
        make.pod("a", ready=True, ips=["10.52.0.1"], labels={"app": "web"}),
        make.pod("b", ready=True, ips=["10.52.0.2"], labels={"app": "web"}),
        make.pod("c", ips=["10.52.0.3"], labels={"app": "web"}),
    ]
    written = [make.stored(m) for m in slices.plan([service], pods, []).apply]

    zone = dns.zone([service], written, "")

    name = "web.default.svc.cluster.local"
    assert zone.addresses[name] == ["10.52.0.1", "10.52.0.2"]
    hosts = [n for n in zone.addresses if n.endswith(f".{name}")]
    assert len(hosts) == 2
    assert {target for _, target in zone.services[f"_http._tcp.{name}"]} == set(hosts)


def test_an_external_name_is_an_alias(make: Any) -> None:
    zone = dns.zone([make.service(selector={}, externalName="Api.GitHub.com.")], [], "")

    assert zone.aliases == {"web.default.svc.cluster.local": "api.github.com"}
