"""Runtime events in JSON, as Tetragon's API tells them.  Pure."""

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
CAPABILITIES = tuple(name if name == "DAC_OVERRIDE" else f"CAP_{name}" for name in _CAPABILITIES.split())
"""By number, <linux/capability.h>; the second one's name is the API's."""
SYS_ADMIN = CAPABILITIES.index("CAP_SYS_ADMIN")
_NO_LOGIN = 0xFFFFFFFF
_ARGUMENTS = {
    "string": "string_arg",
    "int": "int_arg",
    "int32": "int_arg",
    "fd": "int_arg",
    "uint32": "uint_arg",
    "int64": "long_arg",
    "uint64": "size_arg",
    "size_t": "size_arg",
}
"""Where a value is, by its type in the policy."""
_LONG = ("long_arg", "size_arg")
"""JSON has no numbers of 64 bits: these are texts."""


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


def _argument(said: Argument) -> dict[str, Any]:
    told: dict[str, Any]
    if said.type == "sockaddr" and isinstance(said.value, str):
        family, *rest = said.value.split()
        told = {"sockaddr_arg": {"family": family, **dict(zip(("addr", "port"), rest, strict=False))}}
    else:
        name = _ARGUMENTS[said.type]
        told = {name: str(said.value) if name in _LONG else said.value}
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
