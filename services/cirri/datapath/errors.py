"""What the datapath refuses, and in which words.

CirriError
├── KernelLacks              ends the service at its start
└── CniFailure               answered to the container runtime, with its code
    ├── IncompatibleVersion  1   ├── InvalidConfig   7
    ├── UnsupportedField     2   ├── TryAgain       11
    ├── UnknownContainer     3   ├── NotAvailable   50
    ├── InvalidEnvironment   4   ├── Broken        100
    └── Undecodable          6   └── AddressesSpent 101
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from cirri.errors import CirriError


class KernelLacks(CirriError):
    """The running kernel has not all that the programs need."""

    def __init__(
        self, release: str, lacking: Mapping[str, str], *, newest: str, old: bool, barred: bool
    ) -> None:
        """*lacking*: name to the first Linux with it; *newest*: the first with all that is needed."""
        self.release, self.lacking, self.newest = release, dict(lacking), newest
        if old:
            self.hint = f"Boot Linux {newest} or newer: Debian 12 has 6.1"
        elif barred:
            self.hint = "Run it as root, with the capabilities BPF, PERFMON and NET_ADMIN"
        else:
            self.hint = (
                "It is new enough but built without: take a kernel with CONFIG_BPF_SYSCALL, "
                "CONFIG_CGROUP_BPF, CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF, as Debian's have"
            )
        named = ", ".join(f"{name} (since Linux {since})" for name, since in lacking.items())
        verb = "does not permit" if barred and not old else "lacks"
        super().__init__(f"kernel {release} {verb} what the programs need: {named}")


class CniFailure(CirriError):
    """A CNI command that could not be carried out.  Codes below 100 are the specification's."""

    code: ClassVar[int] = 100


class IncompatibleVersion(CniFailure):
    """The configuration is of a version that does not know the command, or that we do not know."""

    code = 1

    def __init__(self, version: str, supported: Sequence[str], command: str = "") -> None:
        self.version, self.supported, self.command = version, tuple(supported), command
        asked = f"{command} in cniVersion {version!r}" if command else f"cniVersion {version!r}"
        super().__init__(f"{asked} is not supported; supported are {', '.join(supported)}")


class UnsupportedField(CniFailure):
    """The configuration asks for something that this plugin does not do."""

    code = 2

    def __init__(self, key: str, value: str, why: str) -> None:
        self.key, self.value = key, value
        super().__init__(f"field {key!r} with value {value} is not supported: {why}")


class UnknownContainer(CniFailure):
    """The container or its network namespace does not exist (any more)."""

    code = 3

    def __init__(self, container: str, what: str) -> None:
        self.container = container
        super().__init__(f"container {container}: {what}")


class InvalidEnvironment(CniFailure):
    """Environment variables of the CNI protocol are missing or wrong."""

    code = 4

    def __init__(self, wrong: Mapping[str, str]) -> None:
        self.wrong = dict(wrong)
        super().__init__("; ".join(f"{name} {why}" for name, why in wrong.items()))


class Undecodable(CniFailure):
    """The configuration is not JSON."""

    code = 6

    def __init__(self, why: str) -> None:
        super().__init__(f"the network configuration is not JSON: {why}")


class InvalidConfig(CniFailure):
    """The configuration is JSON, but not a valid network configuration."""

    code = 7

    def __init__(self, field: str, why: str) -> None:
        self.field = field
        super().__init__(f"network configuration, field {field!r}: {why}")


class TryAgain(CniFailure):
    """Something that the request needs has not arrived yet."""

    code = 11


class NotAvailable(CniFailure):
    """This node cannot take pods now."""

    code = 50


class Broken(CniFailure):
    """CHECK found something else than ADD left behind, or ADD found something in its way."""

    code = 100


class AddressesSpent(CniFailure):
    """Every address of the node's ranges is in use."""

    code = 101
