"""Parties by their labels: the entries of ``--endpoints``, and those that a test names in place.

What every pod has and an entry does not say is filled in as on a cluster; a label that is written
is taken as it is: one without a source is of source ``unspec``, which ``k8s:`` and Kubernetes' own
selectors do not see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from cirri.labels import (
    CIDR,
    CLUSTER_KEY,
    NAMESPACE_KEY,
    Label,
    Reserved,
    pod_labels,
    port_label,
    prefix_key,
    prefix_of,
    world_label,
)
from cirri.manifests import ManifestError
from cirri.manifests.documents import Document, read
from cirri.manifests.problems import Path, listed, suggestion
from cirri.manifests.schema import Fault, Fields, Integer, Items, MapOf, Text
from cirri.manifests.words import (
    ADDRESS,
    label_key_complaint,
    label_value_complaint,
    port_name_complaint,
)
from cirri.model import Resource
from cirri.whatif.party import Address, Party, Role, Setting

K8S, NO_SOURCE = "k8s", "unspec"
WORLD = {Reserved.WORLD.label, Reserved.WORLD_IPV4.label, Reserved.WORLD_IPV6.label}
NODES = {Reserved.HOST.label, Reserved.REMOTE_NODE.label}
ENDPOINTS = {Reserved.HEALTH.label, Reserved.INIT.label, Reserved.INGRESS.label}
"""What is under policy though it is no pod."""
_RESERVED = tuple(one.label for one in Reserved if one is not Reserved.UNKNOWN)
_OUTSIDE = {CIDR, "fqdn"}


def _label(text: str) -> str:
    label = Label.parse(text)
    if label.source == "reserved" and str(label) not in _RESERVED:
        return f'"{text}" is not a reserved label{suggestion(text, _RESERVED)}; allowed: {listed(_RESERVED)}'
    if label.source == CIDR:
        try:
            prefix_of(label.key)
        except ValueError:
            return f'"{text}" has no prefix, such as cidr:10.0.0.0/8 or cidr:2001-db8--0/32'
        return ""
    if not label.key or label.source == "any":
        return f'"{text}" is not a label; allowed: SOURCE:KEY=VALUE, such as k8s:app=web or reserved:world'
    complaint = label_key_complaint(label.key) if label.source in (K8S, NO_SOURCE) else ""
    return complaint or label_value_complaint(label.value)


def _port(text: str) -> str:
    protocol, slash, name = text.rpartition("/")
    if slash and protocol.upper() not in ("TCP", "UDP", "SCTP"):
        return f'"{protocol}" is not a protocol; allowed: tcp, udp, sctp'
    return port_name_complaint(name)


def _says_something(entry: Mapping[str, Any]) -> Iterator[Fault]:
    known = list(map(Label.parse, entry.get("labels", ())))
    labels = {str(label) for label in known}
    if not entry.keys() & {"labels", "ip"}:
        yield ("labels",), "required, but missing; only an entry with ip needs none; [] is a pod without any"
    names = Counter(f"{label.source}:{label.key}" for label in known)
    yield from ((("labels",), f"{name} is there {count} times") for name, count in names.items() if count > 1)
    families = {label[-1] for label in labels & WORLD if label[-1] in "46"}
    if "ip" in entry and families - {str(ip_address(entry["ip"]).version)}:
        yield ("ip",), f'"{entry["ip"]}" is of the other family than its label'


UNNAMED = Fields(
    {"labels": Items(Text(test=_label)), "ip": ADDRESS, "ports": MapOf(Integer(1, 65535), _port)},
    rules=(_says_something,),
)
"""A party that a test describes in place."""
ENTRY = Fields({"name": Text(low=1), **UNNAMED.fields}, required=("name",), rules=UNNAMED.rules)
ENTRIES = Items(ENTRY, key="name")


def entries(paths: Iterable[str]) -> list[dict[str, Any]]:
    """What the files at *paths* list.  Raises :class:`ManifestError`."""
    documents, problems = read(paths)
    found: list[dict[str, Any]] = []
    for document in documents:
        faults: list[Fault] = []
        found += _read(document, faults)
        problems += (document.problem(path, says) for path, says in faults)
    if problems:
        raise ManifestError(problems)
    return found


def _read(document: Document, faults: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = ENTRIES.read(document.manifest, (), faults)
    return [] if faults else listed


def without_source(listed: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One sentence for each label of the entries *listed* that names no source."""
    for entry in listed:
        for text in entry.get("labels", ()):
            if Label.parse(text).source == NO_SOURCE:
                yield (
                    f'{entry["name"]}: label "{text}" names no source, so neither NetworkPolicies nor '
                    f"selectors with k8s: see it; write {K8S}:{text}"
                )


def party(entry: Mapping[str, Any], setting: Setting, *, name: str = "") -> Party:
    """Who an entry that :data:`ENTRY` has read is."""
    name = entry.get("name", name)
    labels = set(map(Label.parse, entry.get("labels", ())))
    address = ip_address(entry["ip"]) if "ip" in entry else None
    known = (address,) if address else ()
    if address and not labels:
        return Party(name, frozenset(), outside=address, addresses=known)
    reserved = {str(one) for one in labels if one.source == "reserved"}
    if _is_outside(labels, reserved, address):
        return Party(name, _outside(labels, reserved, address), outside=address, addresses=known)
    ports = {
        f"{port_label(*_protocol_and_name(text))}={number}" for text, number in entry.get("ports", {}).items()
    }
    if not reserved:
        namespace = _namespace(labels, name)
        found = setting.filter.relevant(map(str, _pod(labels, namespace, setting))) | ports
        local = str(Label(K8S, CLUSTER_KEY, setting.config.cluster)) in map(str, found)
        return Party(name, found, "endpoint" if local else "peer", addresses=known)
    found = frozenset(str(one) for one in labels if one.source != K8S) | ports
    found |= setting.filter.relevant(str(one) for one in labels if one.source == K8S)
    if reserved & NODES and address:
        found |= {f"{CIDR}:{prefix_key(ip_network(address))}"} if setting.config.nodes_by_cidr else set()
        found |= {Reserved.KUBE_APISERVER.label} if str(address) in setting.api_servers else set()
    return Party(name, found, _role(reserved), addresses=known)


def _role(reserved: set[str]) -> Role:
    if Reserved.HOST.label in reserved:
        return "node"
    return "endpoint" if reserved & ENDPOINTS and not reserved & NODES else "peer"


def _is_outside(labels: set[Label], reserved: set[str], address: Address | None) -> bool:
    if reserved & NODES:
        return False
    by_prefix = any(one.source in _OUTSIDE for one in labels)
    api_server = address is not None and reserved == {Reserved.KUBE_APISERVER.label}
    return bool(reserved & WORLD) or by_prefix or api_server


def _outside(labels: set[Label], reserved: set[str], address: Address | None) -> frozenset[str]:
    """The world has two labels here, one of each family; IPv4 where nothing says which."""
    prefixes = [prefix_of(one.key) for one in labels if one.source == CIDR]
    version = 6 if Reserved.WORLD_IPV6.label in reserved else 4
    version = address.version if address else prefixes[0].version if prefixes else version
    kept = {str(one) for one in labels if str(one) not in WORLD and not (address and one.source == CIDR)}
    return frozenset(kept | {world_label(version)})


def _namespace(labels: set[Label], name: str) -> str:
    """As the labels say, else as the name NAMESPACE/NAME says."""
    said = next((one.value for one in labels if (one.source, one.key) == (K8S, NAMESPACE_KEY)), "")
    return said or (name.partition("/")[0] if "/" in name else "default")


def _pod(labels: set[Label], namespace: str, setting: Setting) -> set[Label]:
    """*labels*, and those that every pod has as far as they are not among them."""
    cluster = next((one.value for one in labels if (one.source, one.key) == (K8S, CLUSTER_KEY)), "")
    local = cluster in ("", setting.config.cluster)
    pod = Resource(kind="Pod", namespace=namespace, name="")
    of_namespace = setting.namespaces.get(namespace) if local else None
    derived = {Label.parse(text) for text in pod_labels(pod, of_namespace, setting.config.cluster)}
    said = {(one.source, one.key) for one in labels}
    return labels | {one for one in derived if (one.source, one.key) not in said}


def _protocol_and_name(text: str) -> tuple[str, str]:
    protocol, slash, name = text.rpartition("/")
    return (protocol if slash else "tcp"), name
