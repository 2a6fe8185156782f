"""From a pod's labels to its identity and policy.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyroaring import BitMap

from cirri.addresses import InvalidPools, service_networks
from cirri.addresses.pools import Network
from cirri.labels import InvalidLabelFilter, LabelFilter, canonical, probes, reserved_number
from cirri.model import Identity, PolicyEntry, SelectorSet, SubjectPolicy
from cirri.model.policy import ANY_PEER


@dataclass(frozen=True, slots=True)
class Config:
    """What this service takes from the ConfigMap ``cirri-config``."""

    filter: LabelFilter = field(default_factory=LabelFilter.parse)
    cluster: str = ""
    services: tuple[Network, ...] = service_networks({})
    """The ranges of Service addresses."""
    errors: tuple[str, ...] = ()
    """What in it is wrong, one sentence each; in place of the wrong parts the last good ones hold."""


def configuration(data: Mapping[str, str], cluster: str, before: Config | None = None) -> Config:
    """The configuration in force when the ConfigMap says *data* and *before* was in force.

    *cluster* is the setting that a missing ``cluster-name`` leaves.
    """
    before = before or Config()
    label_filter, services, errors = before.filter, before.services, []
    try:
        label_filter = LabelFilter.parse(data.get("labels", "").split())
    except InvalidLabelFilter as error:
        errors.append(str(error))
    try:
        services = service_networks(data)
    except InvalidPools as error:
        errors.append(str(error))
    return Config(label_filter, data.get("cluster-name") or cluster, services, tuple(errors))


def identity_of(labels: Iterable[str], config: Config, identities: Mapping[str, Identity]) -> int:
    """Number of the identity of an endpoint with *labels*; 0: not allocated yet."""
    relevant = canonical(config.filter.relevant(labels))
    if number := reserved_number(relevant):
        return number
    for number in probes(relevant):
        found = identities.get(str(number))
        if found is not None and found.labels == relevant:
            return number
    return 0


@dataclass(frozen=True, slots=True)
class Computed:
    """What must be in the kernel for endpoints of an identity, or what is still missing for it."""

    policy: SubjectPolicy | None = None
    missing: frozenset[str] = frozenset()
    """Selectors that rules name and that have not arrived."""


def policy_of(
    identity: int, policies: Mapping[str, PolicyEntry], selectors: Mapping[str, SelectorSet]
) -> Computed:
    """The policy of *identity*, only if all that it names is there."""
    entry = policies.get(str(identity))
    if entry is None or entry.subject is None:
        return Computed()
    missing = frozenset(
        key
        for key in selectors_of(entry.subject)
        if (found := selectors.get(key)) is None or members_of(found) is None
    )
    return Computed(None, missing) if missing else Computed(entry.subject)


def members_of(selector: SelectorSet) -> BitMap | None:
    """Whom a selector selects; None if that cannot be read, which is as if it had not arrived."""
    try:
        return BitMap.deserialize(selector.identities) if selector.identities else BitMap()
    except (ValueError, IndexError):
        return None


def selectors_of(policy: SubjectPolicy) -> frozenset[str]:
    """Keys of the selectors that its rules name."""
    rules = (*policy.ingress.rules, *policy.egress.rules)
    return frozenset(rule.selector for rule in rules if rule.selector != ANY_PEER)
