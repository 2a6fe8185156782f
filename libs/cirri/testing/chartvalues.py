"""The values of the Helm chart: one table, from which ``values.yaml``, its schema and the way of each
value into ConfigMap ``cirri-config`` are written.

Names are those that users of Cilium's chart know.  What can have one value only (Cirri always replaces
kube-proxy) may be given, and is refused otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cirri.manifests.config import KEYS

Schema = Mapping[str, Any]
SWITCH: Schema = {"type": "boolean"}
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
WORDS: Schema = {"type": "array", "items": {"type": "string"}}
FREE: Schema = {"type": "object"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}


class Value(NamedTuple):
    """One value of the chart."""

    path: str
    schema: Schema
    key: str = ""
    """Of ``cirri-config``; "": the chart's own."""
    default: Any = None
    """Of the chart's own; the key's default otherwise."""
    says: str = ""
    joined: str = " "
    """Between the words of a list."""


def _one_of(*choices: str) -> Schema:
    return {"enum": list(choices)}


def _fixed(value: Any) -> Schema:
    return {"const": value}


_CONFIG = (
    Value("cluster.name", TEXT, "cluster-name"),
    Value("labels", WORDS, "labels"),
    Value("routingMode", _one_of("native", "tunnel"), "routing-mode"),
    Value("tunnelProtocol", _one_of("vxlan"), "tunnel-protocol"),
    Value("tunnelPort", PORT, "tunnel-port"),
    Value("ipv4NativeRoutingCIDR", TEXT, "ipv4-native-routing-cidr"),
    Value("ipv6NativeRoutingCIDR", TEXT, "ipv6-native-routing-cidr"),
    Value("enableIPv4Masquerade", SWITCH, "enable-ipv4-masquerade"),
    Value("enableIPv6Masquerade", SWITCH, "enable-ipv6-masquerade"),
    Value("nonMasqueradeCIDRs", WORDS, "non-masquerade-cidrs"),
    Value("ipam.operator.clusterPoolIPv4PodCIDRList", WORDS, "cluster-pool-ipv4-cidr"),
    Value("ipam.operator.clusterPoolIPv4MaskSize", NUMBER, "cluster-pool-ipv4-mask-size"),
    Value("ipam.operator.clusterPoolIPv6PodCIDRList", WORDS, "cluster-pool-ipv6-cidr"),
    Value("ipam.operator.clusterPoolIPv6MaskSize", NUMBER, "cluster-pool-ipv6-mask-size"),
    Value("serviceClusterIPRange", WORDS, "service-cluster-ip-range", joined=","),
    Value("nodePort.range", TEXT, "node-port-range"),
    Value("nodePort.enableHealthCheck", SWITCH, "enable-health-check-nodeport"),
    Value("kubeProxyReplacementHealthzBindAddr", TEXT, "kube-proxy-replacement-healthz-bind-address"),
    Value("loadBalancer.algorithm", _one_of("random", "maglev"), "bpf-lb-algorithm"),
    Value("loadBalancer.mode", _one_of("snat", "dsr", "hybrid"), "bpf-lb-mode"),
    Value("loadBalancer.dsrDispatch", _one_of("opt", "ipip"), "bpf-lb-dsr-dispatch"),
    Value("loadBalancer.acceleration", _one_of("disabled", "native", "best-effort"), "bpf-lb-acceleration"),
    Value("loadBalancer.serviceNoBackendResponse", _one_of("reject", "drop"), "service-no-backend-response"),
    Value("bpf.lbSourceRangeAllTypes", SWITCH, "bpf-lb-source-range-all-types"),
    Value("maglev.tableSize", NUMBER, "bpf-lb-maglev-table-size"),
    Value("maglev.hashSeed", TEXT, "bpf-lb-maglev-hash-seed"),
    Value("socketLB.hostNamespaceOnly", SWITCH, "bpf-lb-sock-hostns-only"),
    Value("defaultLBServiceIPAM", _one_of("lbipam", "none"), "default-lb-service-ipam"),
    Value("bpf.lbMapMax", NUMBER, "bpf-lb-map-max"),
    Value("bpf.ctTcpMax", NUMBER, "bpf-ct-global-tcp-max"),
    Value("bpf.ctAnyMax", NUMBER, "bpf-ct-global-any-max"),
    Value("bpf.natMax", NUMBER, "bpf-nat-global-max"),
    Value("bpf.monitorAggregation", _one_of("none", "low", "medium", "maximum"), "monitor-aggregation"),
    Value("bpf.monitorInterval", TEXT, "monitor-aggregation-interval"),
    Value("bpf.monitorFlags", TEXT, "monitor-aggregation-flags"),
    Value("conntrackGCInterval", TEXT, "conntrack-gc-interval"),
    Value("policyEnforcementMode", _one_of("default", "always", "never"), "enable-policy"),
    Value("policyCIDRMatchMode", _one_of("", "nodes"), "policy-cidr-match-mode"),
    Value("policyAuditMode", SWITCH, "policy-audit-mode"),
    Value("policyDefaultLocalCluster", SWITCH, "policy-default-local-cluster"),
    Value("allowLocalhost", _one_of("auto", "always", "policy"), "allow-localhost"),
    Value("hostFirewall.enabled", SWITCH, "enable-host-firewall"),
    Value("nodeSelectorLabels", SWITCH, "enable-node-selector-labels"),
    Value("enableNonDefaultDenyPolicies", SWITCH, "enable-non-default-deny-policies"),
    Value("enableICMPRules", SWITCH, "enable-icmp-rules"),
    Value("l7Proxy", SWITCH, "enable-l7-proxy"),
    Value("envoy.httpRequestTimeoutSeconds", NUMBER, "http-request-timeout"),
    Value("envoy.idleTimeoutDurationSeconds", NUMBER, "http-idle-timeout"),
    Value("envoy.streamIdleTimeoutDurationSeconds", NUMBER, "http-stream-idle-timeout"),
    Value("envoy.maxGRPCTimeoutSeconds", NUMBER, "http-max-grpc-timeout"),
    Value("envoy.connectTimeoutSeconds", NUMBER, "proxy-connect-timeout"),
    Value("envoy.httpNormalizePath", SWITCH, "http-normalize-path"),
    Value("dnsProxy.minTtl", NUMBER, "tofqdns-min-ttl"),
    Value("dnsProxy.endpointMaxIpPerHostname", NUMBER, "tofqdns-endpoint-max-ip-per-hostname"),
    Value("dnsProxy.maxDeferredConnectionDeletes", NUMBER, "tofqdns-max-deferred-connection-deletes"),
    Value("dnsProxy.idleConnectionGracePeriod", TEXT, "tofqdns-idle-connection-grace-period"),
    Value("dnsProxy.proxyResponseMaxDelay", TEXT, "tofqdns-proxy-response-max-delay"),
    Value(
        "dnsProxy.dnsRejectResponseCode", _one_of("refused", "nameError"), "tofqdns-dns-reject-response-code"
    ),
    Value("healthChecking", SWITCH, "enable-health-checking"),
    Value("healthPort", PORT, "cluster-health-port"),
    Value("hubble.enabled", SWITCH, "enable-hubble"),
    Value("hubble.listenAddress", TEXT, "hubble-listen-address"),
    Value("hubble.eventBufferCapacity", NUMBER, "hubble-event-buffer-capacity"),
    Value("hubble.metrics.enabled", WORDS, "hubble-metrics"),
    Value("hubble.export.static.filePath", TEXT, "hubble-export-file-path"),
    Value("hubble.export.static.fileMaxSizeMb", NUMBER, "hubble-export-file-max-size-mb"),
    Value("hubble.export.static.fileMaxBackups", NUMBER, "hubble-export-file-max-backups"),
    Value("hubble.export.static.fileCompress", SWITCH, "hubble-export-file-compress"),
    Value("hubble.export.static.fieldMask", WORDS, "hubble-export-fieldmask"),
    Value("tetragon.exportFilename", TEXT, "export-filename"),
    Value("tetragon.exportFilePerm", TEXT, "export-file-perm"),
    Value("tetragon.exportFileMaxSizeMB", NUMBER, "export-file-max-size-mb"),
    Value("tetragon.exportFileMaxBackups", NUMBER, "export-file-max-backups"),
    Value("tetragon.exportFileCompress", SWITCH, "export-file-compress"),
    Value("tetragon.exportAllowList", TEXT, "export-allowlist"),
    Value("tetragon.exportDenyList", TEXT, "export-denylist"),
    Value("tetragon.exportRateLimit", {"type": "integer", "minimum": -1}, "export-rate-limit"),
    Value("tetragon.grpc.address", TEXT, "server-address"),
    Value("tetragon.fieldFilters", TEXT, "field-filters"),
    Value("tetragon.redactionFilters", TEXT, "redaction-filters"),
    Value("hubble.redact.enabled", SWITCH, "hubble-redact-enabled"),
    Value("hubble.redact.http.urlQuery", SWITCH, "hubble-redact-http-urlquery"),
    Value("hubble.redact.http.userInfo", SWITCH, "hubble-redact-http-userinfo"),
    Value("hubble.redact.http.headers.allow", WORDS, "hubble-redact-http-headers-allow", joined=","),
    Value("hubble.redact.http.headers.deny", WORDS, "hubble-redact-http-headers-deny", joined=","),
    Value("hubble.relay.sortBufferDrainTimeout", TEXT, "hubble-relay-sort-buffer-drain-timeout"),
)

_OWN = (
    Value("kubeProxyReplacement", _fixed(True), default=True, says="Cirri always serves Services itself"),
    Value("bpf.masquerade", _fixed(True), default=True, says="masquerading is always done in eBPF"),
    Value("ipam.mode", _one_of("cluster-pool"), default="cluster-pool"),
    Value("k8sServiceHost", TEXT, default="", says="the API server, where its Service cannot be reached yet"),
    Value("k8sServicePort", PORT, default=6443),
    Value("cgroup.hostRoot", TEXT, default="/sys/fs/cgroup", says="where the nodes have cgroup v2"),
    Value(
        "uplink", TEXT, default="", says="the nodes' device to each other; empty: that of the default route"
    ),
    Value("cni.binPath", TEXT, default="/opt/cni/bin"),
    Value("cni.confPath", TEXT, default="/etc/cni/net.d"),
    Value("cni.exclusive", SWITCH, default=True, says="put other CNI configurations aside while installed"),
    Value("image.registry", TEXT, default="", says="host and path in front of every image's name"),
    Value("image.tag", TEXT, default="", says="empty: the chart's appVersion"),
    Value("image.pullPolicy", _one_of("Always", "IfNotPresent", "Never"), default="IfNotPresent"),
    Value("imagePullSecrets", {"type": "array", "items": FREE}, default=[]),
    Value("debug.enabled", SWITCH, default=False, says="services log what they decide"),
    Value(
        "hubble.tls.enabled",
        SWITCH,
        default=True,
        says="nodes tell their flows to who shows a certificate, and show their own",
    ),
    Value(
        "hubble.tls.auto.enabled",
        SWITCH,
        default=True,
        says="certificates are made with the release and stay; false: of the Secrets that are named",
    ),
    Value(
        "hubble.tls.server.existingSecret",
        TEXT,
        default="",
        says="the nodes': ca.crt, tls.crt, tls.key for *.CLUSTER.hubble-grpc.cilium.io",
    ),
    Value("hubble.relay.enabled", SWITCH, default=True),
    Value(
        "hubble.relay.tls.client.existingSecret", TEXT, default="", says="the relay's towards nodes, likewise"
    ),
    Value(
        "hubble.relay.tls.server.enabled",
        SWITCH,
        default=False,
        says="those who ask the relay must show a certificate, too",
    ),
    Value(
        "hubble.relay.tls.server.existingSecret",
        TEXT,
        default="",
        says="the relay's towards them; made for *.hubble-relay.cilium.io",
    ),
    Value(
        "operator.replicas",
        {"type": "integer", "minimum": 1},
        default=2,
        says="of each service that a cluster has one of: one works, the others stand by",
    ),
    Value("priorityClassName.node", TEXT, default="system-node-critical"),
    Value("priorityClassName.cluster", TEXT, default="system-cluster-critical"),
    Value("tolerations", {"type": "array", "items": FREE}, default=[{"operator": "Exists"}]),
    Value(
        "networkPolicies.enabled",
        SWITCH,
        default=True,
        says="for those of our pods that are in the pod network",
    ),
    Value("podDisruptionBudgets.enabled", SWITCH, default=True),
    Value("prometheus.serviceMonitor.enabled", SWITCH, default=False),
    Value("prometheus.serviceMonitor.interval", TEXT, default="30s"),
    Value("prometheus.serviceMonitor.labels", FREE, default={}),
    Value(
        "prometheus.rules.enabled",
        SWITCH,
        default=False,
        says="recording rules and alerts as a PrometheusRule",
    ),
    Value("dashboards.enabled", SWITCH, default=False),
    Value("dashboards.label", TEXT, default="grafana_dashboard"),
    Value(
        "nats.enabled", SWITCH, default=True, says="a bus of our own; false: nats.external says where it is"
    ),
    Value("nats.replicas", {"enum": [1, 3, 5]}, default=3),
    Value(
        "nats.hosts",
        WORDS,
        default=[],
        says="addresses of the nodes that nats.nodeSelector selects: the bus must be found before there is "
        "a network for pods",
    ),
    Value("nats.nodeSelector", FREE, default={"node-role.kubernetes.io/control-plane": ""}),
    Value("nats.image", TEXT, default="nats:2.10-alpine"),
    Value("nats.port", PORT, default=4222),
    Value("nats.clusterPort", PORT, default=6222),
    Value("nats.monitorPort", PORT, default=8222, says="on the node's loopback, for probes"),
    Value(
        "nats.storage.className",
        TEXT,
        default="",
        says="empty: nats.storage.hostPath; every bucket can be rebuilt",
    ),
    Value("nats.storage.hostPath", TEXT, default="/var/lib/cirri/nats"),
    Value("nats.storage.size", TEXT, default="4Gi"),
    Value("nats.resources", FREE, default={"requests": {"cpu": "100m", "memory": "128Mi"}}),
    Value(
        "nats.external.urls",
        {"type": "array", "items": {"type": "string", "pattern": "^(nats|tls)://"}},
        default=[],
    ),
    Value(
        "nats.external.replicas",
        {"enum": [1, 3, 5]},
        default=1,
        says="on how many of its servers each stream is kept",
    ),
    Value("nats.external.caSecret", TEXT, default="", says="Secret with ca.crt"),
    Value(
        "nats.external.credentialsSecret",
        TEXT,
        default="",
        says="Secret with a password for each service under its name; the users are named as the services",
    ),
)


def table(services: tuple[str, ...], gates: tuple[str, ...]) -> tuple[Value, ...]:
    """Every value of the chart; *gates*: paths of the switches that start some of the *services*."""
    known = {value.path for value in (*_CONFIG, *_OWN)}
    per_service = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"resources": FREE, "env": FREE, "nodeSelector": FREE, "affinity": FREE},
    }
    of_services = {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(services, per_service),
    }
    extra = {
        "type": "object",
        "propertyNames": {"enum": sorted(KEYS)},
        "additionalProperties": {"type": "string"},
    }
    return (
        *_OWN[:3],
        *_CONFIG,
        *_OWN[3:],
        *(Value(path, SWITCH, default=False) for path in gates if path not in known),
        Value(
            "services", of_services, default={}, says="of one service: resources, env, nodeSelector, affinity"
        ),
        Value("extraConfig", extra, default={}, says="any key of cirri-config: it comes last"),
    )


def default(value: Value) -> Any:
    """What ``values.yaml`` says."""
    if not value.key:
        return value.default
    text = KEYS[value.key].default
    match value.schema.get("type"):
        case "boolean":
            return text == "true"
        case "integer":
            return int(text)
        case "array":
            return [part for part in text.replace(",", " ").split() if part]
        case _:
            return text


def nested(values: tuple[Value, ...]) -> dict[str, Any]:
    """The same by the parts of their paths: leaves are the values."""
    root: dict[str, Any] = {}
    for value in values:
        *folders, leaf = value.path.split(".")
        here = root
        for part in folders:
            here = here.setdefault(part, {})
        here[leaf] = value
    return root


def schema(tree: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema of the values in *tree*, which refuses every other name."""
    properties = {
        name: dict(node.schema) if isinstance(node, Value) else schema(node) for name, node in tree.items()
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def text(tree: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Lines of ``values.yaml``."""
    import json

    for name, node in tree.items():
        if isinstance(node, Value):
            says = node.says or (KEYS[node.key].says if node.key else "")
            about = " ".join(filter(None, (says, f"({node.key})" if node.key else "")))
            if about:
                yield f"{indent}# {about}"
            yield f"{indent}{name}: {json.dumps(default(node))}"
        else:
            yield f"{indent}{name}:"
            yield from text(node, indent + "  ")


def ways(values: tuple[Value, ...]) -> list[dict[str, str]]:
    """How values come into ``cirri-config``: key, path, what is put between the words of a list."""
    return [{"key": v.key, "path": v.path, "joined": v.joined} for v in values if v.key]
