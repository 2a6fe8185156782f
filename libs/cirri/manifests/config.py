"""The cluster's configuration: ConfigMap ``cirri-config`` in ``kube-system``, checked when applied.

A key that is not known is kept: a later version may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from cirri.addresses import masquerading, routing
from cirri.addresses.config import (
    DEFAULTS,
    SERVICE_RANGES,
    InvalidPools,
    Pools,
    cluster_pools,
    service_networks,
)
from cirri.labels import InvalidLabelFilter, LabelFilter, parse_prefix
from cirri.layout import limits, tracing
from cirri.lbipam.config import CHOICES, DEFAULT_IPAM
from cirri.loadbalancer import LoadBalancerConfig, complaint
from cirri.loadbalancer.config import HEALTHZ, HEALTHZ_DEFAULT
from cirri.maglev import DEFAULT_SEED, DEFAULT_SIZE
from cirri.manifests import runtimeexport
from cirri.manifests.problems import Path, listed, suggestion
from cirri.model import (
    Resource,
    announcer,
    flowexport,
    flowmetrics,
    flowsettings,
    health,
    http,
    names,
    observing,
    optional,
)

CONFIG_NAMESPACE = "kube-system"
CONFIG_NAME = "cirri-config"
NODE_PORT_RANGE = "node-port-range"

Network = IPv4Network | IPv6Network


class Key(NamedTuple):
    """One key of the configuration."""

    default: str
    says: str
    complaint: Callable[[str], str] = lambda text: ""
    """What is wrong with a value, "" if nothing."""


def _one_of(*choices: str) -> Callable[[str], str]:
    return lambda text: (
        ""
        if text in choices
        else f'"{text}" is not allowed{suggestion(text, choices)}; allowed: {listed(choices)}'
    )


_SWITCH = _one_of("true", "false")


def _pools(version: int) -> Callable[[str], str]:
    def complaint(text: str) -> str:
        for part in text.split():
            found = parse_prefix(part, bare=False)
            if isinstance(found, str):
                return found
            if found.version != version:
                return f'"{part}" is not an IPv{version} prefix'
        return ""

    return complaint


def _mask(longest: int) -> Callable[[str], str]:
    return lambda text: (
        ""
        if text.isascii() and text.isdigit() and 1 <= int(text) <= longest
        else f'"{text}" is not a prefix length; allowed: "1" to "{longest}"'
    )


def _ranges(text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    networks = [parse_prefix(part, bare=False) for part in parts]
    for found in networks:
        if isinstance(found, str):
            return found
    if len({network.version for network in networks if not isinstance(network, str)}) < len(parts):
        return (
            f'"{text}" has two ranges of one family; allowed: one IPv4 and one IPv6 prefix, comma separated'
        )
    return ""


def _label_filter(text: str) -> str:
    try:
        LabelFilter.parse(text.split())
    except InvalidLabelFilter as error:
        return f'"{error.prefix}" is not a prefix: {error.why}'
    return ""


_NAMES = {
    names.MIN_TTL: "how long an address of a name holds at least, in seconds",
    names.PER_NAME: "addresses that a pod may hold of one name",
    names.ZOMBIES: "addresses of a pod that stay after their time because connections live",
    names.GRACE: "how much longer they stay than their time",
    names.DELAY: "how long an answer may wait for the kernel to know its addresses",
    names.REFUSAL: "what is answered where no rule lets a name pass",
}
_EXPORT = {
    flowexport.PATH: "file of flows on each node, one JSON object a line; empty: none",
    flowexport.SIZE: "megabytes after which it is put aside",
    flowexport.BACKUPS: "how many of them are kept",
    flowexport.COMPRESS: "whether those are compressed",
    flowexport.ALLOW: "flow filters in JSON, one of which a flow in it must match",
    flowexport.DENY: "flow filters in JSON, none of which it may match",
    flowexport.FIELDS: "fields of a flow that it holds, separated by blanks; empty: all",
    flowexport.DYNAMIC: "more such files, as YAML: a list flowLogs, whose entries may have an end",
    flowexport.REDACT: "whether values of headers are left out of flows",
    flowexport.HEADERS_ALLOW: "all but of these headers",
    flowexport.HEADERS_DENY: "only of these headers",
    flowexport.QUERY: "whether the query is left out of URLs",
    flowexport.USER: "whether the password is left out of URLs",
}
_RUNTIME = {
    runtimeexport.PATH: "file of runtime events on each node, one JSON object a line; empty: none",
    runtimeexport.PERM: "its permissions, in octal",
    runtimeexport.SIZE: "megabytes after which it is put aside",
    runtimeexport.BACKUPS: "how many of them are kept",
    runtimeexport.COMPRESS: "whether those are compressed",
    runtimeexport.ALLOW: "filters in JSON, one of which an event in it must match",
    runtimeexport.DENY: "filters in JSON, none of which it may match",
    runtimeexport.RATE: "events in it a minute; -1: all",
    runtimeexport.FIELDS: "filters of the fields that it holds, in JSON",
    runtimeexport.SERVER: "where each node tells runtime events over gRPC, unix:///PATH; empty: nowhere",
    runtimeexport.REDACT: "what is taken out of programs' arguments before anybody is told, in JSON",
}
_FLOWS = {
    flowsettings.BUFFER: "flows that each node holds in memory, one less than a power of two",
    flowsettings.FORWARDED_AGE: "how long flows that passed are kept on the bus",
    flowsettings.FORWARDED_BYTES: "room for them there; the oldest go first",
    flowsettings.DROPPED_AGE: "how long flows that did not pass are kept on the bus",
    flowsettings.DROPPED_BYTES: "room for them there; the oldest go first",
}
_OBSERVING = {
    observing.LISTEN: "where each node tells its flows, HOST:PORT; empty: on its unix socket alone",
    observing.CERTIFICATE: "the nodes' certificate for that, in PEM; empty: without TLS",
    observing.KEY: "its key",
    observing.CLIENT_CA: "who signs clients' certificates there; empty: they need none",
    observing.RELAY_LISTEN: "where the relay tells the cluster's flows; empty: on its unix socket alone",
    observing.RELAY_CERTIFICATE: "the relay's certificate for that; empty: without TLS",
    observing.RELAY_KEY: "its key",
    observing.RELAY_CLIENT_CA: "who signs its clients' certificates; empty: they need none",
    observing.RELAY_AS_CLIENT: "the certificate that the relay shows to nodes",
    observing.RELAY_AS_CLIENT_KEY: "its key",
    observing.SERVER_CA: "who signs nodes' certificates; empty: the relay speaks to them without TLS",
    observing.SORT_WINDOW: "how long the relay waits for what other nodes saw earlier",
}
_HTTP_TIMES = (
    "longest request through the proxy; 0: without end",
    "longest pause between requests of a connection through the proxy; 0: without end",
    "longest pause within a request through the proxy; 0: without end",
    "longest grpc-timeout that a client may ask the proxy for; 0: as any request",
    "how long the proxy waits for a server to accept",
)

KEYS: Mapping[str, Key] = {
    "labels": Key(
        "", "label prefixes that make an identity, separated by blanks; ! in front excludes", _label_filter
    ),
    "cluster-name": Key("default", "name of this cluster"),
    DEFAULT_IPAM: Key(
        CHOICES[0], "who gives addresses to LoadBalancer Services without a class", _one_of(*CHOICES)
    ),
    "enable-policy": Key(
        "default", "when endpoints are under default deny", _one_of("default", "always", "never")
    ),
    "cluster-pool-ipv4-cidr": Key(
        DEFAULTS["cluster-pool-ipv4-cidr"], "pools of pod ranges, separated by blanks", _pools(4)
    ),
    "cluster-pool-ipv4-mask-size": Key(
        DEFAULTS["cluster-pool-ipv4-mask-size"], "length of one node's range", _mask(32)
    ),
    "cluster-pool-ipv6-cidr": Key(
        DEFAULTS["cluster-pool-ipv6-cidr"], "pools of pod ranges, separated by blanks", _pools(6)
    ),
    "cluster-pool-ipv6-mask-size": Key(
        DEFAULTS["cluster-pool-ipv6-mask-size"], "length of one node's range", _mask(128)
    ),
    SERVICE_RANGES: Key(DEFAULTS[SERVICE_RANGES], "ranges of Service addresses", _ranges),
    NODE_PORT_RANGE: Key(
        "30000,32767", "first and last port of Services on nodes", complaint(NODE_PORT_RANGE)
    ),
    "bpf-lb-algorithm": Key(
        "random", "how backends are chosen for clients outside", complaint("bpf-lb-algorithm")
    ),
    "bpf-lb-maglev-table-size": Key(
        str(DEFAULT_SIZE), "slots of a Maglev table, a prime", complaint("bpf-lb-maglev-table-size")
    ),
    "bpf-lb-maglev-hash-seed": Key(
        DEFAULT_SEED, "12 bytes in base64, the same on every node", complaint("bpf-lb-maglev-hash-seed")
    ),
    "bpf-lb-mode": Key(
        "snat", "how clients' packets reach backends of other nodes", complaint("bpf-lb-mode")
    ),
    "bpf-lb-dsr-dispatch": Key(
        "opt",
        "what carries the frontend's address where bpf-lb-mode is dsr",
        complaint("bpf-lb-dsr-dispatch"),
    ),
    "bpf-lb-source-range-all-types": Key(
        "false",
        "whether loadBalancerSourceRanges hold for node ports and external IPs too",
        complaint("bpf-lb-source-range-all-types"),
    ),
    "bpf-lb-acceleration": Key(
        "disabled",
        "whether drivers send packets on that are for other nodes' backends",
        complaint("bpf-lb-acceleration"),
    ),
    **{
        key: Key(tracing.DEFAULTS[key], says, tracing.complaint(key))
        for key, says in {
            tracing.LEVEL: "of which packets observers are told that pass: none (each, and whence), "
            "low (each), medium or maximum (a connection's first, then as the next two keys say)",
            tracing.INTERVAL: "how often they are told of a connection in each direction",
            tracing.FLAGS: "TCP flags of which they are told at once, when first seen in a direction",
        }.items()
    },
    **{
        key: Key(limits.DEFAULTS[key], says, limits.complaint(key))
        for key, says in {
            limits.LB_MAX: "frontends of Services that a node has room for, and four times as many backends",
            limits.CT_TCP_MAX: "TCP connections that a node has room for",
            limits.CT_ANY_MAX: "other connections that a node has room for beside them, in the same map",
            limits.NAT_MAX: "translations that a node has room for",
            limits.SWEEP: "how often what is over is removed from them; 0s: 30 s",
        }.items()
    },
    "service-no-backend-response": Key(
        "reject",
        "whether clients of a Service that nobody serves are refused, or hear nothing (drop)",
        complaint("service-no-backend-response"),
    ),
    "bpf-lb-sock-hostns-only": Key(
        "false",
        "whether sockets of pods are left alone, and their packets translated instead",
        complaint("bpf-lb-sock-hostns-only"),
    ),
    routing.ROUTING_MODE: Key(
        "native", "how packets reach pods of other nodes", routing.complaint(routing.ROUTING_MODE)
    ),
    routing.TUNNEL_PROTOCOL: Key(
        "vxlan", "what tunnels between nodes speak", routing.complaint(routing.TUNNEL_PROTOCOL)
    ),
    routing.TUNNEL_PORT: Key(
        str(routing.VXLAN_PORT), "UDP port of tunnels", routing.complaint(routing.TUNNEL_PORT)
    ),
    "enable-health-check-nodeport": Key(
        "true",
        "whether nodes answer on the health-check node ports of Services",
        complaint("enable-health-check-nodeport"),
    ),
    HEALTHZ: Key(
        HEALTHZ_DEFAULT, "where nodes answer as kube-proxy does; empty: nowhere", complaint(HEALTHZ)
    ),
    **{
        key: Key(
            "true",
            f"whether what pods send out of the cluster by IPv{version} leaves under their node's address",
            masquerading.complaint(key),
        )
        for version, key in masquerading.SWITCHES.items()
    },
    **{
        key: Key(
            "", f"IPv{version} prefix in which the network knows the way to pods", masquerading.complaint(key)
        )
        for version, key in masquerading.NATIVE.items()
    },
    masquerading.EXEMPT: Key(
        "",
        "other prefixes that see pods' own addresses, separated by blanks or commas",
        masquerading.complaint(masquerading.EXEMPT),
    ),
    health.ENABLE: Key("true", "whether nodes probe each other", health.complaint(health.ENABLE)),
    health.PORT: Key("4240", "TCP port on which nodes answer probes", health.complaint(health.PORT)),
    health.INTERVAL: Key("10s", "time between probes of a node", health.complaint(health.INTERVAL)),
    **{
        key: Key(announcer.DEFAULTS[key], says, announcer.complaint(key))
        for key, says in {
            announcer.ENABLE: "whether nodes answer for addresses of Services on their segment",
            announcer.DURATION: "after how long without a sign of life of a node others take its addresses",
            announcer.RENEW: "after how long without its own signs a node takes nothing any more",
            announcer.RETRY: "time between signs of life of a node",
        }.items()
    },
    "enable-l2-neigh-discovery": Key(
        "true", "whether nodes find each other by ARP and ND: the kernel does", _one_of("true")
    ),
    **{
        key: Key(flowsettings.DEFAULTS[key], says, flowsettings.complaint(key))
        for key, says in _FLOWS.items()
    },
    **{
        key: Key(default, says, flowmetrics.complaint(key))
        for key, (default, says) in {
            flowmetrics.METRICS: (
                "",
                "metrics of flows to count, NAME:OPTION=VALUE;..., separated by blanks",
            ),
            flowmetrics.DYNAMIC: ("", "the same as YAML, where each can have filters"),
            flowmetrics.SERVER: (flowmetrics.DEFAULT_SERVER, "where nodes serve them; empty: nowhere"),
        }.items()
    },
    **{key: Key(flowexport.DEFAULTS[key], says, flowexport.complaint(key)) for key, says in _EXPORT.items()},
    **{
        key: Key(runtimeexport.DEFAULTS[key], says, runtimeexport.complaint(key))
        for key, says in _RUNTIME.items()
    },
    optional.PARTS["flows"].key: Key(
        "true", "whether the services that tell flows are started with the cluster", _SWITCH
    ),
    **{key: Key(observing.DEFAULTS[key], says, observing.complaint(key)) for key, says in _OBSERVING.items()},
    "allow-localhost": Key(
        "auto", "whether a node may always reach its pods", _one_of("auto", "always", "policy")
    ),
    "enable-host-firewall": Key("false", "whether policies that select nodes are in force", _SWITCH),
    "policy-cidr-match-mode": Key(
        "", '"nodes": address prefixes in policies select nodes too', _one_of("", "nodes")
    ),
    "enable-node-selector-labels": Key(
        "false", "whether policies may select nodes as peers by their labels", _SWITCH
    ),
    "policy-default-local-cluster": Key(
        "true", "whether peers are pods of this cluster unless the policy names another", _SWITCH
    ),
    "policy-audit-mode": Key("false", "whether what policies drop is let through and only reported", _SWITCH),
    "enable-icmp-rules": Key("true", "whether policies may name ICMP types", _SWITCH),
    "enable-l7-proxy": Key("true", "whether policies may have rules on requests", _SWITCH),
    **{
        key: Key(
            str(getattr(http.HttpSettings(), field) // http.S), f"{what}, in seconds", http.complaint(key)
        )
        for (key, field), what in zip(http.SECONDS.items(), _HTTP_TIMES, strict=True)
    },
    **{key: Key(names.DEFAULTS[key], says, names.complaint(key)) for key, says in _NAMES.items()},
    http.NORMALIZE: Key(
        "true", "whether rules on requests see paths in their shortest form", http.complaint(http.NORMALIZE)
    ),
    "enable-non-default-deny-policies": Key("true", "whether enableDefaultDeny: false is heeded", _SWITCH),
}
"""Every key that a service reads, as Cilium names it."""


def config_faults(resource: Resource) -> Iterator[tuple[Path, str]]:
    """What is wrong with *resource*, if it is the configuration."""
    if not _is_config(resource):
        return
    data = resource.manifest.get("data", {})
    complaints = {name: KEYS[name].complaint(value) for name, value in data.items() if name in KEYS}
    for name, says in complaints.items():
        if says:
            yield ("data", name), says
    if not any(complaints.values()):
        yield from pool_faults(data)


def unknown_keys(resource: Resource) -> Iterator[tuple[Path, str]]:
    """The keys that no service reads, if *resource* is the configuration."""
    for name in resource.manifest.get("data", {}) if _is_config(resource) else ():
        if name not in KEYS:
            yield ("data", name), f"no such key{suggestion(name, KEYS)}: nothing reads it"


def _is_config(resource: Resource) -> bool:
    return (resource.kind, resource.namespace, resource.name) == ("ConfigMap", CONFIG_NAMESPACE, CONFIG_NAME)


def pool_faults(data: Mapping[str, str], before: Pools | None = None) -> Iterator[tuple[Path, str]]:
    """What is wrong with the pools of *data* together, or as a change of those *before*."""
    try:
        cluster_pools(data, before=before)
    except InvalidPools as error:
        yield ("data", error.key), error.why


def service_ranges(config: Resource | None) -> tuple[Network, ...]:
    """The ranges of Service addresses, in order; *config* is the ConfigMap, if there is one."""
    return service_networks(config.manifest.get("data", {}) if config is not None else {})


def node_port_range(config: Resource | None) -> range:
    """The ports that Services may have on nodes; *config* is the ConfigMap, if there is one."""
    data = config.manifest.get("data", {}) if config is not None else {}
    return LoadBalancerConfig.of({NODE_PORT_RANGE: data.get(NODE_PORT_RANGE, "")}).node_ports
