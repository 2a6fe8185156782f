"""BPF programs and maps: load, pin, attach, read and write them.

All that knows libbpf and the bpf(2) system call.  Importing it loads no library and no mirror;
``cirri.layout`` says what the maps hold.
"""

from cirri.maps.attach import (
    AttachType,
    attach_cgroup,
    attach_tcx,
    attach_tracepoint,
    attach_xdp,
    detach,
    device_links,
    has_tcx,
    xdp_program,
)
from cirri.maps.codec import Codec, PerCpu, possible_cpus
from cirri.maps.errors import (
    BpfError,
    BpffsMissing,
    KernelRefused,
    LibbpfMissing,
    LoadFailed,
    MapFull,
    MapMismatch,
    MapMissing,
    NameUnknown,
    ObjectMissing,
    RingBusy,
    VerifierRejected,
)
from cirri.maps.info import MapInfo, ProgramInfo, map_info, program_info, run_statistics
from cirri.maps.libbpf import ensure_bpffs
from cirri.maps.load import OBJECTS, Objects, Program, Programs, pin_program
from cirri.maps.map import BpfMap, open_per_cpu, open_pinned
from cirri.maps.resize import resized
from cirri.maps.ring import RingBuffer
from cirri.maps.run import Run, SkBuff, XdpBuff, test_run

__all__ = [
    "OBJECTS",
    "AttachType",
    "BpfError",
    "BpfMap",
    "BpffsMissing",
    "Codec",
    "KernelRefused",
    "LibbpfMissing",
    "LoadFailed",
    "MapFull",
    "MapInfo",
    "MapMismatch",
    "MapMissing",
    "NameUnknown",
    "ObjectMissing",
    "Objects",
    "PerCpu",
    "Program",
    "ProgramInfo",
    "Programs",
    "RingBuffer",
    "RingBusy",
    "Run",
    "SkBuff",
    "VerifierRejected",
    "XdpBuff",
    "attach_cgroup",
    "attach_tcx",
    "attach_tracepoint",
    "attach_xdp",
    "detach",
    "device_links",
    "ensure_bpffs",
    "has_tcx",
    "map_info",
    "open_per_cpu",
    "open_pinned",
    "pin_program",
    "possible_cpus",
    "program_info",
    "resized",
    "run_statistics",
    "test_run",
    "xdp_program",
]
