"""What programs of nodes did, as it is kept: batches on the stream of runtime events, each whole in itself.

A batch holds events of one namespace, so that permissions can be given by subject; events point into its
table of processes, which has all their ancestors that are known.  Field names are those of Tetragon's API.
"""

from typing import Literal, get_args

from msgspec import Struct

from cirri.model.bucket import token
from cirri.model.flows import NO_NAMESPACE, Log

RUNTIME_SUBJECTS = "cirri.runtimelog"
"""Batches go to ``cirri.runtimelog.NAMESPACE.events.NODE``."""
KIND = "events"
RUNTIME_LOG = Log("runtime_events", (KIND,), RUNTIME_SUBJECTS)

EventType = Literal[
    "process_exec", "process_exit", "process_kprobe", "process_connect", "process_accept", "process_close"
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
Raised = Literal[
    "PRIVILEGES_RAISED_EXEC_FILE_SETUID",
    "PRIVILEGES_RAISED_EXEC_FILE_SETGID",
    "PRIVILEGES_RAISED_EXEC_FILE_CAP",
]


class PodRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The pod that a process belongs to."""

    namespace: str
    name: str
    labels: tuple[str, ...] = ()
    """``k8s:app=web``, sorted."""
    container: str = ""
    """Name; "": not known which of several."""
    container_id: str = ""
    """"": not known."""
    image: str = ""
    own_pid: int = 0
    """Number of the process in its own pid namespace; 0: not known."""


class Namespaces(Struct, frozen=True, kw_only=True, array_like=True):
    """Namespaces of a process, by inode; 0: not known."""

    uts: int = 0
    ipc: int = 0
    mnt: int = 0
    pid: int = 0
    pid_for_children: int = 0
    net: int = 0
    time: int = 0
    time_for_children: int = 0
    cgroup: int = 0
    user: int = 0


class Credentials(Struct, frozen=True, kw_only=True, array_like=True):
    """User and group numbers of a process, as the node knows them."""

    uid: int = 0
    gid: int = 0
    euid: int = 0
    egid: int = 0
    suid: int = 0
    sgid: int = 0
    fsuid: int = 0
    fsgid: int = 0
    securebits: int = 0


class Capabilities(Struct, frozen=True, kw_only=True, array_like=True):
    """Sets of capabilities: bit N is capability N of <linux/capability.h>."""

    permitted: int = 0
    effective: int = 0
    inheritable: int = 0


class Binary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is to say of the file that a program was started from, where that is unusual."""

    privileges_changed: tuple[Raised, ...] = ()
    anonymous: bool = False
    """It is in no folder: memfd_create(2)."""
    deleted: bool = False
    """Its name was gone when it was started."""
    inode: int = 0
    links: int = 1
    """Names that the file has."""


class Process(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One program in one process, from its exec (or its process's fork) on."""

    exec_id: str
    """base64 of ``NODE:NS:PID``, NS being the time of the exec on CLOCK_BOOTTIME."""
    pid: int
    binary: str = ""
    """Path in the root of the process; begins with ``.../`` where it is longer than what was told."""
    arguments: str = ""
    """Without the program's name; those with blanks in quotes."""
    cwd: str = ""
    flags: str = ""
    """Of ``execve clone procFS truncArgs truncFilename errorArgs script unknown``, separated by blanks."""
    start_time: int = 0
    """Unix time, ns."""
    auid: int = 0xFFFFFFFF
    """Login user; 4294967295: none."""
    credentials: Credentials = Credentials()
    cap: Capabilities = Capabilities()
    ns: Namespaces = Namespaces()
    binary_properties: Binary | None = None
    cgroup: int = 0
    pod: PodRef | None = None
    parent_exec_id: str = ""
    """"": it has none, or it is not known."""


class Argument(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An argument of a call."""

    type: str
    """As the policy says: ``int``, ``string``, ``sockaddr``, ..."""
    value: int | str
    """Of a socket's address: ``FAMILY ADDRESS PORT``."""
    label: str = ""


class Socket(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A TCP connection, from the end that began it to the other, as this node's end of it knows them."""

    cookie: int
    """The kernel's number of the socket, never used again; of the end that the process has."""
    protocol: str = "TCP"
    source: str = ""
    source_port: int = 0
    """0: the connection failed before it had one."""
    destination: str = ""
    destination_port: int = 0
    error: str = ""
    """process_connect: why there is none, ``ECONNREFUSED``; ``closed``: the process gave up."""


class PolicyState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tracing policy on one node."""

    name: str
    state: Literal["enabled", "not served", "failed"]
    why: str = ""
    """Not enabled: which field, and what this kernel offers instead."""
    hooks: dict[str, str] = {}
    """What the policy names -> the kernel's hook that serves it."""


class PolicyStates(Struct, frozen=True, kw_only=True):
    """Answer to ``cirri.sensor.NODE.policies``."""

    policies: tuple[PolicyState, ...] = ()


class RuntimeEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that a process did."""

    type: EventType
    time: int
    """Unix time, ns."""
    process: int
    """Index in the batch's processes."""
    signal: str = ""
    """process_exit: the one that ended it, ``SIGKILL``."""
    status: int = 0
    """process_exit: what it returned."""
    function_name: str = ""
    """process_kprobe: the call, ``__x64_sys_setuid``."""
    args: tuple[Argument, ...] = ()
    returned: Argument | None = None
    policy_name: str = ""
    """``NAME`` or ``NAMESPACE/NAME``."""
    action: str = ""
    """``KPROBE_ACTION_POST``, ``..._SIGKILL``, ``..._SIGNAL``."""
    message: str = ""
    tags: tuple[str, ...] = ()
    socket: Socket | None = None
    """process_connect, process_accept, process_close."""


class RuntimeBatch(Struct, frozen=True, kw_only=True):
    """One message of the stream."""

    node: str
    instance: int
    """64 random bits of the sensor that saw the events."""
    number: int
    """Of the instance's batches, from 1: a gap is a batch that nobody kept."""
    namespace: str
    """Of the pods; "": processes of none."""
    first_ns: int
    last_ns: int
    lost: dict[str, int] = {}
    """By cause, since the instance's start: ``ring``: the kernel's ring was full; ``stream``: they could not
    be stored."""
    processes: tuple[Process, ...] = ()
    events: tuple[RuntimeEvent, ...] = ()
    which: bytes = b""
    """Where events are alike but for their time, each is in ``events`` once; these are then all, as they
    came: 32 bits each, little-endian, indexes in ``events``.  Readers of the stream see them spread out."""
    times: bytes = b""
    """With ``which``: Unix times, ns, 64 bits each, little-endian."""

    @property
    def count(self) -> int:
        """Events that it tells of."""
        return len(self.times) // 8 or len(self.events)


def runtime_subject(namespace: str, node: str) -> str:
    """Where a batch goes; ``*`` stays, so that filters can be built with it."""
    place = namespace if namespace == "*" else (token(namespace) if namespace else NO_NAMESPACE)
    return f"{RUNTIME_SUBJECTS}.{place}.{KIND}.{node if node == '*' else token(node)}"
