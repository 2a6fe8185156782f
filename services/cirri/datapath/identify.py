"""From a pod's labels to its identity and policy.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pyroaring import BitMap

from cirri.addresses import (
    InvalidMasquerading,
    InvalidPools,
    InvalidRouting,
    Masquerading,
    Routing,
    service_networks,
)
from cirri.addresses.pools import Network
from cirri.datapath.located import number_of
from cirri.engine.config import EngineConfig, InvalidConfig
from cirri.labels import InvalidLabelFilter, LabelFilter
from cirri.layout import EndpointFlag
from cirri.model import Identity, SelectorSet, SubjectPolicy
from cirri.model.policy import ANY_PEER


@dataclass(frozen=True, slots=True)
class Config:
    """What this service takes from the ConfigMap ``cirri-config``."""

    filter: LabelFilter = field(default_factory=LabelFilter.parse)
    cluster: str = ""
    services: tuple[Network, ...] = service_networks({})
    """The ranges of Service addresses."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """The host firewall, audit mode, and what nodes are known by."""
    routing: Routing = field(default_factory=Routing)
    """How packets get to the other nodes' pods."""
    masquerading: Masquerading = field(default_factory=Masquerading)
    """What pods send under the node's address."""
    errors: tuple[str, ...] = ()
    """What in it is wrong, one sentence each; in place of the wrong parts the last good ones hold."""


def configuration(data: Mapping[str, str], cluster: str, before: Config | None = None) -> Config:
    """The configuration in force when the ConfigMap says *data* and *before* was in force.

    *cluster* is the setting that a missing ``cluster-name`` leaves.
    """
    before = before or Config()
    label_filter, services, engine = before.filter, before.services, before.engine
    routing, masquerading, errors = before.routing, before.masquerading, []
    try:
        label_filter = LabelFilter.parse(data.get("labels", "").split())
    except InvalidLabelFilter as error:
        errors.append(str(error))
    try:
        services = service_networks(data)
    except InvalidPools as error:
        errors.append(str(error))
    try:
        engine = EngineConfig.of(data, cluster=cluster)
    except InvalidConfig as error:
        errors.append(str(error))
    try:
        routing = Routing.of(data)
    except InvalidRouting as error:
        errors.append(str(error))
    try:
        masquerading = Masquerading.of(data)
    except InvalidMasquerading as error:
        errors.append(str(error))
    return Config(
        label_filter,
        data.get("cluster-name") or cluster,
        services,
        engine,
        routing,
        masquerading,
        tuple(errors),
    )


def identity_of(labels: Iterable[str], config: Config, identities: Mapping[str, Identity]) -> int:
    """Number of the identity of an endpoint with *labels*; 0: not allocated yet."""
    return number_of(config.filter.relevant(labels), identities)


def members_of(selector: SelectorSet) -> BitMap | None:
    """Whom a selector selects; None if that cannot be read, which is as if it had not arrived."""
    try:
        return BitMap.deserialize(selector.identities) if selector.identities else BitMap()
    except (ValueError, IndexError):
        return None


def selectors_of(policy: SubjectPolicy) -> frozenset[str]:
    """Keys of the selectors that its rules name, those that are tried out among them."""
    sides = (policy.ingress, policy.egress, policy.audit_ingress, policy.audit_egress)
    rules = (rule for side in sides if side is not None for rule in side.rules)
    return frozenset(rule.selector for rule in rules if rule.selector != ANY_PEER)


def goals_of(policy: SubjectPolicy) -> list[SubjectPolicy]:
    """What is to be in force and, if objects in audit mode select it, what is tried out: nothing but rules,
    so that they are equal for identities with equal ones."""
    goals = [SubjectPolicy(identity=0, ingress=policy.ingress, egress=policy.egress)]
    if policy.audit_ingress is not None or policy.audit_egress is not None:
        ingress, egress = policy.audit_ingress or policy.ingress, policy.audit_egress or policy.egress
        goals.append(SubjectPolicy(identity=0, ingress=ingress, egress=egress))
    return goals


def flags_of(goals: Sequence[SubjectPolicy]) -> EndpointFlag:
    """The directions that :func:`goals_of` closes by default, as endpoints have them."""
    enforced = (
        (EndpointFlag.ENFORCE_INGRESS, EndpointFlag.ENFORCE_EGRESS),
        (EndpointFlag.AUDIT_INGRESS, EndpointFlag.AUDIT_EGRESS),
    )
    flags = EndpointFlag(0)
    for (ingress, egress), goal in zip(enforced, goals, strict=False):
        flags |= ingress if goal.ingress.enforced else flags
        flags |= egress if goal.egress.enforced else flags
    return flags
