"""Whom the words of a question mean: pods, nodes, Services, addresses, identities, labels.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

from msgspec.structs import replace

from cirri.engine.ports import PROTOCOL_NAMES
from cirri.errors import CirriError
from cirri.labels import Label
from cirri.manifests.problems import path_text, suggestion
from cirri.manifests.schema import Faults
from cirri.model import Resource
from cirri.whatif.ask import some
from cirri.whatif.change import Labelled
from cirri.whatif.edits import object_name
from cirri.whatif.endpoints import K8S, UNNAMED, party
from cirri.whatif.learnt import labels
from cirri.whatif.party import Party, Setting
from cirri.whatif.port import Port
from cirri.whatif.services import addresses, backends
from cirri.whatif.sources import TEMPLATES
from cirri.whatif.world import World

HEADLESS = "None"
_IDENTITY = re.compile(r"identity:(\d+)")
_LABELS = re.compile(r".*=.*|[a-z0-9-]+:.*")
_KINDS = {"pod": "pod", "po": "pod", "service": "service", "svc": "service", "node": "node", "no": "node",
          "name": "name"}  # fmt: skip


class Unknown(CirriError):
    """The word means nobody."""

    def __init__(self, word: str, why: str, hint: str = "") -> None:
        self.word, self.why, self.hint = word, why, hint
        super().__init__(f'"{word}": {why}')


class Goal(NamedTuple):
    """Where a connection leads."""

    note: str
    """How the word was understood; empty: as it is written."""
    ends: Sequence[tuple[Party, Port]]


@dataclass(frozen=True)
class Speaker:
    """Understands words among *resources*; *identities* are the labels of numbers that can be asked about."""

    resources: Sequence[Resource]
    identities: Mapping[int, Iterable[str]]
    namespace: str = "default"
    """Of names that say none."""

    def described(self, words: Iterable[str], setting: Setting) -> list[Party]:
        """Those whom no object makes: addresses, identities, labels, and what stands behind Services.

        Raises :class:`Unknown`.
        """
        found: dict[str, Party] = {}
        for word in words:
            if (service := self._service(word)) is not None:
                known = {address for one in self.resources for address in _addresses(one)}
                for address in set(addresses(service, self._serving())) - known:
                    found[address] = party({"ip": address}, setting, name=address)
            elif (entry := self._entry(word)) is not None:
                found[word] = party(entry, setting, name=word)
        return list(found.values())

    def party(self, word: str, world: World) -> Party:
        """Who *word* is.  Raises :class:`Unknown`."""
        for name in (word, self._name(word)):
            if name in world.parties and _split(word)[0] != "service":
                return _owner(world.parties[name], world)
        raise self._nobody(word, world)

    def goal(self, word: str, port: Port, world: World) -> Goal:
        """Where *port* of *word* leads.  Raises :class:`Unknown`, NoBackend."""
        service = self._service(word)
        is_party = _split(word)[0] != "service" and self._name(word) in world.parties
        title = f"Service {service.namespace}/{service.name}" if service is not None else ""
        if service is None or (is_party and not _has_port(service, port)):
            note = f"{title} of the same name has no port {port}: the pods are meant" if title else ""
            return Goal(note, [(self.party(word, world), port)])
        spec = service.manifest.get("spec") or {}
        headless = spec.get("clusterIP") == HEADLESS
        if spec.get("type") == "ExternalName":
            raise Unknown(word, f"{title} is another name of host {spec.get('externalName')}")
        if headless:
            service = _untranslated(service, port)
        elif not _has_port(service, port):
            has = ", ".join(f"{p['port']}/{p.get('protocol', 'TCP')}" for p in spec.get("ports") or ())
            raise Unknown(word, f"{title} has no port {port}", f"It has {has or 'none'}")
        serving = self._serving()
        ends = backends(_listed(service, serving), port, list(world.parties.values()), serving)
        return Goal(_leads(title, port, ends, headless=headless), ends)

    def _serving(self) -> list[Resource]:
        """The resources; EndpointSlices with those endpoints alone that take traffic, as nodes read them."""
        return [_ready(one) if one.kind == "EndpointSlice" else one for one in self.resources]

    def _service(self, word: str) -> Resource | None:
        kind, _ = _split(word)
        name = self._name(word)
        for one in self.resources if kind in ("", "service") else ():
            if one.kind == "Service":
                spec = one.manifest.get("spec") or {}
                if name == f"{one.namespace}/{one.name}" or word in (
                    *(spec.get("clusterIPs") or ()),
                    spec.get("clusterIP"),
                ):
                    return one
        return None

    def _name(self, word: str) -> str:
        """The full name that *word* is short for."""
        kind, rest = _split(word)
        if kind == "node":
            return f"node:{rest}"
        return rest if "/" in rest or ":" in rest else f"{self.namespace}/{rest}"

    def _entry(self, word: str) -> dict[str, object] | None:
        """*word* as an address or as labels; None: it is a name."""
        with suppress(ValueError):
            return {"ip": str(ip_address(word))}
        if (number := _IDENTITY.fullmatch(word)) is not None:
            if int(number[1]) not in self.identities:
                raise Unknown(word, "no such identity", "`cirri identity list` shows all")
            return {"labels": list(self.identities[int(number[1])])}
        if (name := _split(word))[0] == "name":
            return {"labels": labels(self.resources, name[1])}
        if word.startswith("node:") or not _LABELS.fullmatch(word):
            return None
        faults: Faults = []
        given = [str(Label.parse(text.strip(), default=K8S)) for text in word.split(",")]
        entry = UNNAMED.read({"labels": given}, (), faults)
        if faults:
            raise Unknown(word, "; ".join(f"{path_text(path)}: {says}" for path, says in faults))
        return dict(entry)

    def _nobody(self, word: str, world: World) -> Unknown:
        name = self._name(word)
        for one in self.resources:
            if one.kind == "Pod" and f"{one.namespace}/{one.name}" == name:
                return Unknown(word, f"uses its node's network: to policies it is node:{one.node or 'NAME'}")
        if self._service(word) is not None:
            return Unknown(word, "is a Service, which opens no connections", "Name one of its pods")
        owned = [each for each in world.parties if each.startswith(f"{name}-")]
        known = [*world.parties, *(f"{r.namespace}/{r.name}" for r in self.resources if r.kind == "Service")]
        hint = f"Its pods: {', '.join(owned[:4])}" if owned else ""
        return Unknown(word, f"no pod, node or Service is called so{suggestion(name, known)}", hint)


def _owner(party: Party, world: World) -> Party:
    """*party* by the name of the pod or node whose address it is, if it is only an address."""
    if party.outside is not None or party.name not in map(str, party.addresses):
        return party
    others = (one for one in world.parties.values() if one.name != party.name and one.outside is None)
    return next((one for one in others if not set(one.addresses).isdisjoint(party.addresses)), party)


def labelled(resources: Iterable[Resource], party: Party) -> Labelled | None:
    """Where the labels of *party* are written, if it is a pod that some object makes."""
    one = made_by(resources, party)
    if one is None:
        return None
    owners = (one.manifest.get("metadata") or {}).get("ownerReferences") or ()
    known = {(each.kind, each.namespace, each.name): each for each in resources}
    for owner in owners:
        one = known.get((owner["kind"], one.namespace, owner["name"]), one)
    path = ".".join((*map(str, TEMPLATES.get(one.kind, ())), "metadata.labels"))
    return Labelled(object_name(one), path)


def made_by(resources: Iterable[Resource], party: Party) -> Resource | None:
    """The object that makes *party*; None: it is no pod of an object."""
    for one in resources:
        if one.kind == "Pod" or one.kind in TEMPLATES:
            names = f"{one.namespace}/{one.name}", f"{one.namespace}/{one.kind.lower()}/{one.name}"
            if party.role == "endpoint" and (
                party.name in names or set(_addresses(one)) & {*map(str, party.addresses)}
            ):
                return one
    return None


def uncounted(resources: Iterable[Resource], party: Party) -> frozenset[str]:
    """Labels that the object of *party* gives it and that do not count for its identity."""
    one = made_by(resources, party)
    manifest: Any = one.manifest if one is not None else {}
    for step in TEMPLATES.get(one.kind, ()) if one is not None else ():
        manifest = manifest[step]
    labels = (manifest.get("metadata") or {}).get("labels") or {}
    return frozenset(str(Label("k8s", key, value)) for key, value in labels.items()) - party.labels


def _split(word: str) -> tuple[str, str]:
    """What kind of thing *word* says that it names ("" if it does not say), and the rest of it."""
    kind, slash, rest = word.partition("/")
    return (_KINDS[kind], rest) if slash and kind in _KINDS else ("", word)


def _addresses(resource: Resource) -> list[str]:
    status = resource.manifest.get("status") or {} if resource.kind == "Pod" else {}
    return [str(each.get("ip")) for each in status.get("podIPs") or ()]


def _ready(one: Resource) -> Resource:
    endpoints = [
        e
        for e in one.manifest.get("endpoints") or ()
        if (e.get("conditions") or {}).get("ready") is not False
    ]
    return replace(one, manifest={**one.manifest, "endpoints": endpoints})


def _listed(service: Resource, resources: Sequence[Resource]) -> Resource:
    """*service* as the datapath sees it: what its EndpointSlices list, where there are any."""
    if not addresses(service, resources):
        return service
    spec = {key: value for key, value in service.manifest["spec"].items() if key != "selector"}
    return replace(service, manifest={**service.manifest, "spec": spec})


def _has_port(service: Resource, port: Port) -> bool:
    ports = (service.manifest.get("spec") or {}).get("ports") or ()
    return any(f"{p['port']}/{p.get('protocol', 'TCP')}" == str(port) for p in ports)


def _untranslated(service: Resource, port: Port) -> Resource:
    """*service*, which is nothing but a name for its pods, as one whose ports are the pods' own."""
    said = {"port": port.number, "protocol": PROTOCOL_NAMES[port.protocol]}
    return replace(
        service, manifest={**service.manifest, "spec": {**service.manifest["spec"], "ports": [said]}}
    )


def _leads(title: str, port: Port, ends: Sequence[tuple[Party, Port]], *, headless: bool) -> str:
    names = some(list(dict.fromkeys(f"{one.name} {number}" for one, number in ends)))
    how = "is a name for" if headless else "leads to"
    return f"{title} {port} {how} {names}; policy is asked about that"
