"""Mirror of ``bpf/lib/sensor.h`` and ``bpf/lib/sensor_scope.h``: which programs ran on a node."""

from enum import IntEnum, IntFlag
from typing import ClassVar

from cirri.layout.mirror import U16, U32, U64, Address16, Mirror
from cirri.layout.scalar import U32_NUMBER, U64_NUMBER, Raw
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/sensor.h"
SCOPE_HEADER = "lib/sensor_scope.h"
SENSOR_COUNTERS = 2


class SensorType(IntEnum):
    """``enum sensor_type``."""

    EXEC = 1
    EXIT = 2
    FORK = 3
    CALL = 4
    """A system call that a policy speaks of."""
    SOCKET = 5
    """A TCP connection begins or ends."""


class SensorStep(IntEnum):
    """``enum sensor_step``: what :attr:`SensorSocket.step` tells."""

    CONNECT = 1
    ACCEPT = 2
    CLOSE = 3


SENSOR_NO_ANSWER = 0xFFFFFFFF
""":attr:`SensorSocket.error`: the process gave up."""


class SensorFlag(IntFlag):
    """``enum sensor_flag``: bits of :attr:`SensorExec.flags`."""

    BINARY_CUT = 1
    """The path is longer than what is told: its beginning is missing."""
    CWD_CUT = 2
    ARGS_CUT = 4
    ARGS_UNREAD = 8
    ANONYMOUS = 16
    """The program is in no folder: ``memfd_create``."""
    DELETED = 32
    SETUID = 64
    SETGID = 128
    FILE_CAPS = 256
    SCRIPT = 512
    """The file asked for names this program as its interpreter."""


class SensorCounter(IntEnum):
    """``enum sensor_counter``: indexes of ``cirri_sensor_counters``."""

    TOLD = 0
    LOST = 1
    """For which there was no room."""


class SensorFork(Mirror, frozen=True, kw_only=True):
    """A process began.  Times are ns of CLOCK_BOOTTIME; number and beginning together name a process."""

    c_name: ClassVar[str] = "sensor_fork"
    header: ClassVar[str] = HEADER

    time: U64 = 0
    start: U64 = 0
    cgroup: U64 = 0
    pid: U32 = 0
    type: U32 = SensorType.FORK
    parent_start: U64 = 0
    maker_start: U64 = 0
    parent: U32 = 0
    maker: U32 = 0
    """Whose program it runs."""


class SensorExit(Mirror, frozen=True, kw_only=True):
    """A process ended."""

    c_name: ClassVar[str] = "sensor_exit"
    header: ClassVar[str] = HEADER

    time: U64 = 0
    start: U64 = 0
    cgroup: U64 = 0
    pid: U32 = 0
    type: U32 = SensorType.EXIT
    code: U32 = 0
    """As wait(2) tells it."""
    pad: U32 = 0


class SensorExec(Mirror, frozen=True, kw_only=True):
    """A process runs another program; names and arguments follow the struct."""

    c_name: ClassVar[str] = "sensor_exec"
    header: ClassVar[str] = HEADER

    time: U64 = 0
    start: U64 = 0
    cgroup: U64 = 0
    pid: U32 = 0
    type: U32 = SensorType.EXEC
    parent_start: U64 = 0
    permitted: U64 = 0
    effective: U64 = 0
    inheritable: U64 = 0
    inode: U64 = 0
    parent: U32 = 0
    own_pid: U32 = 0
    """In its own pid namespace."""
    uid: U32 = 0
    gid: U32 = 0
    euid: U32 = 0
    egid: U32 = 0
    suid: U32 = 0
    sgid: U32 = 0
    fsuid: U32 = 0
    fsgid: U32 = 0
    login_uid: U32 = 0
    securebits: U32 = 0
    ns_uts: U32 = 0
    ns_ipc: U32 = 0
    ns_mnt: U32 = 0
    ns_pid: U32 = 0
    ns_pid_children: U32 = 0
    ns_net: U32 = 0
    ns_time: U32 = 0
    ns_time_children: U32 = 0
    ns_cgroup: U32 = 0
    ns_user: U32 = 0
    links: U32 = 0
    """Names that the file has."""
    flags: U32 = 0
    """:class:`SensorFlag`."""
    binary_size: U32 = 0
    cwd_size: U32 = 0
    args_size: U32 = 0
    args_total: U32 = 0


class SensorCall(Mirror, frozen=True, kw_only=True):
    """A system call; texts among its arguments follow the struct, in their order."""

    c_name: ClassVar[str] = "sensor_call"
    header: ClassVar[str] = HEADER

    time: U64 = 0
    start: U64 = 0
    cgroup: U64 = 0
    pid: U32 = 0
    type: U32 = SensorType.CALL
    arg0: U64 = 0
    arg1: U64 = 0
    arg2: U64 = 0
    arg3: U64 = 0
    arg4: U64 = 0
    hook: U32 = 0
    action: U32 = 0
    """0: it was told only; else the signal that was sent."""
    size0: U32 = 0
    size1: U32 = 0
    size2: U32 = 0
    size3: U32 = 0
    size4: U32 = 0
    selector: U32 = 0
    result: U64 = 0


class SensorSocket(Mirror, frozen=True, kw_only=True):
    """A step of a TCP connection, and whose it is."""

    c_name: ClassVar[str] = "sensor_socket"
    header: ClassVar[str] = HEADER

    time: U64 = 0
    """Of a close its own, else of the connection's first step."""
    start: U64 = 0
    cgroup: U64 = 0
    pid: U32 = 0
    type: U32 = SensorType.SOCKET
    cookie: U64 = 0
    local: Address16 = bytes(16)
    """Of IPv4 the first four."""
    remote: Address16 = bytes(16)
    step: U32 = 0
    """:class:`SensorStep`."""
    error: U32 = 0
    """Of a connect that failed: errno, or :data:`SENSOR_NO_ANSWER`."""
    family: U16 = 0
    local_port: U16 = 0
    remote_port: U16 = 0
    accepted: U16 = 0
    """The other end began the connection."""


class SensorScope(Mirror, frozen=True, kw_only=True):
    """Which processes are told of: those of a cgroup and below."""

    c_name: ClassVar[str] = "sensor_scope"
    header: ClassVar[str] = SCOPE_HEADER

    cgroup: U64 = 0
    """0: all."""
    level: U32 = 0
    pad: U32 = 0


SENSOR_SCOPE = MapSpec("cirri_sensor_scope", SCOPE_HEADER, MapType.ARRAY, U32_NUMBER, SensorScope, 1)
SENSOR_POLICIES = MapSpec("cirri_sensor_policies", HEADER, MapType.HASH, U64_NUMBER, U64_NUMBER, 16384)
SENSOR_EVENTS = MapSpec(
    "cirri_sensor_events", HEADER, MapType.RINGBUF, Raw("void", 0), Raw("void", 0), 1 << 22
)
SENSOR_COUNTER = MapSpec(
    "cirri_sensor_counters", HEADER, MapType.PERCPU_ARRAY, U32_NUMBER, U64_NUMBER, SENSOR_COUNTERS
)
