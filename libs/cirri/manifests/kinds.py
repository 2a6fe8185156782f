"""Every kind that Cirri knows: its API version, names, scope and schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cirri.manifests.problems import listed, suggestion
from cirri.manifests.schema import Fields
from cirri.manifests.schemas import bgp
from cirri.manifests.schemas.cidrgroup import CILIUM_CIDR_GROUP
from cirri.manifests.schemas.cilium import CILIUM_CLUSTERWIDE_NETWORK_POLICY, CILIUM_NETWORK_POLICY
from cirri.manifests.schemas.events import EVENT
from cirri.manifests.schemas.l2policies import CILIUM_L2_ANNOUNCEMENT_POLICY
from cirri.manifests.schemas.lbpools import CILIUM_LOAD_BALANCER_IP_POOL
from cirri.manifests.schemas.networkpolicy import NETWORK_POLICY
from cirri.manifests.schemas.pods import CONFIG_MAP, DEPLOYMENT, NAMESPACE, NODE, POD
from cirri.manifests.schemas.secrets import SECRET
from cirri.manifests.schemas.services import ENDPOINT_SLICE, SERVICE
from cirri.manifests.schemas.tracing import TRACING_POLICY, TRACING_POLICY_NAMESPACED


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    name: str
    api_version: str
    plural: str
    """Lower case, as in the API's paths."""
    schema: Fields
    namespaced: bool = True
    short: tuple[str, ...] = ()
    """Other names that the command line takes."""
    older: tuple[str, ...] = ()
    """API versions with the same fields, under which manifests may still have it."""

    @property
    def title(self) -> str:
        """As ``kubectl`` prints it: ``deployment.apps``."""
        group, slash, _ = self.api_version.partition("/")
        return f"{self.name.lower()}.{group}" if slash else self.name.lower()


_CILIUM, _ALPHA = "cilium.io/v2", "cilium.io/v2alpha1"


def _bgp() -> Iterator[Kind]:
    """The BGP family."""
    for name, short, schema in (
        ("ClusterConfig", "cluster", bgp.CILIUM_BGP_CLUSTER_CONFIG),
        ("PeerConfig", "peer", bgp.CILIUM_BGP_PEER_CONFIG),
        ("Advertisement", "advert", bgp.CILIUM_BGP_ADVERTISEMENT),
        ("NodeConfig", "node", bgp.CILIUM_BGP_NODE_CONFIG),
        ("NodeConfigOverride", "nodeoverride", bgp.CILIUM_BGP_NODE_CONFIG_OVERRIDE),
    ):
        yield Kind(
            f"CiliumBGP{name}",
            _CILIUM,
            f"ciliumbgp{name.lower()}s",
            schema,
            namespaced=False,
            short=(f"cbgp{short}",),
            older=(_ALPHA,),
        )
    yield Kind(
        "CiliumBGPPeeringPolicy",
        _ALPHA,
        "ciliumbgppeeringpolicies",
        bgp.CILIUM_BGP_PEERING_POLICY,
        namespaced=False,
        short=("bgpp",),
    )


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Namespace", "v1", "namespaces", NAMESPACE, namespaced=False, short=("ns",)),
        Kind("Node", "v1", "nodes", NODE, namespaced=False, short=("no",)),
        Kind("ConfigMap", "v1", "configmaps", CONFIG_MAP, short=("cm",)),
        Kind("Secret", "v1", "secrets", SECRET),
        Kind("Service", "v1", "services", SERVICE, short=("svc",)),
        Kind("EndpointSlice", "discovery.k8s.io/v1", "endpointslices", ENDPOINT_SLICE, short=("eps",)),
        Kind("Deployment", "apps/v1", "deployments", DEPLOYMENT, short=("deploy",)),
        Kind("Event", "v1", "events", EVENT, short=("ev",)),
        Kind("Pod", "v1", "pods", POD, short=("po",)),
        Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", NETWORK_POLICY, short=("netpol",)),
        Kind("CiliumNetworkPolicy", _CILIUM, "ciliumnetworkpolicies", CILIUM_NETWORK_POLICY, short=("cnp",)),
        Kind(
            "CiliumClusterwideNetworkPolicy",
            _CILIUM,
            "ciliumclusterwidenetworkpolicies",
            CILIUM_CLUSTERWIDE_NETWORK_POLICY,
            namespaced=False,
            short=("ccnp",),
        ),
        Kind(
            "CiliumCIDRGroup",
            _CILIUM,
            "ciliumcidrgroups",
            CILIUM_CIDR_GROUP,
            namespaced=False,
            short=("ccg",),
            older=("cilium.io/v2alpha1",),
        ),
        Kind(
            "CiliumLoadBalancerIPPool",
            _CILIUM,
            "ciliumloadbalancerippools",
            CILIUM_LOAD_BALANCER_IP_POOL,
            namespaced=False,
            short=("ippools", "ippool", "lbippool", "lbippools"),
            older=("cilium.io/v2alpha1",),
        ),
        *_bgp(),
        Kind(
            "CiliumL2AnnouncementPolicy",
            "cilium.io/v2alpha1",
            "ciliuml2announcementpolicies",
            CILIUM_L2_ANNOUNCEMENT_POLICY,
            namespaced=False,
            short=("l2announcement", "l2announcements"),
        ),
        Kind(
            "TracingPolicy",
            "cilium.io/v1alpha1",
            "tracingpolicies",
            TRACING_POLICY,
            namespaced=False,
            short=("tp",),
        ),
        Kind(
            "TracingPolicyNamespaced",
            "cilium.io/v1alpha1",
            "tracingpoliciesnamespaced",
            TRACING_POLICY_NAMESPACED,
            short=("tpn",),
        ),
    )
}
POLICY_KINDS = frozenset({"NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"})


def kind_named(word: str) -> Kind | None:
    """The kind that *word* names on the command line: any case, singular, plural, short or title."""
    folded = word.lower()
    for kind in KINDS.values():
        if folded in (kind.name.lower(), kind.plural, kind.title, *kind.short):
            return kind
    return None


def unknown_kind(word: str) -> str:
    """The sentence about a kind that is not known."""
    return f'unknown kind "{word}"{suggestion(word, KINDS)}; known kinds: {listed(tuple(KINDS))}'
