"""``cirri trace dns``: questions and answers on the wire, who asked, and how long it took."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import click

from cirri.cli.context import Target
from cirri.cli.records import end_text
from cirri.cli.trace import asked
from cirri.cli.trace.dnswire import Message, parse
from cirri.cli.trace.packets import SEEN, Seen, clock, seen
from cirri.cli.trace.session import Session
from cirri.cli.trace.source import DNS

OPEN = 4096
"""Questions that are remembered."""
QUEUED = 2
Key = tuple[str, int, int, str]
"""Client, its port, the message's id, the name."""


@dataclass(slots=True)
class Question:
    """One that was seen."""

    packet: Seen
    message: Message
    answered: bool = False


class Talk:
    """Packets, each seen at several devices, to questions and answers, each once."""

    def __init__(self) -> None:
        self._open: OrderedDict[Key, Question] = OrderedDict()

    def take(self, packet: Seen, payload: bytes) -> tuple[Question, Seen | None, Message] | None:
        """(question, packet of the answer or None, message), if *packet* is news."""
        message = parse(payload)
        if message is None:
            return None
        answer = message.answer
        client, port = (packet.destination, packet.dport) if answer else (packet.source, packet.sport)
        key = client, port, message.id, message.name
        known = self._open.get(key)
        if not answer:
            if known is not None and not known.answered:
                return None
            self._open[key] = question = Question(packet, message)
            self._open.move_to_end(key)
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
            return question, None, message
        if known is None or known.answered:
            return None
        known.answered = True
        return known, packet, message


@click.command()
@asked.packets
@asked.duration
@asked.output
@click.option("--name", "part", default="", metavar="TEXT", help="Of names that have this.")
@click.option(
    "--dns-port", type=click.IntRange(1, 65535), default=53, show_default=True, help="Where servers listen."
)
@click.pass_obj
def dns(
    target: Target,
    *,
    chosen: asked.Packets,
    duration: float | None,
    form: str | None,
    part: str,
    dns_port: int,
) -> None:
    """Show questions to DNS servers and their answers: who asked, and how long it took.

    \b
      cirri trace dns --pod xwing
      cirri trace dns --name example.com --duration 1m -o json

    The process is known of questions that leave a socket of this machine.  A question that was translated to
    another address on its way is told once, as it was asked; one that a proxy asks in its place is another.
    DNS over UDP is seen, up to 512 bytes of a message; over TCP, TLS or HTTPS it is not.
    """
    if chosen.protocol not in (None, "udp"):
        raise click.BadParameter("only DNS over UDP is seen", param_hint="--protocol")
    wanted, names = chosen.resolve(target)
    offset, talk = time.time_ns() - time.monotonic_ns(), Talk()
    with Session(
        asked.define(wanted, DNS_PORT=dns_port) + DNS,
        {"received": "netif_receive_skb", "queued": "net_dev_queue"},
        "told",
        "lost",
    ) as session:
        click.echo("Listening for DNS.", err=True)
        assert session.ring is not None
        for _ in asked.ticks(duration):
            for raw in session.ring.read():
                size = int.from_bytes(raw[SEEN.size : SEEN.size + 4], "little")
                payload = raw[SEEN.size + 4 : SEEN.size + 4 + size]
                news = talk.take(seen(raw), payload)
                if news is not None and part in news[2].name:
                    record = _record(*news, names, offset)
                    asked.say(form, record, _line(record))
        asked.tell_lost(session.lost(), "messages are")


def _record(
    question: Question, answer: Seen | None, message: Message, names: asked.Names, offset: int
) -> dict[str, Any]:
    first = question.packet
    own = first.sent and first.point == QUEUED
    record: dict[str, Any] = {
        "time": clock((answer or first).time, offset),
        "type": "answer" if answer else "question",
        "client": first.source,
        "clientPort": first.sport,
        "pod": names.pod(first.source),
        "server": first.destination,
        "process": {"pid": first.pid, "comm": first.comm} if own else None,
        "id": message.id,
        "name": message.name,
        "qtype": message.qtype,
    }
    if answer is not None:
        record |= {
            "rcode": message.rcode,
            "answers": list(message.answers),
            "truncated": message.truncated,
            "tookUs": (answer.time - first.time) // 1000,
        }
    return record


def _line(record: dict[str, Any]) -> str:
    """``12:00:01.5 default/xwing curl (77) -> 10.96.0.10: A example.com.: NOERROR 192.0.2.1 (0.4 ms)``."""
    process = record["process"]
    who = record["pod"] or end_text(record["client"], record["clientPort"])
    program = f" {process['comm']} ({process['pid']})" if process else ""
    line = f"{record['time'][11:]} {who}{program} -> {record['server']}: {record['qtype']} {record['name']}"
    if record["type"] == "question":
        return f"{line}?"
    said = " ".join([record["rcode"], *record["answers"], *(["(truncated)"] if record["truncated"] else [])])
    return f"{line}: {said} ({record['tookUs'] / 1000:.1f} ms)"
