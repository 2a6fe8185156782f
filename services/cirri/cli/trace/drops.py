"""``cirri trace drops``: where and why packets end, by the datapath's verdict or in the kernel's own code."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from cirri.cli.context import NoContext, Target
from cirri.cli.monitor import describe
from cirri.cli.output import table
from cirri.cli.pins import Node, nodes, rule_text
from cirri.cli.records import end_text
from cirri.cli.trace import asked
from cirri.cli.trace.fields import Btf
from cirri.cli.trace.packets import Seen, clock, flow_text, seen
from cirri.cli.trace.session import Session
from cirri.cli.trace.source import DROPS, Filter, Network
from cirri.errors import CirriError
from cirri.layout import EVENTS, EventRecord, EventType, address_of
from cirri.maps.onlooker import Onlooker

TOGETHER_NS = 1_000_000
"""The kernel frees a packet at most so long after a program's verdict: both happen in one go."""
PATIENCE_NS = 300_000_000
"""How long one half waits for the other."""
BY_PROGRAM = {"TC_INGRESS": "tc ingress", "TC_EGRESS": "tc egress"}
KALLSYMS = Path("/proc/kallsyms")
HEADER = ("WHERE", "DEVICE", "REASON", "RULE", "COUNT")


class Told:
    """The datapath's own word on a drop."""

    def __init__(self, node: Node, record: EventRecord) -> None:
        self.node, self.record = node, record


@click.command()
@asked.packets
@asked.duration
@asked.output
@click.pass_obj
def drops(
    target: Target,
    *,
    chosen: asked.Packets,
    duration: float | None,
    form: str | None,
) -> None:
    """Show where packets are dropped: the hook, the reason, the rule; at the end, how often.

    A packet that Cirri's datapath drops is told with the datapath's reason and the rule behind it, at the
    hook where the kernel ended it.  Others are told with the kernel's own reason and the function that it
    happened in (tracepoint skb:kfree_skb); that is every packet of this machine, so choose some:

    \b
      cirri trace drops --from xwing --to deathstar
      cirri trace drops --to 10.52.0.0/16 --port 80 --duration 30s -o json

    Nothing is pinned: at the end, however it ends, the kernel has nothing of it left.  Addresses are those
    that the packet has where it is dropped: of a Service, that is its backend behind the node's translation.
    """
    wanted, names = chosen.resolve(target)
    with closing(Btf()) as btf:
        reasons = btf.names("skb_drop_reason")
    teller = Teller(names, reasons, form)
    with ExitStack() as stack:
        rings = list(_rings(target, stack))
        session = stack.enter_context(
            Session(asked.define(wanted) + DROPS, {"dropped": "kfree_skb"}, "told", "lost")
        )
        pairing = Pairing(reasons)
        click.echo("Watching for drops.", err=True)
        for _ in asked.ticks(duration):
            said = [each for ring in rings for each in _dropped(*ring, wanted)]
            assert session.ring is not None
            found = [seen(raw) for raw in session.ring.read()]
            for packet, told in pairing.join(found, said, time.monotonic_ns()):
                teller.tell(packet, told)
        for packet, told in pairing.rest():
            teller.tell(packet, told)
        lost = session.lost()
        missed = sum(ring.missed for _, ring in rings)
    if not form:
        rows = [(*key, str(count)) for key, count in teller.counts.most_common()]
        click.echo("\n" + table(HEADER, rows) if rows else "No packet was dropped.")
    asked.tell_lost(lost, "drops are")
    if missed:
        click.echo(
            f"{missed} times more drops came than the datapath's ring holds: some have no reason", err=True
        )


def _rings(target: Target, stack: ExitStack) -> Iterator[tuple[Node, Onlooker]]:
    """Of the nodes whose maps are on this machine."""
    try:
        chosen = nodes(target, None)
    except NoContext as error:
        click.echo(f"Only the kernel's word: {error}", err=True)
        return
    for node in chosen:
        try:
            yield node, stack.enter_context(Onlooker(node.bpffs / EVENTS.name))
        except CirriError as error:
            click.echo(f"{node.name}: only the kernel's word: {error}", err=True)


def _dropped(node: Node, ring: Onlooker, wanted: Filter) -> Iterator[Told]:
    for raw in ring.read():
        record = EventRecord.unpack(raw)
        if record.type == EventType.DROP and fits(record, wanted):
            yield Told(node, record)


def fits(record: EventRecord, wanted: Filter) -> bool:
    """Whether the datapath's *record* is of a wanted packet."""
    source, destination = address_of(record.source), address_of(record.destination)
    return (
        (not wanted.either or _in(source, wanted.either) or _in(destination, wanted.either))
        and (not wanted.source or _in(source, wanted.source))
        and (not wanted.destination or _in(destination, wanted.destination))
        and (not wanted.port or wanted.port in (record.source_port, record.destination_port))
        and wanted.protocol in (0, record.protocol)
    )


def _in(address: Any, networks: Iterable[Network]) -> bool:
    return any(ip_address(str(address)) in each for each in networks)


class Pairing:
    """Joins what the kernel tells of a packet's end with what the datapath told of its verdict."""

    def __init__(self, reasons: dict[int, str]) -> None:
        self._by_program = {n for n, name in reasons.items() if reason_name(name) in BY_PROGRAM}
        self._packets: list[Seen] = []
        self._told: list[Told] = []

    def join(
        self, packets: Iterable[Seen], told: Iterable[Told], now: int
    ) -> list[tuple[Seen | None, Told | None]]:
        """Those that are complete, or that nothing will come to any more; *now*: ns of CLOCK_MONOTONIC."""
        found: list[tuple[Seen | None, Told | None]] = []
        self._told += told
        for packet in packets:
            if packet.reason in self._by_program:
                self._packets.append(packet)
            else:
                found.append((packet, None))
        waiting = []
        for packet in self._packets:
            fit = [each for each in self._told if self._together(packet, each.record)]
            if fit:
                best = min(
                    fit,
                    key=lambda each: (_ends(each.record) != packet.ends, packet.time - each.record.timestamp),
                )
                self._told.remove(best)
                found.append((packet, best))
            elif now - packet.time > PATIENCE_NS:
                found.append((packet, None))
            else:
                waiting.append(packet)
        self._packets = waiting
        late = [each for each in self._told if now - each.record.timestamp > PATIENCE_NS]
        self._told = [each for each in self._told if each not in late]
        return found + [(None, each) for each in late]

    def rest(self) -> list[tuple[Seen | None, Told | None]]:
        """What still waits."""
        return self.join((), (), 1 << 63)

    @staticmethod
    def _together(packet: Seen, record: EventRecord) -> bool:
        return packet.ifindex == record.ifindex and 0 <= packet.time - record.timestamp < TOGETHER_NS


def _ends(record: EventRecord) -> tuple[str, int, str, int, int]:
    source, destination = str(address_of(record.source)), str(address_of(record.destination))
    return source, record.source_port, destination, record.destination_port, record.protocol


def reason_name(name: str) -> str:
    """``SKB_DROP_REASON_TC_INGRESS`` -> ``TC_INGRESS``."""
    return name.removeprefix("SKB_DROP_REASON_")


class Symbols:
    """Names of the kernel's functions; read when the first is asked for."""

    def __init__(self) -> None:
        self._at: list[int] | None = None
        self._names: list[str] = []

    def name(self, address: int) -> str:
        """The function that *address* is in; "" if the kernel does not say."""
        if self._at is None:
            pairs = sorted(
                (int(words[0], 16), words[2])
                for words in map(str.split, KALLSYMS.read_text().splitlines())
                if words[1] in "tTwW"
            )
            self._at, self._names = [at for at, _ in pairs], [name for _, name in pairs]
        place = bisect_right(self._at, address) - 1
        return self._names[place] if place >= 0 and self._at[place] else ""


class Teller:
    """Drops in words, and how many of each kind there were."""

    def __init__(self, names: asked.Names, reasons: dict[int, str], form: str | None) -> None:
        self._names, self._reasons, self._form = names, reasons, form
        self._symbols = Symbols()
        self._offset = time.time_ns() - time.monotonic_ns()
        self.counts: Counter[tuple[str, str, str, str]] = Counter()

    def tell(self, packet: Seen | None, told: Told | None) -> None:
        """Print one."""
        record = self._record(packet, told)
        rule = rule_text(record["rule"])
        self.counts[record["where"], record["device"], record["reason"], rule] += 1
        asked.say(self._form, record, _line(record))

    def _record(self, packet: Seen | None, told: Told | None) -> dict[str, Any]:
        """A drop as JSON has it."""
        record: dict[str, Any] = {"by": "kernel", "rule": None}
        if packet is not None:
            reason = reason_name(self._reasons.get(packet.reason, str(packet.reason)))
            record |= {
                "time": clock(packet.time, self._offset),
                "where": BY_PROGRAM.get(reason, self._symbols.name(packet.location) or hex(packet.location)),
                "device": packet.device,
                "netns": packet.netns,
                "source": packet.source,
                "sourcePort": packet.sport,
                "destination": packet.destination,
                "destinationPort": packet.dport,
                "flow": flow_text(packet),
                "length": packet.length,
                "reason": reason,
                "kernelReason": reason,
            }
            if reason in BY_PROGRAM:
                record |= {
                    "by": "a program",
                    "reason": f"{reason}: by a program that is not Cirri's, or whose word was missed",
                }
        if told is not None:
            said = describe(told.record, told.node.names, self._offset)
            keep = (
                "reason",
                "reasonText",
                "rule",
                "direction",
                "endpoint",
                "sourceIdentity",
                "destinationIdentity",
            )
            record |= {"by": "cirri", "node": told.node.name, "event": {key: said.get(key) for key in keep}}
            record |= {"reason": said.get("reasonText", ""), "rule": said["rule"]}
            if packet is None:
                record |= {
                    "time": said["time"],
                    "where": f"datapath {said['direction']}".strip(),
                    "device": "",
                }
                record |= {
                    key: said[key] for key in ("source", "sourcePort", "destination", "destinationPort")
                }
                ends = (end_text(said[end], said[f"{end}Port"]) for end in ("source", "destination"))
                record |= {"flow": f"{' -> '.join(ends)} {said['protocol']}"}
        record |= {
            "sourcePod": self._names.pod(record["source"]),
            "destinationPod": self._names.pod(record["destination"]),
        }
        return record


def _line(record: dict[str, Any]) -> str:
    """``12:00:01.5 node1 tc ingress of lxc1: 10.0.0.1:4 -> 10.0.0.2:80 TCP: Policy denied``."""
    where = " ".join(filter(None, (record.get("node"), record["where"])))
    device = f" of {record['device']}" if record["device"] else ""
    pods = " -> ".join(record[end] or "?" for end in ("sourcePod", "destinationPod"))
    who = f" ({pods})" if record["sourcePod"] or record["destinationPod"] else ""
    rule = f" by {rule_text(record['rule'])}" if record["rule"] else ""
    return f"{record['time'][11:]} {where}{device}: {record['flow']}{who}: {record['reason']}{rule}"
