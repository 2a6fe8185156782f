"""Policies made from what was seen: they let pass just that.  Pure.

For each kind of pod one CiliumNetworkPolicy, with the directions in which something was seen.  What was
stopped is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from cirri.engine.l7 import DnsQuery, HttpRequest, TlsHello
from cirri.engine.names import canonical_name, name_complaint, server_name_complaint
from cirri.engine.ports import PROTOCOL_NAMES
from cirri.history.questions import when
from cirri.history.replay import Asked, Place, Tally, port_text
from cirri.labels import CLUSTER_KEY, NAMESPACE_KEY, Label, Reserved
from cirri.whatif.author import Author
from cirri.whatif.port import Port
from cirri.whatif.words import K8S, user_labels

KIND = "CiliumNetworkPolicy"
FLEETING = re.compile(
    r"pod-template-hash|pod-template-generation|controller-revision-hash|controller-uid|job-name"
    r"|(batch|statefulset|apps)\.kubernetes\.io/.*|app\.kubernetes\.io/(version|managed-by)|helm\.sh/chart"
)
"""Labels that the next release, or the next pod of the same kind, does not have."""
BASES = ("app.kubernetes.io/name", "app", "k8s-app", "name", "class", "component")
"""Labels that a policy is named after."""
MANY = 32
"""So many addresses at one port are the world."""
_META = re.compile(r"([\\.+*?()|\[\]{}^$])")
_NUMBER = re.compile(r"[0-9]+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Subject(NamedTuple):
    """Pods that one policy is for."""

    namespace: str
    labels: tuple[tuple[str, str], ...]


@dataclass
class Use:
    """What was seen of one peer at one port."""

    count: int = 0
    first_ns: int = 0
    last_ns: int = 0
    plain: bool = False
    """A request was not read, or cannot be asked for by a policy."""
    requests: dict[str, set[str]] = field(default_factory=dict)
    """By kind of rules: ``http``, ``dns``, ``serverNames``; each as YAML of one line, sorted."""

    def note(self, tally: Tally) -> None:
        """Count what was seen."""
        self.count += tally.passed
        self.first_ns = min(self.first_ns or tally.first_ns, tally.first_ns)
        self.last_ns = max(self.last_ns, tally.last_ns)


Uses = dict[tuple[str, int, int], Use]
"""By peer (YAML), protocol and port."""


class Rule(NamedTuple):
    """One rule of a policy, and what it rests on."""

    manifest: dict[str, Any]
    comment: str


class Generated(NamedTuple):
    """Policies as YAML, with comments; and what could not be said."""

    text: str
    warnings: tuple[str, ...]


def generate(
    traffic: Mapping[Asked, Tally], chosen: Callable[[Place, str], bool], cluster: str = "default"
) -> Generated:
    """Policies for the pods that are *chosen* (by place and NAMESPACE/NAME) which let pass what was seen."""
    passed = {about: tally for about, tally in traffic.items() if tally.passed or not tally.stopped}
    warnings: Counter[str] = Counter()
    subjects: dict[Subject, None] = {}
    for about, tally in passed.items():
        for place, name in ((about.client, tally.client), (about.server, tally.server)):
            if chosen(place, name) and (subject := subject_of(place, cluster)) is not None:
                if subject.labels:
                    subjects[subject] = None
                else:
                    warnings[f"{name} has no label that a policy could select it by"] += 1
    names: Counter[str] = Counter()
    documents = []
    for subject in sorted(subjects):
        written = _policy(subject, passed, names, warnings, cluster)
        if written:
            documents.append(written)
    return Generated("---\n".join(documents), tuple(warnings))


def subject_of(place: Place, cluster: str) -> Subject | None:
    """The pods that *place* is one of; None: it is no pod of this cluster."""
    known = {one.key: one.value for one in map(Label.parse, place.labels) if one.source == K8S}
    if place.address or NAMESPACE_KEY not in known or known.get(CLUSTER_KEY, cluster) != cluster:
        return None
    return Subject(known[NAMESPACE_KEY], tuple(sorted(user_labels(stable(place.labels)).items())))


def stable(labels: Iterable[str]) -> frozenset[str]:
    """*labels* without the fleeting ones."""
    return frozenset(text for text in labels if not FLEETING.fullmatch(Label.parse(text).key))


def _policy(
    subject: Subject,
    passed: Mapping[Asked, Tally],
    names: Counter[str],
    warnings: Counter[str],
    cluster: str,
) -> str:
    """The policy for *subject*, "" if nothing was seen of it."""
    inward = _uses(subject, passed, warnings, cluster, ingress=True)
    outward = _uses(subject, passed, warnings, cluster, ingress=False)
    _with_lookups(outward, subject, warnings)
    sides = {"ingress": _rules(inward, "from"), "egress": _rules(outward, "to")}
    if not any(sides.values()):
        return ""
    labels = dict(subject.labels)
    base = next((labels[key] for key in BASES if key in labels), "pods")
    name = f"seen-{re.sub('[^a-z0-9-]+', '-', base.lower()).strip('-') or 'pods'}"
    names[f"{subject.namespace}/{name}"] += 1
    if (number := names[f"{subject.namespace}/{name}"]) > 1:
        name += f"-{number}"
    uses = [*inward.values(), *outward.values()]
    seen = when(min(use.first_ns for use in uses)), when(max(use.last_ns for use in uses))
    lines = [
        f"# Lets pass what was seen of these pods between {seen[0]} and {seen[1]}.",
        "apiVersion: cilium.io/v2",
        f"kind: {KIND}",
        *_indented({"metadata": {"name": name, "namespace": subject.namespace}}, 0),
        "spec:",
        *_indented({"endpointSelector": {"matchLabels": labels}}, 2),
    ]
    for side, rules in sides.items():
        if rules:
            lines.append(f"  {side}:")
            for rule in rules:
                lines.append(f"    # {rule.comment}")
                lines += _indented([rule.manifest], 4)
    return "\n".join(lines) + "\n"


def _indented(value: Any, blanks: int) -> list[str]:
    text = yaml.safe_dump(value, sort_keys=False, width=1000)
    return [" " * blanks + line for line in text.rstrip("\n").splitlines()]


def _uses(
    subject: Subject,
    passed: Mapping[Asked, Tally],
    warnings: Counter[str],
    cluster: str,
    *,
    ingress: bool,
) -> Uses:
    """What was seen of everybody whom the policy of *subject* selects."""
    found: Uses = {}
    wanted = {*subject.labels}
    for about, tally in passed.items():
        mine, other = (about.server, about.client) if ingress else (about.client, about.server)
        own = subject_of(mine, cluster)
        if own is None or own.namespace != subject.namespace or not wanted <= {*own.labels}:
            continue
        peer = peers(about, subject.namespace, cluster, ingress=ingress)
        if peer is None or about.port.protocol not in PROTOCOL_NAMES:
            words = f"{tally.client} -> {tally.server} {port_text(about.port)}"
            warnings[f"{words} was seen, and no rule can say it"] += 1
            continue
        key = (yaml.safe_dump(peer, sort_keys=True), about.port.protocol, about.port.number)
        use = found.setdefault(key, Use())
        use.note(tally)
        if (name := _unsayable(about)) and not ingress:
            warnings[f"{tally.client} asked DNS for {name!r}, which no rule can name"] += 1
        else:
            _note_request(use, about, other=subject_of(other, cluster), ingress=ingress)
    return found


def peers(about: Asked, namespace: str, cluster: str, *, ingress: bool) -> dict[str, Any] | None:
    """The other end of *about*, as a rule names it; None: it cannot."""
    place = about.client if ingress else about.server
    names = sorted(name for name in place.names if not name_complaint(name, pattern=False))
    if names and not ingress:
        return {"toFQDNs": [{"matchName": canonical_name(name)} for name in names]}
    special = Reserved.KUBE_APISERVER.label in place.labels
    author = Author(ingress, stable(place.labels), "" if special else place.address, Port(6, 1), cluster)
    rule = author.rule(KIND, namespace)
    return None if rule is None else {key: value for key, value in rule.items() if key != "toPorts"}


def _unsayable(about: Asked) -> str:
    """The name that was looked up, if it is none that a rule may have: pods can ask for anything."""
    if not isinstance(about.request, DnsQuery) or not name_complaint(about.request.name, pattern=False):
        return ""
    return about.request.name or "."


def _note_request(use: Use, about: Asked, *, other: Subject | None, ingress: bool) -> None:
    """Add the request of *about*, if it is this end's policy that has to list it."""
    match about.request:
        case HttpRequest(server_name="") as http if ingress or other is None:
            path = _path(http.path)
            method = _META.sub(r"\\\1", http.method)
            use.requests.setdefault("http", set()).add(_entry({"method": method, "path": path}))
        case DnsQuery(name) if not ingress:
            use.requests.setdefault("dns", set()).add(_entry({"matchName": canonical_name(name)}))
        case TlsHello(name) if name and not ingress and not server_name_complaint(name):
            use.requests.setdefault("serverNames", set()).add(name)
        case None:
            pass  # requests over it are told by themselves
        case _:
            use.plain = True


def _entry(value: dict[str, str]) -> str:
    return yaml.safe_dump(value, sort_keys=True, width=1000)


def _path(path: str) -> str:
    """A regular expression for *path* and those that differ from it in numbers and in the query alone."""
    plain, _, query = path.partition("?")
    parts = []
    for part in plain.split("/"):
        number = "[0-9]+" if _NUMBER.fullmatch(part) else "[0-9a-fA-F-]{36}" if _UUID.fullmatch(part) else ""
        parts.append(number or _META.sub(r"\\\1", part))
    return "/".join(parts) + (r"(\?.*)?" if query else "")


def _with_lookups(uses: Uses, subject: Subject, warnings: Counter[str]) -> None:
    """Where names are allowed, have lookups read: addresses are learnt from nothing else."""
    if not any(peer.startswith("toFQDNs") for peer, *_ in uses):
        return
    lookups = [use for (_, _, port), use in uses.items() if port == 53]
    for use in lookups:
        if not use.requests:
            use.requests["dns"] = {_entry({"matchPattern": "*"})}
    if not lookups:
        labels = ",".join(f"{key}={value}" for key, value in subject.labels)
        warnings[
            f"no lookup of {subject.namespace} {labels} was seen: without a rule for its DNS server with "
            "rules.dns its toFQDNs learn nothing"
        ] += 1


def _rules(uses: Uses, side: str) -> list[Rule]:
    """*uses* as few rules: peers at the same ports are one, and ports of the same peers."""
    at_ports: dict[str, dict[str, list[tuple[int, int, Use]]]] = {}
    by_peer: dict[str, list[tuple[int, int, Use]]] = {}
    for (peer, protocol, port), use in uses.items():
        by_peer.setdefault(peer, []).append((protocol, port, use))
    for peer, ports in by_peer.items():
        kind = next(iter(yaml.safe_load(peer)))
        told = yaml.safe_dump(_ports(ports), sort_keys=True)
        at_ports.setdefault(f"{kind}\n{told}", {})[peer] = ports
    found = []
    for key, alike in sorted(at_ports.items()):
        kind = key.partition("\n")[0]
        listed = [each for peer in sorted(alike) for each in yaml.safe_load(peer)[kind]]
        unique = list({yaml.safe_dump(each): each for each in listed}.values())
        if kind == f"{side}CIDR" and len(unique) > MANY:
            kind, unique = f"{side}Entities", ["world"]
        every = [use for ports in alike.values() for *_, use in ports]
        count = sum(use.count for use in every)
        last = when(max(use.last_ns for use in every))
        comment = f"seen {count} time{'' if count == 1 else 's'}, last {last}"
        found += [Rule({kind: unique, **each}, comment) for each in _ports(next(iter(alike.values())))]
    return found


def _ports(used: Iterable[tuple[int, int, Use]]) -> list[dict[str, Any]]:
    """``toPorts``, and ``icmps``, which is a rule of its own, for ports of one peer."""
    fields: list[dict[str, Any]] = []
    together: dict[str, tuple[list[dict[str, str]], dict[str, Any]]] = {}
    for protocol, port, use in sorted(used, key=lambda each: each[:2]):
        author = Author(inward=True, labels=frozenset(), address="", port=Port(protocol, port), cluster="")
        if author.icmp:
            fields.append(author.icmp_field())
            continue
        rules = dict(_requests(use))
        entry = author.port_entry("")
        assert entry is not None
        together.setdefault(yaml.safe_dump(rules), ([], rules))[0].append(entry)
    found: list[dict[str, Any]] = []
    if together:
        found.append({"toPorts": [{"ports": ports, **rules} for ports, rules in together.values()]})
    if fields:
        found.append({"icmps": [{"fields": fields}]})
    return found


def _requests(use: Use) -> Iterator[tuple[str, Any]]:
    if use.plain:
        return
    if names := use.requests.get("serverNames"):
        yield "serverNames", sorted(names)
    for kind in ("http", "dns"):
        if entries := use.requests.get(kind):
            yield "rules", {kind: [yaml.safe_load(each) for each in sorted(entries)]}
            return
