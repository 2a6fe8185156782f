"""The parts of the READMEs that are drawn from the code: tables and the picture.

``python -m cirri.testing.docs`` rewrites them; ``tests/test_architecture.py`` compares.
So are the chart's tables, see :mod:`cirri.testing.chart`.
A part stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from cirri.model import BUCKETS
from cirri.runtime.contract import Service
from cirri.testing.maps_table import maps_table

ROOT = Path(__file__).parents[3]


def services(root: Path = ROOT) -> list[Service]:
    """The contract of every service in the tree, by name."""
    names = sorted(p.parent.name for p in (root / "services/cirri").glob("*/__init__.py"))
    packages = [import_module(f"cirri.{name}") for name in names]
    return [p.SERVICE for p in packages if hasattr(p, "SERVICE")]


def services_table() -> str:
    """Markdown: service, how many run, what it reads, writes and serves."""
    rows = ["| service | runs | keeps true | reads | writes | serves |", "|---|---|---|---|---|---|"]
    for s in services():
        logs, heard = [f"log `{one.name}`" for one in s.replays], [f"`cirri.{name}.*`" for name in s.hears]
        reads = ", ".join([*(f"`{b.name}`" for b in s.reads), *logs, *heard])
        logs, maps = [f"log `{one.name}`" for one in s.appends], [f"map `{m}`" for m in s.maps]
        writes = ", ".join([*(f"`{b.name}`" for b in s.writes), *logs, *maps])
        serves = ", ".join(f"`cirri.{s.name}.{name}`" for name in s.serves)
        where = "per cluster" if s.scope == "cluster" else "per node"
        rows.append(f"| `{s.name}` | {where} | {s.summary} | {reads} | {writes} | {serves} |")
    return "\n".join(rows)


def buckets_table() -> str:
    """Markdown: bucket, what it holds, its writer."""
    rows = ["| bucket | holds | written by | key |", "|---|---|---|---|"]
    for b in BUCKETS:
        doc = (b.type.__doc__ or "").strip().splitlines()[0]
        writer = {"*": "each service its own leases"}.get(b.writer, f"`{b.writer}`")
        shard = f", each {b.shard} its own" if b.shard and b.writer != "*" else ""
        key = {"": "one writer", "node": "starts with the node", "service": "starts with the service"}[
            b.shard
        ]
        rows.append(f"| `{b.name}` | {doc} | {writer}{shard} | {key} |")
    return "\n".join(rows)


def picture() -> str:
    """A Mermaid graph of services and buckets: who writes what, who reads it."""
    lines = ["```mermaid", "flowchart LR"]
    found = services()
    lines += [f'  {s.name}["{s.name}"]' for s in found]
    shown = [b for b in BUCKETS if b.writer != "*"]
    lines += [f"  b_{b.name}[({b.name})]" for b in shown]
    for s in found:
        if s.writes:
            lines.append(f"  {s.name} --> {' & '.join(f'b_{b.name}' for b in s.writes)}")
        if read := [f"b_{b.name}" for b in s.reads if b in shown]:
            lines.append(f"  {' & '.join(read)} -.-> {s.name}")
    lines.append("  datapath ==> kernel{{kernel: programs and pinned maps}}")
    return "\n".join([*lines, "```"])


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "picture": ("README.md", picture),
    "services": ("services/README.md", services_table),
    "buckets": ("libs/cirri/model/README.md", buckets_table),
    "maps": ("bpf/README.md", maps_table),
}
"""Name of a part -> (file, what it must say)."""


def written(name: str) -> str:
    """What the file says now between the markers of part *name*."""
    text = (ROOT / PARTS[name][0]).read_text()
    match = re.search(rf"<!-- {name}:begin -->\n(.*?)\n<!-- {name}:end -->", text, re.S)
    return match[1] if match else ""


def rewrite() -> None:
    """Make every part say what the code says."""
    for name, (file, draw) in PARTS.items():
        path = ROOT / file
        before, begin, rest = path.read_text().partition(f"<!-- {name}:begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}:end -->")
        path.write_text(f"{before}{begin}{draw()}\n{end}{after}")


if __name__ == "__main__":
    from cirri.testing import chart  # which needs what is above

    rewrite()
    chart.rewrite()
