"""What a node's pinned maps mean, in a form that two nodes' or two starts' maps can be compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cirri.layout import ENDPOINTS, IPCACHE, LB_BACKENDS, LB_SERVICES, POLICY
from cirri.maps import open_pinned


def meaning(bpffs: Path) -> dict[str, Any]:
    """Ids that only join one map to another are replaced by what they lead to; counters are left out.

    ``stray sets`` and ``stray slots`` are entries that nothing leads to: a clean node has none.
    """
    sets: dict[int, set[Any]] = {}
    with open_pinned(bpffs, POLICY) as policy, open_pinned(bpffs, ENDPOINTS) as endpoints:
        for key, value in policy.items():
            about = (
                key.identity,
                key.direction,
                key.protocol,
                key.port,
                key.port_bits,
                value.rule,
                value.action,
                value.priority,
                value.proxy_port,
            )
            sets.setdefault(key.policy_id, set()).add(about)
        found = endpoints.to_dict()
    named = {each for value in found.values() for each in (value.policy_id, value.audit_policy_id)}
    pods = {
        key.hex(): (
            v.ifindex,
            v.identity,
            v.id,
            v.flags,
            v.mac,
            v.node_mac,
            frozenset(sets.get(v.policy_id, ())),
            frozenset(sets.get(v.audit_policy_id, ())),
        )
        for key, v in found.items()
    }
    with open_pinned(bpffs, LB_SERVICES) as services, open_pinned(bpffs, LB_BACKENDS) as backends:
        slots, heads = backends.to_dict(), services.to_dict()
    fronts = {
        key: sorted((v.address, v.port) for k, v in slots.items() if k.service == head.id)
        for key, head in heads.items()
    }
    with open_pinned(bpffs, IPCACHE) as ipcache:
        owners = ipcache.to_dict()
    return {
        "endpoints": pods,
        "stray sets": sets.keys() - named,
        "services": fronts,
        "stray slots": {k for k in slots if k.service not in {head.id for head in heads.values()}},
        "ipcache": owners,
    }
