"""The faster of a device's two hooks, where the kernel has it.

Every device has its programs at clsact from the first moment on.  tcx runs them with less ado
(some 50 ns for each packet), but its first link on a device costs 10 ms with the network's
configuration locked: so it comes later, when nobody waits, and lies over clsact.  A packet that
met a program at tcx does not come to clsact; without the link, for whatever reason, it does.

Links are pinned as ``tcx_DEVICE`` (``tcx_uplink_out``: for what leaves by the uplink) and go on without this
process.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from cirri.maps import AttachType, KernelRefused, Program, attach_tcx, detach

PREFIX = "tcx_"


class Hooks:
    """The links of a node's devices.  Every method blocks: call it in a thread."""

    def __init__(self, bpffs: Path, *, tcx: bool) -> None:
        """Find the links that the process before pinned below *bpffs*; *tcx*: whether the kernel has it."""
        self._bpffs = bpffs
        self.kind: Literal["tcx", "clsact"] = "tcx" if tcx else "clsact"
        self.names = {path.name.removeprefix(PREFIX) for path in bpffs.glob(PREFIX + "*")}
        """Of links: their devices', mostly."""

    def quicken(
        self, name: str, index: int, program: Program | int, hook: AttachType = AttachType.TCX_INGRESS
    ) -> bool:
        """Have *program* run for what arrives at the device (or leaves by it), by tcx; False if it stays with
        clsact."""
        if self.kind == "clsact":
            self.drop([name])
            return False
        try:
            attach_tcx(program, index, hook, self._bpffs / (PREFIX + name))
        except KernelRefused:  # the device is gone, or others filled the hook
            self.drop([name])
            return False
        self.names.add(name)
        return True

    def renew(self, name: str, index: int, program: Program | int) -> None:
        """Give the device's link, if it has one, the newest program; no packet meets neither."""
        if name in self.names:
            self.quicken(name, index, program)

    def drop(self, names: Iterable[str]) -> None:
        """Forget the links of devices; those without one are fine."""
        for name in names:
            self.names.discard(name)
            detach(self._bpffs / (PREFIX + name))

    def sweep(self, keep: Iterable[str]) -> None:
        """Forget the links of all devices but *keep*."""
        self.drop(self.names - set(keep))
