"""Prints the flows that a lab's stream holds, a JSON object each: run it in the fabric's namespace.

Usage: flowing.py CONTEXT_FILE [NAMESPACE...]
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from cirri.history import Table
from cirri.history.stream import read
from cirri.kv import Bus
from cirri.layout.address import address_text

NUMBERS = (
    *("time", "seq", "type", "verdict", "reply", "point", "state", "source_port", "destination_port"),
    *("protocol", "endpoint", "direction", "reason", "packets", "tcp_flags", "source_identity"),
    *("destination_identity", "proxy_port"),
)


def described(table: Table) -> list[dict[str, Any]]:
    """What a test may ask of each row."""
    rows = []
    for row in table.rows:
        one: dict[str, Any] = {name: int(row[name]) for name in NUMBERS}
        for side in ("source", "destination"):
            one[side] = address_text(row[side].tobytes())
            for what in ("end", "names", "service"):
                items = getattr(table, "names" if what == "names" else f"{what}s")
                at = int(row[f"{side}_{what}"])
                one[f"{side}_{what}"] = msgspec.to_builtins(items[at - 1]) if at else None
        for name, items in (("rule_ref", table.rules), ("l7", table.l7)):
            one[name] = msgspec.to_builtins(items[int(row[name]) - 1]) if row[name] else None
        rows.append(one)
    return rows


async def main() -> None:
    """Read, print."""
    context = json.loads(Path(sys.argv[1]).read_text())
    bus = await Bus.connect(
        context["nats_url"], user=context["user"], password=context["password"], name="cirri-cli"
    )
    async for batch in read(bus, namespaces=sys.argv[2:] or None):
        about = {"node": batch.node, "number": batch.number, "lost": batch.lost}
        about |= {"namespace": batch.namespace, "kind": batch.verdict}
        for row in described(Table.of(batch)):
            print(json.dumps(about | row))
    await bus.drain()


if __name__ == "__main__":
    asyncio.run(main())
