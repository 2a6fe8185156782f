"""The worked examples of the policy reference: identities, ports, entities, deny, Kubernetes' own kind."""

import pytest

from cirri.engine import EngineConfig
from cirri.testing.policies import Cluster, pod, policies

SRE = {"team": "sre"}
DEV = {"team": "dev"}
PODS = {
    "shop/web": pod("shop", {"app": "web", "tier": "front"}, namespace_labels=DEV),
    "shop/api": pod("shop", {"app": "api", "tier": "back"}, namespace_labels=DEV),
    "shop/db": pod("shop", {"app": "db", "tier": "data"}, namespace_labels=DEV),
    "shop/tmp": pod("shop", {}, namespace_labels=DEV),
    "shop/prom": pod("shop", {"app": "prom"}, namespace_labels=DEV),
    "shop/pay": pod("shop", {"app": "pay"}, account="payments", namespace_labels=DEV),
    "shop/out": pod("shop", {"app": "out"}, account="checkout", namespace_labels=DEV),
    "ops/prom": pod("ops", {"app": "prom"}, namespace_labels=SRE),
    "ops/web": pod("ops", {"app": "web", "tier": "front"}, namespace_labels=SRE),
    "kube-system/dns": pod("kube-system", {"k8s-app": "kube-dns"}),
}

API = "spec:\n  endpointSelector: {matchLabels: {app: api}}\n"
DB = "spec:\n  endpointSelector: {matchLabels: {app: db}}\n"
WEB = "spec:\n  endpointSelector: {matchLabels: {app: web}}\n"
KNP = "kind: NetworkPolicy\n"
CCNP = "kind: CiliumClusterwideNetworkPolicy\n"
FROM_WEB = "  ingress:\n  - fromEndpoints: [{matchLabels: {app: web}}]\n"

EX28 = f"{WEB}  enableDefaultDeny: {{ingress: false}}\n  ingressDeny: [{{fromEntities: [world]}}]\n"
EX61 = """
spec:
  endpointSelector: {}
  ingress:
  - fromEndpoints:
    - matchExpressions:
      - {key: k8s:io.kubernetes.pod.namespace, operator: NotIn, values: [shop]}
"""

EXAMPLES: dict[str, tuple[str, dict[str, str]]] = {
    "01-simple-ingress": (
        API + FROM_WEB,
        {
            "shop/web -> shop/api TCP/1234": "allow",
            "shop/web -> shop/api ICMP/8": "allow",
            "ops/web -> shop/api TCP/80": "drop/D",
            "shop/tmp -> shop/api TCP/80": "drop/D",
            "world -> shop/api TCP/80": "drop/D",
            "host -> shop/api TCP/80": "allow",
            "rnode -> shop/api TCP/80": "drop/D",
            "shop/api -> world TCP/80": "allow",
            "shop/web -> shop/db TCP/80": "allow",
        },
    ),
    "02-l3-and-l4": (
        API + FROM_WEB + '    toPorts: [{ports: [{port: "8080", protocol: TCP}]}]\n',
        {
            "shop/web -> shop/api TCP/8080": "allow",
            "shop/web -> shop/api TCP/8081": "drop/D",
            "shop/web -> shop/api UDP/8080": "drop/D",
            "shop/web -> shop/api ICMP/8": "drop/D",
            "shop/tmp -> shop/api TCP/8080": "drop/D",
        },
    ),
    "03-l3-or-l4": (
        API + FROM_WEB + '  - toPorts: [{ports: [{port: "8080", protocol: TCP}]}]\n',
        {
            "shop/web -> shop/api TCP/9": "allow",
            "shop/tmp -> shop/api TCP/8080": "allow",
            "world -> shop/api TCP/8080": "allow",
            "shop/tmp -> shop/api TCP/9": "drop/D",
        },
    ),
    "04-empty-rule": (
        "spec:\n  endpointSelector: {}\n  ingress: [{}]\n",
        {
            "shop/web -> shop/api TCP/80": "drop/D",
            "host -> shop/api TCP/80": "allow",
            "shop/api -> ops/prom TCP/80": "allow",
            "shop/web -> ops/prom TCP/80": "allow",
        },
    ),
    "05-empty-selector-namespaced": (
        DB + "  ingress: [{fromEndpoints: [{}]}]\n",
        {
            "shop/tmp -> shop/db TCP/1": "allow",
            "ops/prom -> shop/db TCP/1": "drop/D",
            "world -> shop/db TCP/1": "drop/D",
        },
    ),
    "06-empty-selector-clusterwide": (
        CCNP + DB + "  ingress: [{fromEndpoints: [{}]}]\n",
        {
            "shop/tmp -> shop/db TCP/1": "allow",
            "ops/prom -> shop/db TCP/1": "allow",
            "world -> shop/db TCP/1": "drop/D",
            "rnode -> shop/db TCP/1": "drop/D",
            "health -> shop/db TCP/1": "drop/D",
        },
    ),
    "07-empty-list": (
        DB + '  ingress:\n  - fromEndpoints: []\n    toPorts: [{ports: [{port: "80", protocol: TCP}]}]\n',
        {"shop/web -> shop/db TCP/80": "drop/D", "shop/web -> shop/db TCP/81": "drop/D"},
    ),
    "08-no-port-listed": (API + FROM_WEB + "    toPorts: [{}]\n", {"shop/web -> shop/api TCP/80": "drop/D"}),
    "09-all-ports-of-tcp": (
        API + FROM_WEB + '    toPorts: [{ports: [{port: "0", protocol: TCP}]}]\n',
        {
            "shop/web -> shop/api TCP/1": "allow",
            "shop/web -> shop/api TCP/65535": "allow",
            "shop/web -> shop/api UDP/1": "drop/D",
            "shop/web -> shop/api ICMP/8": "drop/D",
        },
    ),
    "10-protocol-omitted": (
        API + '  egress: [{toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: "5432"}]}]}]\n',
        {
            "shop/api -> shop/db TCP/5432": "allow",
            "shop/api -> shop/db UDP/5432": "allow",
            "shop/api -> shop/db SCTP/5432": "allow",
            "shop/api -> shop/db ICMP/8": "drop/D",
        },
    ),
    "11-range": (
        API + '  ingress: [{toPorts: [{ports: [{port: "8000", endPort: 8010, protocol: TCP}]}]}]\n',
        {
            "shop/tmp -> shop/api TCP/8000": "allow",
            "world -> shop/api TCP/8005": "allow",
            "shop/tmp -> shop/api TCP/8010": "allow",
            "shop/tmp -> shop/api TCP/7999": "drop/D",
            "shop/tmp -> shop/api TCP/8011": "drop/D",
        },
    ),
    "12-end-below-begin": (
        API + '  ingress: [{toPorts: [{ports: [{port: "8000", endPort: 100, protocol: TCP}]}]}]\n',
        {
            "shop/tmp -> shop/api TCP/8000": "allow",
            "shop/tmp -> shop/api TCP/100": "drop/D",
            "shop/tmp -> shop/api TCP/8001": "drop/D",
        },
    ),
    "13-other-namespace": (
        API
        + "  ingress:\n  - fromEndpoints:\n    - matchLabels:\n"
        + "        {k8s:io.kubernetes.pod.namespace: ops, app: prom}\n",
        {
            "ops/prom -> shop/api TCP/1": "allow",
            "shop/prom -> shop/api TCP/1": "drop/D",
            "ops/web -> shop/api TCP/1": "drop/D",
        },
    ),
    "14-any-namespace": (
        API
        + """  ingress:
  - fromEndpoints:
    - matchLabels: {app: web}
      matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]
""",
        {
            "shop/web -> shop/api TCP/1": "allow",
            "ops/web -> shop/api TCP/1": "allow",
            "ops/prom -> shop/api TCP/1": "drop/D",
        },
    ),
    "15-namespace-label": (
        DB
        + "  ingress: [{fromEndpoints: [{matchLabels: {k8s:io.cilium.k8s.namespace.labels.team: sre}}]}]\n",
        {
            "ops/prom -> shop/db TCP/1": "allow",
            "ops/web -> shop/db TCP/1": "allow",
            "shop/web -> shop/db TCP/1": "drop/D",
        },
    ),
    "16-not-in": (
        DB
        + """  ingress:
  - fromEndpoints: [{matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}]
""",
        {
            "shop/api -> shop/db TCP/1": "allow",
            "shop/tmp -> shop/db TCP/1": "allow",
            "shop/web -> shop/db TCP/1": "drop/D",
            "ops/prom -> shop/db TCP/1": "drop/D",
        },
    ),
    "17-subject-stays-in-its-namespace": (
        """
spec:
  endpointSelector: {matchLabels: {k8s:io.kubernetes.pod.namespace: ops, app: web}}
  ingress: [{}]
""",
        {"shop/api -> shop/web TCP/1": "drop/D", "shop/api -> ops/web TCP/1": "allow"},
    ),
    "17b-named-otherwise-nothing-is-selected": (
        """
spec:
  endpointSelector: {matchLabels: {io.kubernetes.pod.namespace: ops, app: web}}
  ingress: [{}]
""",
        {"shop/api -> shop/web TCP/1": "allow", "shop/api -> ops/web TCP/1": "allow"},
    ),
    "18-service-account": (
        """
spec:
  endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: payments}}
  ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: checkout}}]}]
""",
        {"shop/out -> shop/pay TCP/1": "allow", "shop/web -> shop/pay TCP/1": "drop/D"},
    ),
    "19-world": (
        WEB + "  ingress: [{fromEntities: [world]}]\n",
        {
            "world -> shop/web TCP/1": "allow",
            "world6 -> shop/web TCP/1": "allow",
            "shop/api -> shop/web TCP/1": "drop/D",
            "rnode -> shop/web TCP/1": "drop/D",
            "host -> shop/web TCP/1": "allow",
        },
    ),
    "20-cluster": (
        API + "  egress: [{toEntities: [cluster]}]\n",
        {
            "shop/api -> shop/db TCP/1": "allow",
            "shop/api -> ops/prom TCP/1": "allow",
            "shop/api -> host TCP/1": "allow",
            "shop/api -> rnode TCP/1": "allow",
            "shop/api -> health TCP/1": "allow",
            "shop/api -> apiserver TCP/1": "allow",
            "shop/api -> world TCP/1": "drop/D",
        },
    ),
    "25-deny-wins": (
        API
        + FROM_WEB
        + """    toPorts: [{ports: [{port: "443", protocol: TCP}]}]
  ingressDeny:
  - fromEndpoints: [{matchLabels: {tier: front}}]
""",
        {"shop/web -> shop/api TCP/443": "drop/X", "shop/tmp -> shop/api TCP/443": "drop/D"},
    ),
    "26-hole-in-a-broad-allow": (
        API
        + """  egress: [{toEntities: [all]}]
  egressDeny:
  - toEntities: [world]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
""",
        {
            "shop/api -> world TCP/80": "drop/X",
            "shop/api -> world TCP/443": "allow",
            "shop/api -> world UDP/80": "allow",
            "shop/api -> shop/db TCP/80": "allow",
        },
    ),
    "27-deny-alone-blocks-all": (
        WEB + "  ingressDeny: [{fromEntities: [world]}]\n",
        {"world -> shop/web TCP/1": "drop/X", "shop/api -> shop/web TCP/1": "drop/D"},
    ),
    "28-deny-without-default-deny": (
        EX28,
        {
            "world -> shop/web TCP/1": "drop/X",
            "shop/api -> shop/web TCP/1": "allow",
            "rnode -> shop/web TCP/1": "allow",
        },
    ),
    "29-another-rule-enforces": (
        EX28 + "---\n" + WEB + "  ingress: [{fromEndpoints: [{matchLabels: {app: api}}]}]\n",
        {
            "world -> shop/web TCP/1": "drop/X",
            "shop/api -> shop/web TCP/1": "allow",
            "rnode -> shop/web TCP/1": "drop/D",
            "shop/tmp -> shop/web TCP/1": "drop/D",
        },
    ),
    "42-icmp": (
        API + FROM_WEB + "    icmps: [{fields: [{family: IPv4, type: EchoRequest}]}]\n",
        {
            "shop/web -> shop/api ICMP/8": "allow",
            "shop/web -> shop/api TCP/80": "drop/D",
            "shop/web -> shop/api ICMP/13": "drop/D",
            "shop/tmp -> shop/api ICMP/8": "drop/D",
            "shop/web -> shop/api ICMPv6/128": "drop/D",
        },
    ),
    "42b-icmp-type-0-is-type-0": (
        API + FROM_WEB + "    icmps: [{fields: [{type: EchoReply}]}]\n",
        {"shop/web -> shop/api ICMP/0": "allow", "shop/web -> shop/api ICMP/8": "drop/D"},
    ),
    "43-kubernetes-allow-all": (
        KNP + "spec: {podSelector: {}, ingress: [{}]}\n",
        {"world -> shop/api TCP/1": "allow", "ops/web -> shop/api ICMP/8": "allow"},
    ),
    "43b-kubernetes-deny-all": (
        KNP + "spec: {podSelector: {}, ingress: []}\n",
        {"shop/web -> shop/api TCP/1": "drop/D", "shop/api -> world TCP/1": "allow"},
    ),
    "43c-kubernetes-egress-only": (
        KNP + "spec: {podSelector: {}, policyTypes: [Egress]}\n",
        {"shop/web -> world TCP/1": "drop/D", "ops/web -> shop/api TCP/1": "allow"},
    ),
    "43d-kubernetes-section-without-its-type": (
        KNP + "spec: {podSelector: {}, policyTypes: [Egress], ingress: [{from: [{podSelector: {}}]}]}\n",
        {"ops/web -> shop/api TCP/1": "allow", "shop/web -> world TCP/1": "drop/D"},
    ),
    "44-kubernetes-and": (
        KNP
        + """spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: sre}}
      podSelector: {matchLabels: {app: prom}}
""",
        {
            "ops/prom -> shop/api TCP/1": "allow",
            "ops/web -> shop/api TCP/1": "drop/D",
            "shop/prom -> shop/api TCP/1": "drop/D",
        },
    ),
    "44b-kubernetes-or": (
        KNP
        + """spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: sre}}
    - podSelector: {matchLabels: {app: prom}}
""",
        {
            "ops/prom -> shop/api TCP/1": "allow",
            "ops/web -> shop/api TCP/1": "allow",
            "shop/prom -> shop/api TCP/1": "allow",
            "shop/web -> shop/api TCP/1": "drop/D",
        },
    ),
    "44c-kubernetes-negative-namespace-selects-pods-only": (
        KNP
        + """spec:
  podSelector: {}
  ingress:
  - from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [dev]}]}}]
""",
        {
            "ops/prom -> shop/api TCP/1": "allow",
            "kube-system/dns -> shop/api TCP/1": "allow",
            "shop/web -> shop/api TCP/1": "drop/D",
            "world -> shop/api TCP/1": "drop/D",
            "rnode -> shop/api TCP/1": "drop/D",
        },
    ),
    "45-kubernetes-protocol-default": (
        KNP + "spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}\n",
        {"world -> shop/api TCP/80": "allow", "world -> shop/api UDP/80": "drop/D"},
    ),
    "45b-kubernetes-port-omitted": (
        KNP + "spec: {podSelector: {}, ingress: [{ports: [{protocol: UDP}, {port: 90, endPort: 95}]}]}\n",
        {
            "world -> shop/api UDP/9": "allow",
            "world -> shop/api TCP/9": "drop/D",
            "world -> shop/api TCP/95": "allow",
            "world -> shop/api TCP/96": "drop/D",
        },
    ),
    "50-kube-apiserver": (
        API + "  egress: [{toEntities: [kube-apiserver]}]\n",
        {
            "shop/api -> apiserver TCP/6443": "allow",
            "shop/api -> rnode TCP/6443": "drop/D",
            "shop/api -> host TCP/6443": "drop/D",
        },
    ),
    "55-true-without-a-section": (
        API + "  enableDefaultDeny: {ingress: true, egress: true}\n  ingress: [{fromEntities: [cluster]}]\n",
        {"shop/api -> world TCP/1": "allow", "world -> shop/api TCP/1": "drop/D"},
    ),
    "61-negative-namespace": (
        EX61,
        {
            "ops/prom -> shop/api TCP/1": "allow",
            "shop/web -> shop/api TCP/1": "drop/D",
            "world -> shop/api TCP/1": "allow",
            "rnode -> shop/api TCP/1": "allow",
        },
    ),
    "61b-with-exists": (
        EX61 + "      - {key: k8s:io.kubernetes.pod.namespace, operator: Exists}\n",
        {"ops/prom -> shop/api TCP/1": "allow", "world -> shop/api TCP/1": "drop/D"},
    ),
    "61c-clusterwide": (
        CCNP
        + """spec:
  endpointSelector: {}
  ingress: [{fromEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}]}]
""",
        {
            "ops/prom -> shop/api TCP/1": "allow",
            "shop/api -> shop/db TCP/1": "allow",
            "shop/web -> shop/api TCP/1": "drop/D",
            "world -> shop/api TCP/1": "drop/D",
            "rnode -> shop/api TCP/1": "drop/D",
        },
    ),
    "61d-negative-namespace-label": (
        EX61.replace("k8s:io.kubernetes.pod.namespace", "io.cilium.k8s.namespace.labels.team").replace(
            "shop", "dev"
        ),
        {
            "ops/prom -> shop/api TCP/1": "allow",
            "shop/web -> shop/api TCP/1": "drop/D",
            "world -> shop/api TCP/1": "allow",
        },
    ),
    "61e-negative-namespace-label-clusterwide": (
        CCNP
        + EX61.replace("k8s:io.kubernetes.pod.namespace", "io.cilium.k8s.namespace.labels.team").replace(
            "shop", "dev"
        ),
        {
            "ops/prom -> shop/api TCP/1": "allow",
            "shop/web -> shop/api TCP/1": "drop/D",
            "world -> shop/api TCP/1": "drop/D",
        },
    ),
    "host-can-be-denied": (
        API + "  ingressDeny: [{fromEntities: [host]}]\n",
        {"host -> shop/api TCP/1": "drop/X"},
    ),
    "reserved-key-in-a-selector": (
        API + "  ingress: [{fromEndpoints: [{matchLabels: {reserved:health: ''}}]}]\n",
        {"health -> shop/api TCP/1": "allow", "shop/web -> shop/api TCP/1": "drop/D"},
    ),
    "specs-and-spec": (
        API
        + FROM_WEB
        + """specs:
- endpointSelector: {matchLabels: {app: db}}
  egress: [{toEntities: [none]}]
""",
        {
            "shop/tmp -> shop/api TCP/1": "drop/D",
            "shop/db -> world TCP/1": "drop/D",
            "shop/tmp -> shop/db TCP/1": "allow",
        },
    ),
    "init-is-isolated": (
        API + "  ingress: [{fromEntities: [init]}]\n",
        {
            "init -> shop/db TCP/1": "drop/D",
            "shop/db -> init TCP/1": "drop/D",
        },
    ),
}


@pytest.mark.parametrize(
    ("text", "flow", "expected"),
    [
        pytest.param(text, flow, expected, id=f"{name}: {flow}")
        for name, (text, flows) in EXAMPLES.items()
        for flow, expected in flows.items()
    ],
)
def test_example(text: str, flow: str, expected: str) -> None:
    assert Cluster(PODS, policies(text)).ask(flow) == expected


@pytest.mark.parametrize(
    ("mode", "flow", "expected"),
    [
        ("always", "shop/web -> shop/api TCP/80", "drop/D"),
        ("always", "host -> shop/api TCP/80", "allow"),
        ("always", "world -> shop/api TCP/80", "drop/D"),
        ("never", "shop/web -> shop/api TCP/80", "allow"),
        ("never", "shop/tmp -> shop/api TCP/80", "allow"),
        ("never", "shop/web -> init TCP/80", "allow"),
    ],
)
def test_mode(mode: str, flow: str, expected: str) -> None:
    config = EngineConfig.of({"enable-policy": mode})
    objects = [] if mode == "always" else policies(API + "  ingressDeny: [{fromEntities: [all]}]\n")
    assert Cluster(PODS, objects, config).ask(flow) == expected


def test_localhost_only_by_rules() -> None:
    config = EngineConfig.of({"allow-localhost": "policy"})
    assert Cluster(PODS, policies(API + FROM_WEB), config).ask("host -> shop/api TCP/80") == "drop/D"
