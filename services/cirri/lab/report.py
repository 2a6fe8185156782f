"""``cirri lab status``: what runs, with pids and memory."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import click

from cirri.lab.enter import members, rss_bytes
from cirri.lab.known import plan_of, supervisor_of, where_is
from cirri.lab.sandbox import Sandbox, load_all
from cirri.lab.supervisor import Report
from cirri.lab.topology import Paths, Topology

MIB = 1 << 20


def status(name: str) -> dict[str, Any]:
    """The lab as plain data; see the fields of ``cirri lab status -o json``."""
    plan, where = plan_of(name), where_is(name)
    report = supervisor_of(where)
    topology = Topology(name, plan.nodes)
    try:
        progress: dict[str, Any] = json.loads(where.progress.read_bytes())
    except FileNotFoundError:
        progress = {"nodes": [], "dns": False}
    return {
        "name": name,
        "up": report is not None and progress["dns"] and set(progress["nodes"]) == set(topology.node_names),
        "run_dir": str(where.run),
        "logs": str(where.logs),
        "supervisor": {"pid": report.pid, "rss_bytes": rss_bytes(report.pid)} if report else None,
        "processes": [
            {
                "name": child.name,
                "pid": child.pid,
                "restarts": child.restarts,
                "exits": child.exits,
                "rss_bytes": rss_bytes(child.pid) if child.pid else 0,
            }
            for child in (report.children if report else [])
        ]
        + [each for node in topology.node_names for each in _beside(where, node, report)],
        "nodes": [
            {
                "name": node,
                "ready": node in progress["nodes"],
                "netns": topology.host(node).netns,
                "addresses": [topology.host(node).ipv4, topology.host(node).ipv6],
            }
            for node in topology.node_names
        ],
        "pods": [_pod(sandbox, where) for sandbox in load_all(where)],
    }


def _beside(where: Paths, node: str, report: Report | None) -> list[dict[str, Any]]:
    """The node's processes that outlive who started them: Envoy."""
    children = {child.pid for child in (report.children if report else [])}
    found = []
    for pid in members(where.cgroup / node / "services"):
        with contextlib.suppress(OSError):  # it ends just now
            name = f"{Path(f'/proc/{pid}/comm').read_text().strip()} of {node}"
            if pid not in children:
                found.append(
                    {"name": name, "pid": pid, "restarts": 0, "exits": [], "rss_bytes": rss_bytes(pid)}
                )
    return found


def _pod(sandbox: Sandbox, where: Paths) -> dict[str, Any]:
    return {
        "namespace": sandbox.namespace,
        "name": sandbox.name,
        "node": sandbox.node,
        "netns": sandbox.netns,
        "addresses": sandbox.addresses,
        "ready": bool(sandbox.containers) and all(c.ready and c.running for c in sandbox.containers),
        "restarts": sum(c.restarts for c in sandbox.containers),
        "pids": members(sandbox.cgroup(where)),
    }


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    state = "up" if found["up"] else "not ready" if found["supervisor"] else "its supervisor is dead"
    lines = [f"lab {found['name']}: {state}    logs: {found['logs']}", ""]
    rows = [("PROCESS", "PID", "RESTARTS", "MEMORY")]
    rows += [
        (p["name"], str(p["pid"] or "-"), str(p["restarts"]), f"{p['rss_bytes'] / MIB:.1f} MiB")
        for p in found["processes"]
    ]
    lines += [*table(rows), ""]
    rows = [("NODE", "READY", "ADDRESSES", "")]
    rows += [
        (n["name"], "yes" if n["ready"] else "no", ", ".join(n["addresses"]), "") for n in found["nodes"]
    ]
    lines += [*table(rows), ""]
    rows = [("POD", "NODE", "READY", "ADDRESSES")]
    rows += [
        (f"{p['namespace']}/{p['name']}", p["node"], "yes" if p["ready"] else "no", ", ".join(p["addresses"]))
        for p in found["pods"]
    ]
    return "\n".join([*lines, *table(rows)])


def table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def show(found: dict[str, Any], output: str) -> None:
    """Print it."""
    click.echo(json.dumps(found, indent=2) if output == "json" else text(found))
