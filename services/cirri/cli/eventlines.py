"""Runtime events in words: lines as the field's ``tetra getevents -o compact`` writes them."""

from __future__ import annotations

from cirri.history.runtimejson import SYS_ADMIN, rfc3339
from cirri.model.runtimeevents import RuntimeBatch, RuntimeEvent

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


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
