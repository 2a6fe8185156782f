"""Random policies: every member of the language, with values that meet those of :mod:`.worlds`.

They are valid, and none contradicts another: to which proxy a port is sent, and whether who goes there must
authenticate, depends on the port alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, NamedTuple

Manifest = dict[str, Any]

NAMESPACES = ("shop", "ops", "bare")
NAMESPACE = "io.kubernetes.pod.namespace"
TEAM = "io.cilium.k8s.namespace.labels.team"
ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
CLUSTER = "io.cilium.k8s.policy.cluster"
AUDIT = {"policy.cirri.io/audit-mode": "enabled"}

OWN = [("app", "web"), ("app", "api"), ("app", "db"), ("tier", "front"), ("tier", "back")]
"""Labels of pods that users write, as (key, value)."""
DERIVED = [
    (NAMESPACE, "shop"), (NAMESPACE, "ops"), (TEAM, "dev"), (TEAM, "sre"), (ACCOUNT, "payments"),
    (CLUSTER, "default"), (CLUSTER, "east"), ("pod-template-hash", "abc"), ("zone", "a"), ("role", "edge"),
]  # fmt: skip
RESERVED = [
    (f"{start}{name}", "")
    for name in ("host", "remote-node", "health", "init", "world", "world-ipv4", "kube-apiserver", "ingress")
    for start in ("reserved:", "reserved:", "reserved:", "reserved.", "$", "")
]
NODE_LABELS = [
    ("role", "edge"),
    ("role", "core"),
    ("zone", "a"),
    ("zone", "b"),
    ("kubernetes.io/hostname", "n2"),
]

SOURCES = ("", "", "", "k8s:", "any:", "unspec:")

ENTITIES = (
    "all", "world", "host", "remote-node", "cluster", "none", "init", "ingress", "health", "unmanaged",
    "kube-apiserver",
)  # fmt: skip
PREFIXES = {
    "0.0.0.0/0": ("198.51.100.0/24", "10.0.0.0/8"),
    "198.51.0.0/16": ("198.51.100.128/25", "198.51.101.0/24"),
    "198.51.100.77/24": ("198.51.100.128/25", "198.51.100.192/26", "198.51.100.200/32"),
    "198.51.100.128/25": ("198.51.100.200/32",),
    "203.0.113.80/32": (),
    "10.0.0.0/8": ("10.52.0.0/24",),
    "192.168.3.0/24": ("192.168.3.11/32",),
    "172.16.0.10/32": (),
    "::/0": ("2001:db8:2::/48",),
    "2001:db8::/32": ("2001:db8:2::/48", "2001:db8:2::77/128"),
    "2001:db8:2::77/128": (),
    "fd00::/8": ("fd00:10:52::/64",),
}
"""Prefixes, with what may be excepted from each."""
BARE = [*PREFIXES, "203.0.113.80", "172.16.0.10", "2001:db8:2::77"]
"""What a list of prefixes may also name: addresses."""
GROUPS = ("partners", "others", "nobody")
SERVICES = ("api", "metrics", "ext", "nowhere")

PORTS = {
    "80": "http", "81": "generic", "443": "tls", "8000": "http", "8080": "http", "9091": "listener",
    "9092": "kafka", "53": "dns", "http": "http", "HTTP": "http", "dns": "dns", "0": "",
}  # fmt: skip
"""Ports by number or name, and what a proxy may be asked to do there."""
ENDS = (0, 0, 0, 79, 90, 8010, 65535)
CERTIFICATE = {"terminatingTLS": {"secret": {"namespace": "shop", "name": "certificate"}}}
LISTENER = {"envoyConfig": {"kind": "CiliumClusterwideEnvoyConfig", "name": "envoy"}, "name": "listener"}
PAYLOADS: dict[str, list[dict[str, Any]]] = {
    "http": [{"rules": {"http": [{"method": "GET"}]}}, {"rules": {"http": [{"path": "/a"}, {}]}}],
    "dns": [{"rules": {"dns": [{"matchPattern": "*.example.com"}]}}],
    "kafka": [{"rules": {"kafka": [{"topic": "orders"}]}}],
    "generic": [{"rules": {"l7proto": "custom"}}, {"rules": {"l7proto": "custom", "l7": [{"a": "b"}]}}],
    "tls": [
        {"serverNames": ["a.example.com"]},
        {"serverNames": ["*.example.com", "b.org"]},
        CERTIFICATE,
        {**CERTIFICATE, "rules": {"http": [{}]}},
    ],
    "listener": [{"listener": {**LISTENER, **more}} for more in ({}, {"priority": 1}, {"priority": 100})],
}
VOID: list[dict[str, Any]] = [{"rules": {"http": []}}, {"rules": {"kafka": []}}, {"rules": {"dns": []}}]
"""Lists of requests that ask for nothing: a plain allow."""
ICMPS = [
    {"family": "IPv4", "type": 8}, {"type": "EchoRequest"}, {"family": "IPv4", "type": 0},
    {"type": "Timestamp"}, {"family": "IPv6", "type": "EchoRequest"}, {"family": "IPv6", "type": 128},
    {"family": "IPv6", "type": 129},
]  # fmt: skip


class Features(NamedTuple):
    """What the policies of one world may use."""

    l7: bool = False
    auth: bool = False
    nodes: bool = False
    """``fromNodes`` and ``toNodes`` are valid."""
    audit: bool = False
    hosts: bool = False
    """Policies of nodes, too."""


class Pen:
    """Writes the manifests of one world."""

    def __init__(self, random: Random, features: Features) -> None:
        self.random, self.features = random, features

    def chance(self, share: float) -> bool:
        """True in *share* of the cases."""
        return self.random.random() < share

    def some(self, make: Callable[[], Any], least: int = 1, most: int = 2) -> list[Any]:
        """*least* to *most* of what *make* gives."""
        return [make() for _ in range(self.random.randint(least, most))]

    def policy(self, name: str) -> Manifest:
        """A policy object of a random kind."""
        kinds = ["NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"]
        (kind,) = self.random.choices(kinds, [2, 5, 3])
        metadata: Manifest = {"name": name}
        if "wide" not in kind:
            metadata["namespace"] = self.random.choice(["shop", "shop", "ops"])
        if self.features.audit and self.chance(0.35):
            metadata["annotations"] = AUDIT
        if kind == "NetworkPolicy":
            return {"kind": kind, "metadata": metadata, "spec": self.kubernetes()}
        body: Manifest = {}
        if self.chance(0.85):
            body["spec"] = self.spec("wide" in kind)
        if not body or self.chance(0.15):
            body["specs"] = self.some(lambda: self.spec("wide" in kind))
        return {"kind": kind, "metadata": metadata, **body}

    # Cilium's kinds --------------------------------------------------------------------

    def spec(self, clusterwide: bool) -> Manifest:
        """One set of rules."""
        random = self.random
        node = clusterwide and self.features.hosts and self.chance(0.4)
        spec: Manifest
        if node:
            spec = {"nodeSelector": self.selector(NODE_LABELS, [("reserved:host", "")], empty=0.4)}
        elif clusterwide and self.chance(0.15):
            spec = {
                "endpointSelector": {"matchLabels": {random.choice(["reserved:init", "reserved:health"]): ""}}
            }
        else:
            spec = {"endpointSelector": self.selector(OWN, DERIVED, empty=0.5, exotic=0.1)}
        sections = ["ingress", "egress", "ingressDeny", "egressDeny"]
        for name in {sections[random.choices(range(4), [8, 8, 4, 4])[0]] for _ in range(2)}:
            deny, side = name.endswith("Deny"), "from" if name.startswith("in") else "to"
            spec[name] = self.some(partial(self.rule, side, deny=deny, node=node), 1, 3)
        if self.chance(0.2):  # says nothing
            spec.setdefault(random.choice(sections), random.choice([[], None]))
        if self.chance(0.3):
            spec["enableDefaultDeny"] = {
                name: self.chance(0.3) for name in ("ingress", "egress") if self.chance(0.8)
            }
        return spec

    def rule(self, side: str, *, deny: bool, node: bool) -> Manifest:
        """One rule of a section."""
        random = self.random
        rule: Manifest = {}
        members: dict[str, tuple[float, Callable[[], Any]]] = {
            "": (6 if self.features.l7 and not deny else 2.5, lambda: None),
            "Endpoints": (4, lambda: self.selector(OWN, DERIVED, empty=0.2, exotic=0.4)),
            "Entities": (5 if self.features.auth else 2.5, lambda: random.choice(ENTITIES)),
            "CIDR": (1.2, lambda: random.choice(BARE)),
            "CIDRSet": (1.5, self.prefixes),
            "Services": (1.2 * (side == "to"), self.service),
            "Nodes": (1.5 * self.features.nodes, lambda: self.selector(NODE_LABELS, [("node:zone", "a")])),
        }
        (member,) = random.choices(list(members), [weight for weight, _ in members.values()])
        if member:
            rule[side + member] = self.some(members[member][1], 0 if self.chance(0.05) else 1, 2)
        if self.chance(0.06) and member:
            rule[f"{side}Requires"] = self.some(lambda: self.selector(OWN, DERIVED, exotic=0.3), 0, 1)
        plain = 0.2 if not member else 9 if self.features.auth else 4.5
        (l4,) = random.choices(["", "ports", "icmps", "void"], [plain, 7, 1.2, 0.2])
        if l4 == "ports":
            rule["toPorts"] = self.some(lambda: self.port_rule(side, plain=deny or node), 1, 2)
        elif l4 == "icmps":
            rule["icmps"] = [{"fields": self.some(lambda: random.choice(ICMPS))}]
        elif l4 == "void":
            rule |= random.choice([{"toPorts": []}, {"toPorts": [{}]}, {"icmps": [{}]}, {"icmps": []}])
        if self.chance(0.1):  # says nothing
            rule.setdefault(side + random.choice(["Endpoints", "CIDR", "Requires"]), None)
        if self.features.auth and not deny and self.chance(0.4) and (mode := _mode(rule)):
            rule["authentication"] = {"mode": mode}
        return rule

    def port_rule(self, side: str, *, plain: bool) -> Manifest:
        """One element of ``toPorts``; *plain*: without requests."""
        random = self.random
        if plain or not self.features.l7 or self.chance(0.25):
            ports = self.some(lambda: self.port(random.choice(list(PORTS))), 0 if self.chance(0.05) else 1, 3)
            return {"ports": ports}
        if self.chance(0.1):
            return {
                "ports": [self.port("80", "TCP", ranges=False)],
                **random.choice(VOID[: 3 if side == "to" else 2]),
            }
        wanted = random.choice(
            ("http", "kafka", "generic", "tls", *(["dns", "dns", "dns", "listener"] if side == "to" else []))
        )
        numbers = [text for text, kind in PORTS.items() if kind == wanted]
        protocol = random.choice(["TCP", "UDP", "ANY"]) if wanted == "dns" else "TCP"
        ports = self.some(lambda: self.port(random.choice(numbers), protocol, ranges=wanted != "dns"))
        return {"ports": ports, **random.choice(PAYLOADS[wanted])}

    def port(self, text: str, protocol: str = "", *, ranges: bool = True) -> Manifest:
        """One port; without *protocol* of a random one."""
        random = self.random
        protocol = protocol or random.choice(["TCP", "TCP", "TCP", "UDP", "SCTP", "ANY", ""])
        end = random.choice(ENDS) if ranges else 0
        return (
            {"port": text} | ({"protocol": protocol} if protocol else {}) | ({"endPort": end} if end else {})
        )

    def prefixes(self) -> Manifest:
        """One entry of ``fromCIDRSet``."""
        random = self.random
        excepts: tuple[str, ...]
        (how,) = random.choices(["cidr", "cidrGroupRef", "cidrGroupSelector"], [6, 2, 1])
        if how == "cidrGroupRef":
            excepts = ("198.51.100.200/32", "2001:db8:2::77/128")
            entry: Manifest = {"cidrGroupRef": random.choice(GROUPS)}
        elif how == "cidrGroupSelector":
            return {
                "cidrGroupSelector": self.selector([("kind", "partner"), ("kind", "other")], [], empty=0.1)
            }
        else:
            cidr = random.choice(list(PREFIXES))
            entry, excepts = {"cidr": cidr}, PREFIXES[cidr]
        if excepts and self.chance(0.5):
            entry["except"] = random.sample(excepts, random.randint(1, len(excepts)))
        return entry

    def service(self) -> Manifest:
        """One entry of ``toServices``."""
        where = self.random.choice([{}, {"namespace": "shop"}, {"namespace": "ops"}])
        if self.chance(0.7):
            return {"k8sService": {"serviceName": self.random.choice(SERVICES), **where}}
        selector = self.selector([("expose", "yes"), ("expose", "no")], [])
        return {"k8sServiceSelector": {"selector": selector, **where}}

    def selector(
        self,
        labels: Sequence[tuple[str, str]],
        more: Sequence[tuple[str, str]],
        *,
        empty: float = 0.05,
        exotic: float = 0.3,
        sources: bool = True,
    ) -> Manifest:
        """A label selector over *labels*, and over *more* in *exotic* of the cases."""
        random = self.random
        if self.chance(empty):
            return random.choice([{}, {"matchLabels": {}}])

        def label() -> tuple[str, str]:
            if more and self.chance(exotic):
                return random.choice(RESERVED if more is DERIVED and self.chance(0.35) else list(more))
            key, value = random.choice(list(labels))
            return (random.choice(SOURCES) if sources and labels is OWN else "") + key, value

        found: Manifest = {}
        if self.chance(0.7):
            found["matchLabels"] = dict(self.some(label, 1, 2 if self.chance(0.3) else 1))
        if not found or self.chance(0.35):
            found["matchExpressions"] = [self.expression(*label())]
        return found

    def expression(self, key: str, value: str) -> Manifest:
        """One element of ``matchExpressions``."""
        operator = self.random.choice(["In", "NotIn", "Exists", "DoesNotExist"])
        values = {"values": [value, "other"]} if operator in {"In", "NotIn"} else {}
        return {"key": key, "operator": operator, **values}

    # Kubernetes' own kind ----------------------------------------------------------------

    def kubernetes(self) -> Manifest:
        """The spec of a NetworkPolicy."""
        spec: Manifest = {"podSelector": self.selector(OWN, [], empty=0.5, sources=False)}
        for name, side in (("ingress", "from"), ("egress", "to")):
            if self.chance(0.55):
                spec[name] = self.some(partial(self.kubernetes_rule, side), 0, 2)
        if self.chance(0.6):
            spec["policyTypes"] = self.random.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"]])
        return spec

    def kubernetes_rule(self, side: str) -> Manifest:
        """One rule of it."""
        rule: Manifest = {}
        if self.chance(0.8):
            rule[side] = self.some(self.kubernetes_peer, 0 if self.chance(0.1) else 1, 2)
        if self.chance(0.7):
            rule["ports"] = self.some(self.kubernetes_port, 0 if self.chance(0.1) else 1, 3)
        return rule

    def kubernetes_peer(self) -> Manifest:
        """One element of ``from`` or ``to``."""
        if self.chance(0.2):
            cidr = self.random.choice(list(PREFIXES))
            excepts = {"except": [PREFIXES[cidr][0]]} if PREFIXES[cidr] and self.chance(0.5) else {}
            return {"ipBlock": {"cidr": cidr, **excepts}}
        peer: Manifest = {}
        if self.chance(0.6):
            peer["podSelector"] = self.selector(OWN, [], empty=0.2, sources=False)
        if not peer or self.chance(0.5):
            peer["namespaceSelector"] = self.selector([("team", "dev"), ("team", "sre")], [], empty=0.3)
        return peer

    def kubernetes_port(self) -> Manifest:
        """One element of ``ports``."""
        random = self.random
        port: Manifest = {"protocol": random.choice(["TCP", "UDP", "SCTP"])} if self.chance(0.5) else {}
        text = random.choice([*(text for text in PORTS if text not in {"0", "HTTP"}), ""])
        if text.isdigit():
            port["port"] = int(text)
            if self.chance(0.2):
                port["endPort"] = int(text) + random.choice([0, 10])
        elif text:
            port["port"] = text
        return port


def _mode(rule: Manifest) -> str:
    """How both ends of what *rule* allows authenticate; "" if its ports give no clear answer."""
    if rule.get("icmps"):
        return "test-always-fail"
    if not rule.get("toPorts"):
        return "required"
    ports = {port["port"] for each in rule["toPorts"] for port in each.get("ports") or ()}
    if ports and ports <= {"53", "80", "81", "443"}:
        return "disabled"
    return "test-always-fail" if ports and ports <= {"8000", "8080", "9092"} else ""
