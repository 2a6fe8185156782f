"""``cirri trace exec``: programs as they start, on the whole machine, with no service asked."""

from __future__ import annotations

import os
import re
import shlex
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from cirri.cli.context import Target
from cirri.cli.trace import asked
from cirri.cli.trace.packets import clock, network_names, text
from cirri.cli.trace.session import Session
from cirri.cli.trace.source import ARGUMENT_ROOM, EXEC, FILE_ROOM

RAN = struct.Struct(f"=Q6I16s{FILE_ROOM}s{ARGUMENT_ROOM}s")
_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


class Networks:
    """Pods by network namespace, found by the addresses that are in it."""

    def __init__(self, names: asked.Names) -> None:
        self._names = names
        self._pods: dict[int, str] = {}

    def learn(self) -> None:
        """Look at the namespaces of all processes that there are."""
        for each in Path("/proc").iterdir():
            if each.name.isdigit():
                self.look(int(each.name))

    def look(self, pid: int) -> None:
        """Look at the namespace of *pid*, if it is there and not known."""
        with suppress(OSError, ValueError):
            inode = os.stat(f"/proc/{pid}/ns/net").st_ino
            if inode not in self._pods:
                self._pods[inode] = self._pod(Path(f"/proc/{pid}/net"))

    def pod(self, netns: int, *pids: int) -> str:
        """``ns/name`` of whose it is, or ""; *pids*: processes that may be in it."""
        if not self._pods.get(netns):
            for pid in pids:
                self.look(pid)
        return self._pods.get(netns, "")

    def _pod(self, folder: Path) -> str:
        addresses = _LOCAL.findall((folder / "fib_trie").read_text())
        found = {self._names.pod(each) for each in addresses} - {""}
        return found.pop() if len(found) == 1 else ""


@click.command("exec")
@asked.pod
@click.option("--comm", "part", default="", metavar="TEXT", help="Of programs whose path has this.")
@click.option("--uid", type=int, help="Of this user.")
@asked.duration
@asked.output
@click.pass_obj
def execs(
    target: Target,
    *,
    pods: Sequence[str],
    part: str,
    uid: int | None,
    duration: float | None,
    form: str | None,
) -> None:
    """Show programs as they start: who started them, in which pod, with which arguments.

    \b
      cirri trace exec
      cirri trace exec --pod default/xwing --duration 1m -o json

    This asks the kernel itself (tracepoint sched:sched_process_exec) and works without any service; `cirri
    events` shows what the nodes' sensors kept, with ends, rights and policies.  Paths are as they were
    given, up to 255 bytes; of arguments 512 bytes.  A pod is known by its network: who is in the node's own
    is no pod's.
    """
    names = asked.Names.ask(target, needed=bool(pods))
    for each in pods:
        names.networks(each)
    networks = Networks(names)
    networks.learn()
    offset, named = time.time_ns() - time.monotonic_ns(), network_names()
    with Session(EXEC, {"started": "sched_process_exec"}, "told", "lost") as session:
        click.echo("Watching programs start.", err=True)
        assert session.ring is not None
        for _ in asked.ticks(duration):
            for raw in session.ring.read():
                record = _record(raw, networks, named, offset)
                if (
                    (not pods or any(asked.is_pod(record["pod"], each) for each in pods))
                    and part in record["file"]
                    and uid in (None, record["uid"])
                ):
                    asked.say(form, record, _line(record))
        asked.tell_lost(session.lost(), "programs are")


def _record(raw: bytes, networks: Networks, named: dict[int, str], offset: int) -> dict[str, Any]:
    when, pid, ppid, uid, netns, size, cut, parent, file, arguments = RAN.unpack(raw)
    words = arguments[:size].rstrip(b"\0").split(b"\0")
    return {
        "time": clock(when, offset),
        "pid": pid,
        "ppid": ppid,
        "parent": text(parent),
        "uid": uid,
        "netns": named.get(netns, str(netns)),
        "pod": networks.pod(netns, pid, ppid),
        "file": text(file),
        "arguments": [each.decode(errors="backslashreplace") for each in words[1:]],
        "cut": bool(cut),
    }


def _line(record: dict[str, Any]) -> str:
    """``12:00:01.5 default/xwing 77 (of sh 76) uid 0 /usr/bin/curl -s http://deathstar``."""
    who = record["pod"] or f"netns {record['netns']}"
    more = " ..." if record["cut"] else ""
    command = " ".join([record["file"], *map(shlex.quote, record["arguments"])]).replace("\n", "\\n")
    process = f"{record['pid']} (of {record['parent']} {record['ppid']}) uid {record['uid']}"
    return f"{record['time'][11:]} {who} {process} {command}{more}"
