"""What a Service leads to: policy sees the connection after the Service was translated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from cirri.engine.ports import PROTOCOL_NAMES
from cirri.errors import CirriError
from cirri.labels import NAMESPACE_KEY, Label, port_label
from cirri.manifests.problems import suggestion
from cirri.model import Resource
from cirri.whatif.party import Party
from cirri.whatif.port import Port

SERVICE_NAME = "kubernetes.io/service-name"


class NoService(CirriError):
    """No manifest describes the Service."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        super().__init__(f'no Service "{name}" in the manifests{suggestion(name, known)}')


class NoBackend(CirriError):
    """Nobody answers for the Service at that port."""

    def __init__(self, name: str, port: Port) -> None:
        self.name, self.port = name, port
        super().__init__(f'Service "{name}" leads nowhere at {port}')


def service_named(name: str, resources: Sequence[Resource]) -> Resource:
    """The Service NAMESPACE/NAME.  Raises :class:`NoService`."""
    known = {f"{one.namespace}/{one.name}": one for one in resources if one.kind == "Service"}
    if name not in known:
        raise NoService(name, list(known))
    return known[name]


def addresses(service: Resource, resources: Sequence[Resource]) -> list[str]:
    """Where a Service that selects no pods leads."""
    return [address for _, address in _listed(service, resources)]


def backends(
    service: Resource, port: Port, parties: Sequence[Party], resources: Sequence[Resource]
) -> list[tuple[Party, Port]]:
    """Who answers for *service* at *port*, and at which port.  Raises :class:`NoBackend`."""
    name = f"{service.namespace}/{service.name}"
    spec: dict[str, Any] = service.manifest.get("spec") or {}
    asked = (port.number, PROTOCOL_NAMES[port.protocol])
    said = next((each for each in spec.get("ports") or () if (each["port"], each["protocol"]) == asked), None)
    if said is None:
        raise NoBackend(name, port)
    found: list[tuple[Party, Port]] = []
    if spec.get("selector"):
        for one in parties:
            number = _target(said, one) if _selects(service.namespace, spec["selector"], one) else 0
            found += [(one, Port(port.protocol, number))] if number else []
    else:
        owners = {address: one for one in parties for address in one.addresses}
        for ports, address in _listed(service, resources):
            numbers = [each["port"] for each in ports if each.get("name", "") == said.get("name", "")]
            found += [(owners[ip_address(address)], Port(port.protocol, number)) for number in numbers]
    if not found:
        raise NoBackend(name, port)
    return found


def _selects(namespace: str, selector: Mapping[str, str], party: Party) -> bool:
    wanted = {str(Label("k8s", key, value)) for key, value in selector.items()}
    return party.role == "endpoint" and wanted | {str(Label("k8s", NAMESPACE_KEY, namespace))} <= party.labels


def _target(port: Mapping[str, Any], party: Party) -> int:
    """The port of *party* that the Service's *port* leads to; 0: it has none of that name."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    prefix = f"{port_label(port['protocol'], target)}="
    return next((int(one.removeprefix(prefix)) for one in party.labels if one.startswith(prefix)), 0)


def _listed(service: Resource, resources: Sequence[Resource]) -> Iterator[tuple[Sequence[Any], str]]:
    """Ports and address of every endpoint in the slices of *service*."""
    for one in resources:
        labels = (one.manifest.get("metadata") or {}).get("labels") or {}
        mine = (one.namespace, labels.get(SERVICE_NAME)) == (service.namespace, service.name)
        if one.kind == "EndpointSlice" and mine and one.manifest.get("addressType") != "FQDN":
            for endpoint in one.manifest.get("endpoints") or ():
                for address in endpoint["addresses"]:
                    yield one.manifest.get("ports") or (), address
