"""XDP on the device to other nodes: its driver turns round what goes back out of it anyhow."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from cirri.datapath.attach import Node
from cirri.loadbalancer import Acceleration
from cirri.maps import BpfError, KernelRefused, attach_xdp, detach
from cirri.netlink.probe import driver

FROM_WIRE = "xdp.frags"
PIN = "xdp_uplink"


class Accelerator:
    """Keeps it as configured; without it the same packets take the way of all others."""

    def __init__(self, realize: Callable[[Acceleration], None]) -> None:
        """*realize* has the program attached, or not, or raises BpfError."""
        self._realize = realize
        self._mode: Acceleration | None = None
        self.fault = ""
        self.feature = "Disabled"
        """As people see it."""

    def step(self, wanted: Acceleration | None) -> None:
        """Put *wanted* in force; None: it is not known, and what is attached stays."""
        if wanted is None or (wanted == self._mode and not self.fault):
            return
        self._mode, self.fault, self.feature = wanted, "", "Disabled"
        try:
            self._realize(wanted)
        except BpfError as error:
            if wanted == "native":
                self.fault = f"bpf-lb-acceleration native: {error}"
            self.feature = f"Disabled ({error})"
        else:
            if wanted != "disabled":
                self.feature = "Native"


class NoNativeMode(BpfError):
    """A driver runs no programs, or none that send."""

    def __init__(self, device: str, why: str) -> None:
        self.device = device
        super().__init__(f"{device or 'no device'}: {why}")


def realize(node: Node, bpffs: Path, wanted: Acceleration) -> None:
    """Have the newest program attached to the uplink's driver, or nothing of ours.

    Raises: BpfError.
    """
    pin, name = bpffs / PIN, node.features.get("uplink", "")
    if wanted == "disabled":
        detach(pin)
        return
    try:
        if not node.uplink:
            raise NoNativeMode(name, "nothing leads to other nodes")
        if wanted == "best-effort" and driver(name) == "veth":
            raise NoNativeMode(name, "what a veth device sends is lost unless its other end runs XDP too")
        attach_xdp(node.programs[FROM_WIRE], node.uplink, pin)
    except KernelRefused as error:
        detach(pin)
        if error.code == errno.EOPNOTSUPP:
            raise NoNativeMode(name, "its driver runs no XDP programs") from error
        raise
    except NoNativeMode:
        detach(pin)
        raise
