"""Which process is behind each end of a connection: the programs that note it, and what is said of it.

``bpf_origin_tcp`` runs where sockets of the node connect and listen, ``bpf_origin_udp`` after each message
that is sent.  They stay when this process ends, as the others do.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cirri.maps import BpfError, Objects, Program, attach_cgroup, attach_tracepoint, detach, pin_program
from cirri.model.origins import FlowProcess, ProcessesReply, ProcessesRequest, WhoAsked, WhoIs
from cirri.netlink import namespace_cookie
from cirri.sensor.kernel import FOLDER, runs
from cirri.sensor.processes import Processes

TCP, UDP = "bpf_origin_tcp", "bpf_origin_udp"
ARGUMENTS = 256
"""Letters of arguments that flows tell."""
PARENTS = 4


def attach(bpffs: Path, objects: Path, scope: Path) -> dict[str, str]:
    """Have the programs run for sockets of processes in *scope*; by name why one does not."""
    refused: dict[str, str] = {}
    folder, own = bpffs / FOLDER, namespace_cookie()
    for name in (TCP, UDP):
        try:
            with Objects.load(objects, folder, names=(name,), rodata={"node_netns": own}) as programs:
                for program in programs.values():
                    _attach(program, folder, scope)
        except BpfError as error:
            refused[name] = str(error)
    return refused


def answer(data: bytes, processes: Processes, now_ns: int, wall_ns: int) -> bytes:
    """What processes ran at the times that a :class:`ProcessesRequest` names.

    *now_ns*: CLOCK_BOOTTIME until which *processes* has been told everything; *wall_ns*: unix time minus it.
    Raises: msgspec.MsgspecError.
    """
    asked = msgspec.msgpack.decode(data, type=ProcessesRequest).asked
    return msgspec.msgpack.encode(
        ProcessesReply(found=tuple(_who(each, processes, now_ns, wall_ns) for each in asked))
    )


def _who(asked: WhoAsked, processes: Processes, now_ns: int, wall_ns: int) -> WhoIs:
    found = processes.then(asked.pid, asked.start, asked.time, wall_ns)
    if found is None:
        return WhoIs(asked=asked, process=None)
    process, since = found
    parents = [each.binary for each, _ in zip(processes.ancestors(process), range(PARENTS), strict=False)]
    told = FlowProcess(
        exec_id=process.exec_id,
        pid=process.pid,
        binary=process.binary,
        arguments=process.arguments[:ARGUMENTS],
        parents=tuple(parents),
    )
    latest = processes.then(asked.pid, asked.start, now_ns, wall_ns)
    until = now_ns if latest is not None and latest[0].exec_id == process.exec_id else asked.time
    return WhoIs(asked=asked, process=told, since=since, until=until)


def _attach(program: Program, folder: Path, scope: Path) -> None:
    link = folder / f"link_{program.name}"
    if program.section == "sockops":
        attach_cgroup(program, scope, pin=link)
    elif not runs(program, folder):
        detach(link)
        attach_tracepoint(program, link)
        pin_program(program, folder / f"prog_{program.name}")
