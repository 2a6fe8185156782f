"""What the maps of Services hold, as records: a frontend with its backends, and each map by itself.  Pure.

The maps say where connections go.  Types, names and backends that only end what they have stand in the
bus alone; whoever has them passes them as :data:`Known`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from cirri.cli.output import Cell
from cirri.cli.records import Record, end_text, flag_names, protocol_text
from cirri.layout import (
    MAGLEV_PART,
    LbAffinity,
    LbAffinityKey,
    LbAliveKey,
    LbBackend,
    LbBackendKey,
    LbFlag,
    LbFrontend,
    LbRangeKey,
    LbScope,
    LbService,
    LbServiceKey,
    LbState,
    MaglevKey,
    MaglevPart,
    address_text,
    maglev_keys,
    network_of,
)
from cirri.loadbalancer import Frontend, Scope, Serving

Known = Mapping[Frontend, Serving]
"""What the cluster says about a node's frontends; empty where nobody could be asked."""

SERVICE_HEADER = ("ID", "Frontend", "Service Type", "Backend", "Service")
LB_HEADER = ("SERVICE ADDRESS", "BACKEND ADDRESS (SERVICE ID) (SLOT)")
FRONTEND_HEADER = ("ID", "SERVICE ADDRESS", "SCOPE", "SERVICE ID", "BACKENDS", "AFFINITY", "FLAGS")
BACKEND_HEADER = ("ID", "SERVICE ID", "SLOT", "BACKEND ADDRESS", "STATE")
REVNAT_HEADER = ("ID", "SERVICE ADDRESS")
RANGE_HEADER = ("SOURCE RANGE", "ID", "SERVICE ADDRESS", "POLICY")
AFFINITY_HEADER = ("CLIENT", "ID", "SERVICE ADDRESS", "BACKEND ADDRESS", "LAST USED")
Entry = tuple[LbServiceKey, LbService]
SCOPES = tuple(Scope)
"""By number."""
MISSING = "missing"
"""A slot that the frontend counts and that is not there: a fault."""


class Maps(NamedTuple):
    """One node's maps, whole."""

    services: Mapping[LbServiceKey, LbService]
    backends: Mapping[LbBackendKey, LbBackend]
    alive: Mapping[LbAliveKey, int]
    """Values are :class:`LbState`."""
    ranges: Iterable[LbRangeKey]


def service_records(maps: Maps, known: Known) -> list[Record]:
    """Every frontend in order of its ID; *known* adds type, name and backends' states."""
    leaving: dict[int, list[tuple[str, int]]] = {}
    for one, state in maps.alive.items():
        if state == LbState.KEEPING:
            leaving.setdefault(one.frontend, []).append((address_text(one.address), one.port))
    ranges: dict[int, list[str]] = {}
    for source in maps.ranges:
        network = network_of(source.prefix_len - 32, source.address)
        ranges.setdefault(source.frontend, []).append(str(network))
    return [
        _service_record(maps, entry, known, leaving.get(number, []), ranges.get(number, []))
        for number, entry in sorted(((e[1].frontend, e) for e in maps.services.items()), key=lambda e: e[0])
    ]


def _service_record(
    maps: Maps, entry: Entry, known: Known, leaving: list[tuple[str, int]], ranges: list[str]
) -> Record:
    key, head = entry
    address, protocol = address_text(key.address), protocol_text(key.protocol)
    serving = known.get(Frontend(address, key.port, protocol, SCOPES[key.scope]))
    says = {(each.address, each.port): each for each in serving.backends} if serving else {}
    if key.scope == LbScope.INTERNAL:  # sockets that are connected to these keep them; no map holds them
        leaving = leaving + [at for at, each in says.items() if each.state == "terminating"]
    taking = dict.fromkeys(_slots(maps, head))
    backends = [
        {
            "address": end_text(*at) if at else None,
            "state": (says[at].state if at in says else "active") if at else MISSING,
            "node": says[at].node if at in says else "",
        }
        for at in taking
    ]
    backends += [
        {"address": end_text(*at), "state": "terminating", "node": says[at].node if at in says else ""}
        for at in sorted({*leaving} - taking.keys())
    ]
    return {
        "id": head.frontend,
        "frontend": end_text(address, key.port),
        "protocol": protocol,
        "scope": SCOPES[key.scope].name.lower(),
        "twoScopes": LbServiceKey(
            address=key.address, port=key.port, protocol=key.protocol, scope=1 - key.scope
        )
        in maps.services,
        "type": serving.kind if serving else "",
        "namespace": serving.namespace if serving else "",
        "name": serving.name if serving else "",
        "backends": backends,
        "flags": flag_names(head.flags, LbFlag),
        "sessionAffinitySeconds": head.affinity_s,
        "sourceRanges": sorted(ranges),
    }


def _slots(maps: Maps, head: LbService) -> Iterator[tuple[str, int] | None]:
    """Address and port in each slot; None: it is not there."""
    for slot in range(head.count):
        backend = maps.backends.get(LbBackendKey(service=head.id, slot=slot))
        yield (address_text(backend.address), backend.port) if backend else None


def frontend_text(record: Record) -> str:
    """``10.96.0.10:80/TCP``; with ``/i`` the one for clients in the cluster, where others have another."""
    inner = record["twoScopes"] and record["scope"] == "internal"
    return f"{record['frontend']}/{record['protocol']}{'/i' if inner else ''}"


def service_row(record: Record) -> list[Cell]:
    """One frontend, backends below each other."""
    lines = [
        f"{number} => {backend['address'] or '?'}/{record['protocol']} ({backend['state']})"
        for number, backend in enumerate(record["backends"], 1)
    ]
    return [
        str(record["id"]),
        frontend_text(record),
        record["type"] or "-",
        lines or "",
        service_name(record),
    ]


def service_name(record: Record) -> str:
    """``namespace/name``, or "-" if it is not known."""
    return f"{record['namespace']}/{record['name']}" if record["name"] else "-"


def service_text(record: Record) -> str:
    """All that is known of one frontend."""
    affinity, ranges = record["sessionAffinitySeconds"], record["sourceRanges"]
    flags = record["flags"]
    allows = f"{'all but ' if 'RangesDeny' in flags else ''}{', '.join(ranges) or 'none'}"
    from_ = allows if {"RangesAllow", "RangesDeny"} & {*flags} else "all"
    pairs = [
        ("ID", str(record["id"])),
        ("Frontend", frontend_text(record)),
        ("Service Type", record["type"] or "-"),
        ("Service", service_name(record)),
        ("Clients", "sockets and pods of this node" if record["scope"] == "internal" else "from the wire"),
        ("Session Affinity", f"ClientIP, {affinity} s" if affinity else "none"),
        ("Source Ranges", from_),
        ("Flags", ", ".join(flags) or "none"),
    ]
    lines = [f"{f'{name}:':18}{value}" for name, value in pairs]
    if not record["backends"]:
        return "\n".join([*lines, "Backends:         none"])
    lines.append("Backends:")
    for number, backend in enumerate(record["backends"], 1):
        node = f" on {backend['node']}" if backend["node"] else ""
        lines.append(
            f"  {number} => {backend['address'] or '?'}/{record['protocol']} ({backend['state']}){node}"
        )
    return "\n".join(lines)


# each map by itself ----------------------------------------------------------


def lb_records(
    services: Mapping[LbServiceKey, LbService], backends: Mapping[LbBackendKey, LbBackend]
) -> list[Record]:
    """Frontends by address with the backends in their slots; a slot that is missing is told."""
    found = []
    for key, head in sorted(services.items(), key=lambda e: _place(e[0])):
        slots = _slots(Maps(services, backends, {}, ()), head)
        found.append(
            {
                **_head(key, head, services),
                "backends": [end_text(*at) if at else None for at in slots],
            }
        )
    return found


def lb_row(record: Record) -> list[Cell]:
    """One frontend, backends below each other."""
    slots = [
        f"{backend or MISSING}/{record['protocol']} ({record['id']}) ({slot})"
        for slot, backend in enumerate(record["backends"])
    ]
    return [frontend_text(record), slots or "-"]


def frontend_records(services: Mapping[LbServiceKey, LbService]) -> list[Record]:
    """The entries of ``cirri_lb_services`` by number."""
    return [
        {
            **_head(key, head, services),
            "count": head.count,
            "sessionAffinitySeconds": head.affinity_s,
            "flags": flag_names(head.flags, LbFlag),
        }
        for key, head in sorted(services.items(), key=lambda e: e[1].frontend)
    ]


def frontend_row(record: Record) -> list[Cell]:
    """One entry."""
    affinity = record["sessionAffinitySeconds"]
    return [
        str(record["frontendId"]),
        frontend_text(record),
        record["scope"],
        str(record["id"]),
        str(record["count"]),
        f"{affinity}s" if affinity else "-",
        ",".join(record["flags"]) or "-",
    ]


def backend_records(maps: Maps) -> list[Record]:
    """Slots of every frontend, then backends that keep what they have; slots of no frontend come last."""
    states = {(a.frontend, a.address, a.port): LbState(state) for a, state in maps.alive.items()}
    frontends = {head.id: (key, head) for key, head in maps.services.items()}
    found = []
    for slot, backend in maps.backends.items():
        key, head = frontends.get(slot.service, (None, None))
        at = head.frontend if head else 0, backend.address, backend.port
        found.append(_backend_record(key, at, slot, states.pop(at, LbState.TAKING)))
    by_number = {head.frontend: key for key, head in maps.services.items()}
    found += [_backend_record(by_number.get(at[0]), at, None, state) for at, state in states.items()]
    return sorted(
        found, key=lambda r: (not r["frontendId"], r["frontendId"], r["slot"] is None, r["slot"] or 0)
    )


def _backend_record(
    key: LbServiceKey | None, at: tuple[int, bytes, int], slot: LbBackendKey | None, state: LbState
) -> Record:
    frontend, address, port = at
    return {
        "frontendId": frontend,
        "id": slot.service if slot else None,
        "slot": slot.slot if slot else None,
        "address": end_text(address_text(address), port),
        "protocol": protocol_text(key.protocol) if key else None,
        "state": "active" if state == LbState.TAKING else "terminating",
    }


def backend_row(record: Record) -> list[Cell]:
    """One backend."""
    protocol = f"/{record['protocol']}" if record["protocol"] else ""
    return [
        str(record["frontendId"] or "-"),
        "-" if record["id"] is None else str(record["id"]),
        "-" if record["slot"] is None else str(record["slot"]),
        f"{record['address']}{protocol}",
        record["state"],
    ]


def revnat_records(frontends: Mapping[int, LbFrontend]) -> list[Record]:
    """Under which name answers of a frontend's connections leave."""
    return [
        {"frontendId": number, "frontend": end_text(address_text(one.address), one.port)}
        for number, one in sorted(frontends.items())
    ]


def revnat_row(record: Record) -> list[Cell]:
    """One frontend."""
    return [str(record["frontendId"]), record["frontend"]]


def range_records(ranges: Iterable[LbRangeKey], services: Mapping[LbServiceKey, LbService]) -> list[Record]:
    """Sources that frontends tell apart, by frontend."""
    numbered = {head.frontend: (key, head) for key, head in services.items()}
    found = []
    for source in ranges:
        entry = numbered.get(source.frontend)
        denies = bool(entry and entry[1].flags & LbFlag.RANGES_DENY)
        found.append(
            {
                "range": str(network_of(source.prefix_len - 32, source.address)),
                "frontendId": source.frontend,
                "frontend": _name(entry[0]) if entry else "",
                "policy": "deny" if denies else "allow",
            }
        )
    return sorted(found, key=lambda r: (r["frontendId"], r["range"]))


def range_row(record: Record) -> list[Cell]:
    """One range."""
    return [record["range"], str(record["frontendId"]), record["frontend"] or "-", record["policy"]]


def affinity_records(
    entries: Iterable[tuple[LbAffinityKey, LbAffinity]],
    services: Mapping[LbServiceKey, LbService],
    now_ns: int,
) -> list[Record]:
    """Clients and the backends that they keep, the latest first; *now_ns* is CLOCK_MONOTONIC."""
    names = {head.frontend: _name(key) for key, head in services.items()}
    found = [
        {
            "client": client_text(key.client),
            "frontendId": key.frontend,
            "frontend": names.get(key.frontend, ""),
            "backend": end_text(address_text(value.address), value.port),
            "usedSecondsAgo": max(0, round((now_ns - value.used) / 1e9, 1)),
        }
        for key, value in entries
    ]
    return sorted(found, key=lambda r: (r["usedSecondsAgo"], r["frontendId"], r["client"]))


def affinity_row(record: Record) -> list[Cell]:
    """One client."""
    return [
        record["client"],
        str(record["frontendId"]),
        record["frontend"] or "-",
        record["backend"],
        f"{record['usedSecondsAgo']:.0f}s ago",
    ]


def client_text(client: bytes) -> str:
    """An address, or the network namespace of sockets: those have no address when they choose."""
    if any(client[:8]) or client[8:12] == b"\0\0\xff\xff":
        return address_text(client)
    return f"netns cookie {int.from_bytes(client[8:], 'little')}"


def _head(key: LbServiceKey, head: LbService, services: Mapping[LbServiceKey, LbService]) -> Record:
    other = LbServiceKey(address=key.address, port=key.port, protocol=key.protocol, scope=1 - key.scope)
    return {
        "frontend": end_text(address_text(key.address), key.port),
        "protocol": protocol_text(key.protocol),
        "scope": SCOPES[key.scope].name.lower(),
        "twoScopes": other in services,
        "id": head.id,
        "frontendId": head.frontend,
    }


def _name(key: LbServiceKey) -> str:
    return f"{end_text(address_text(key.address), key.port)}/{protocol_text(key.protocol)}"


def _place(key: LbServiceKey) -> tuple[bytes, int, int, int]:
    return key.address, key.port, key.protocol, key.scope


MAGLEV_HEADER = ("ID", "SERVICE ADDRESS", "TABLE", "SIZE", "BACKEND ADDRESS (SLOTS)")


def maglev_records(maps: Maps, parts: Mapping[MaglevKey, MaglevPart]) -> list[Record]:
    """Frontends whose backend a table tells, and how many of its slots each backend has."""
    found = []
    for key, head in sorted(maps.services.items(), key=lambda e: e[1].frontend):
        if not head.table_size:
            continue
        missing = MaglevPart(slots=b"\xff\xff" * MAGLEV_PART)
        raw = b"".join(parts.get(one, missing).slots for one in maglev_keys(head.table, head.table_size))
        counts = Counter(memoryview(raw).cast("H")[: head.table_size])
        backends = list(_slots(maps, head))
        shares = []
        for slot, count in sorted(counts.items()):
            at = backends[slot] if slot < len(backends) else None
            shares.append({"address": end_text(*at) if at else None, "slots": count})
        table = f"{head.table:016x}"
        found.append(
            {**_head(key, head, maps.services), "table": table, "size": head.table_size, "backends": shares}
        )
    return found


def maglev_row(record: Record) -> list[Cell]:
    """One frontend, backends below each other."""
    shares = [
        f"{each['address'] or MISSING}{'/' + record['protocol'] if each['address'] else ''} "
        f"({each['slots']}, {100 * each['slots'] / record['size']:.1f}%)"
        for each in record["backends"]
    ]
    return [str(record["frontendId"]), frontend_text(record), record["table"], str(record["size"]), shares]
