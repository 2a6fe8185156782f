"""Runtime events in words: lines as the field's ``tetra getevents -o compact`` writes them, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import to_builtins

from cirri.model.runtimeevents import Argument, Capabilities, PodRef, Process, RuntimeBatch, RuntimeEvent

_CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(f"CAP_{name}" for name in _CAPABILITIES.split())
"""By number, <linux/capability.h>."""
SYS_ADMIN = CAPABILITIES.index("CAP_SYS_ADMIN")
SIGNS = {
    "sys_write": ("📝", "write"),
    "sys_read": ("📚", "read"),
    "sys_open": ("📬", "open"),
    "sys_openat": ("📬", "openat"),
    "sys_close": ("📪", "close"),
    "sys_mount": ("💾", "mount"),
    "sys_setuid": ("🔑", "setuid"),
    "sys_clock_settime": ("⏰", "clock_settime"),
    "sys_pivot_root": ("💾", "pivot_root"),
    "sys_setns": ("🔧", "setns"),
    "sys_connect": ("🔌", "connect"),
    "sys_bpf": ("🐝", "bpf"),
    "sys_perf_event_open": ("🐝", "perf_event_open"),
}
"""What the field's lines begin with, by call; for others its own name follows."""
SOCKETS = {"connect": "🔌", "accept": "📞", "close": "🧹"}
"""The same of connections."""
PAD = 120
"""Column that what is said of capabilities begins at, if the line is shorter."""
_COLOURS = {"blue": 34, "green": 32, "magenta": 35, "cyan": 36, "red": 31}
_NO_LOGIN = 0xFFFFFFFF


def compact(event: RuntimeEvent, batch: RuntimeBatch, *, colour: bool = False, times: bool = False) -> str:
    """``🚀 process default/xwing /bin/sh -c ls``, ``💥 exit    default/xwing /bin/sh -c ls 0``."""

    def painted(name: str, text: str) -> str:
        return f"\033[{_COLOURS[name]}m{text}\033[0m" if colour else text

    process = batch.processes[event.process]
    where = f"{process.pod.namespace}/{process.pod.name}" if process.pod else batch.node
    parts = [painted("green", where), painted("magenta", process.binary or f"<pid {process.pid}>")]
    arguments = painted("cyan", process.arguments)
    if event.type == "process_exec":
        line = " ".join([painted("blue", f"🚀 {'process':7}"), *parts, arguments])
    elif event.type == "process_kprobe":
        sign, verb = SIGNS.get(event.function_name.removeprefix("__x64_"), ("❓", "syscall"))
        told = " ".join(str(each.value) for each in event.args) if verb != "syscall" else event.function_name
        line = " ".join([painted("blue", f"{sign} {verb:7}"), *parts, painted("cyan", told)])
        line += f" = {event.returned.value}" if event.returned else ""
        if event.action != "KPROBE_ACTION_POST":
            line += " " + painted("red", event.action.removeprefix("KPROBE_ACTION_"))
    elif event.socket is not None:
        about = event.socket
        ends = f"{_end(about.source, about.source_port)} => {_end(about.destination, about.destination_port)}"
        verb = event.type.removeprefix("process_")
        line = " ".join(
            [painted("blue", f"{SOCKETS[verb]} {verb:7}"), *parts, painted("cyan", f"TCP {ends}")]
        )
        line += f" {painted('red', about.error)}" if about.error else ""
    else:
        end = event.signal or str(event.status)
        line = " ".join([painted("blue", f"💥 {'exit':7}"), *parts, arguments, painted("red", end)])
    if process.cap.effective >> SYS_ADMIN & 1:
        caps = painted("magenta", "🛑 CAP_SYS_ADMIN")
        line = f"{line} {caps:>{max(0, PAD - len(line))}}"
    return f"{rfc3339(event.time)} {line}" if times else line


def record(event: RuntimeEvent, batch: RuntimeBatch) -> dict[str, Any]:
    """The field's JSON: ``{"process_exec": {"process": ..., "parent": ..., "ancestors": ...}, ...}``."""
    by_id = {each.exec_id: each for each in batch.processes}
    process = batch.processes[event.process]
    said: dict[str, Any] = {"process": _process(process)}
    parents = []
    while (process := by_id.get(process.parent_exec_id)) is not None:  # type: ignore[assignment]
        parents.append(_process(process))
    if parents:
        said["parent"] = parents[0]
    if len(parents) > 1:
        said["ancestors"] = parents[1:]
    if event.type == "process_kprobe":
        said |= _without_nothing(
            {
                "function_name": event.function_name,
                "args": [_argument(each) for each in event.args],
                "return": _argument(event.returned) if event.returned else None,
                "policy_name": event.policy_name,
                "action": event.action,
                "message": event.message,
                "tags": list(event.tags),
            }
        )
    if event.socket is not None:
        said["socket"] = to_builtins(event.socket)
    if event.type == "process_exit":
        said |= {"signal": event.signal} if event.signal else {"status": event.status}
        said["time"] = rfc3339(event.time)
    return {event.type: said, "node_name": batch.node, "time": rfc3339(event.time)}


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _argument(said: Argument) -> dict[str, Any]:
    told: dict[str, Any] = {f"{'int' if isinstance(said.value, int) else said.type}_arg": said.value}
    if said.type == "sockaddr" and isinstance(said.value, str):
        family, *rest = said.value.split()
        told = {"sockaddr_arg": {"family": family, **dict(zip(("addr", "port"), rest, strict=False))}}
    return {**told, "label": said.label} if said.label else told


def rfc3339(ns: int) -> str:
    """Unix time in words, with all nanoseconds."""
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09}Z"


def _process(process: Process) -> dict[str, Any]:
    cred = process.credentials
    told: dict[str, Any] = {
        "exec_id": process.exec_id,
        "pid": process.pid,
        "uid": cred.uid,
        "cwd": process.cwd,
        "binary": process.binary,
        "arguments": process.arguments,
        "flags": process.flags,
        "start_time": rfc3339(process.start_time),
        "auid": process.auid,
        "pod": _pod(process.pod) if process.pod else None,
        "parent_exec_id": process.parent_exec_id,
        "cap": _caps(process.cap),
        "ns": {
            name: {"inum": getattr(process.ns, name)}
            for name in process.ns.__struct_fields__
            if getattr(process.ns, name)
        },
        "process_credentials": {
            name: getattr(cred, name) for name in cred.__struct_fields__ if name != "securebits"
        },
        "cgroup": process.cgroup,
    }
    if about := process.binary_properties:
        told["binary_properties"] = {
            "setuid": cred.euid if "PRIVILEGES_RAISED_EXEC_FILE_SETUID" in about.privileges_changed else None,
            "setgid": cred.egid if "PRIVILEGES_RAISED_EXEC_FILE_SETGID" in about.privileges_changed else None,
            "privileges_changed": list(about.privileges_changed),
            "anonymous": about.anonymous or None,
            "deleted": about.deleted or None,
            "file": {"inode": {"number": about.inode, "links": about.links}} if about.inode else None,
        }
    return _without_nothing(told)


def _pod(pod: PodRef) -> dict[str, Any]:
    container = {
        "id": pod.container_id,
        "name": pod.container,
        "image": {"name": pod.image} if pod.image else "",
    }
    labels = dict(each.removeprefix("k8s:").split("=", 1) for each in pod.labels)
    return {
        "namespace": pod.namespace,
        "name": pod.name,
        "container": _without_nothing({**container, "pid": pod.own_pid}),
        "pod_labels": labels,
    }


def _caps(cap: Capabilities) -> dict[str, list[str]]:
    return {name: names for name in cap.__struct_fields__ if (names := capability_names(getattr(cap, name)))}


def capability_names(bits: int) -> list[str]:
    """Names of a set of capabilities."""
    return [name for number, name in enumerate(CAPABILITIES) if bits >> number & 1]


def _without_nothing(said: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        name: _without_nothing(value) if isinstance(value, dict) else value for name, value in said.items()
    }
    if kept.get("auid") == _NO_LOGIN:
        del kept["auid"]
    numbers = {"uid", "pid"}
    return {
        name: value
        for name, value in kept.items()
        if value not in (None, "", [], {}, 0) or name in numbers or name.endswith(("uid", "gid"))
    }
