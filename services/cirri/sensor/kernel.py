"""The programs in the kernel and their ring.  They stay when this process ends: what happens then is kept."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cirri.layout import SENSOR_COUNTER, SENSOR_EVENTS, SENSOR_SCOPE, SensorCounter, SensorScope
from cirri.maps import (
    MapMissing,
    Objects,
    Program,
    RingBuffer,
    attach_tracepoint,
    detach,
    open_per_cpu,
    open_pinned,
    pin_program,
    program_info,
)
from cirri.maps.libbpf import object_get

OBJECT = "bpf_sensor"
FOLDER = "sensor"
"""Below the node's pins: a ring's reader locks its folder."""
AT_ONCE = 2048


def scope_of(cgroup: Path | None, mount: Path) -> SensorScope:
    """Which processes are the node's: those of *cgroup*; without one, or at the *mount*'s root, all."""
    if cgroup is None or cgroup == mount:
        return SensorScope()
    return SensorScope(cgroup=os.stat(cgroup).st_ino, level=len(cgroup.relative_to(mount).parts))


class Kernel:
    """Programs that run, and the one reader of what they tell."""

    def __init__(self, bpffs: Path, objects: Path, scope: SensorScope) -> None:
        """Load and attach what is not there already.  Raises: BpfError."""
        folder = bpffs / FOLDER
        self.replaced = False
        """Whether programs were attached anew: what happened before was not seen, or by other programs."""
        with Objects.load(objects, folder, names=(OBJECT,)) as programs:
            self.ring = RingBuffer(folder / SENSOR_EVENTS.name)
            with open_pinned(folder, SENSOR_SCOPE) as map_:
                map_.put(0, scope)
            if not all(runs(program, folder) for program in programs.values()):
                self.replaced = True
                for program in programs.values():
                    detach(folder / f"link_{program.name}")
                for program in programs.values():
                    attach_tracepoint(program, folder / f"link_{program.name}")
                    pin_program(program, folder / f"prog_{program.name}")
        self._counters = open_per_cpu(folder, SENSOR_COUNTER)
        self.lost_before = self.lost()

    def take(self) -> list[bytes]:
        """Some of what waits, oldest first."""
        return self.ring.read(AT_ONCE)

    def lost(self) -> int:
        """Events that found no room, since the ring was made."""
        return sum(self._counters[SensorCounter.LOST])

    def close(self) -> None:
        """Let another reader in."""
        self.ring.close()
        self._counters.close()


def runs(program: Program, folder: Path) -> bool:
    """Whether the same program is attached already, by an earlier process."""
    with suppress(MapMissing):
        fd = object_get(folder / f"prog_{program.name}")
        try:
            same = program_info(fd).tag == program.info.tag
        finally:
            os.close(fd)
        return same and (folder / f"link_{program.name}").exists()
    return False
