"""What can go wrong between Python and the kernel's BPF objects.

BpfError
  LibbpfMissing      the shared library is not installed
  BpffsMissing       the pin directory is not on a BPF file system
  ObjectMissing      a compiled program file is absent
  LoadFailed         the kernel or libbpf refuses an object, for another reason than the verifier's
  VerifierRejected   the verifier refuses a program
  NameUnknown        no object has a variable, map or program of that name
  MapMissing         nothing is pinned under that name
  MapMismatch        what is pinned has another layout
  MapFull            an entry does not fit
  RingBusy           somebody else reads the ring buffer
  KernelRefused      any other refused call, with its errno
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from cirri.errors import CirriError


class BpfError(CirriError):
    """Something about BPF programs or maps."""


class LibbpfMissing(BpfError):
    """The shared library is not installed."""

    hint = "Install the package libbpf1"

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} cannot be loaded: {reason}")


class BpffsMissing(BpfError):
    """The pin directory is not on a BPF file system."""

    hint = "Mount one: mount -t bpf bpf /sys/fs/bpf"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is not on a BPF file system")


class ObjectMissing(BpfError):
    """A compiled program file is absent."""

    hint = "Compile the programs: make -C bpf"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"program file {path} does not exist")


class LoadFailed(BpfError):
    """An object was refused before or beside the verifier."""

    def __init__(self, path: Path, code: int, messages: Iterable[str]) -> None:
        self.path, self.code, self.messages = path, code, tuple(messages)
        if code in (errno.EPERM, errno.EACCES):
            self.hint = "It needs the capabilities BPF, PERFMON and NET_ADMIN: run it as root"
        why = "; ".join(self.messages[-3:]) or os.strerror(code)
        super().__init__(f"{path} cannot be loaded ({errno.errorcode.get(code, code)}): {why}")


class VerifierRejected(BpfError):
    """The verifier refuses a program."""

    def __init__(self, program: str, line: str, left_out: int, log: Path | None) -> None:
        self.program, self.line, self.left_out, self.log = program, line, left_out, log
        if log is not None:
            self.hint = f"The whole log is in {log}"
        kernel = os.uname().release
        super().__init__(
            f"the verifier of kernel {kernel} rejects program {program}: {line} ({left_out} more lines)"
        )


class NameUnknown(BpfError):
    """No object has a variable, map or program of that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        super().__init__(f"no {kind} {name} in the programs; there are: {', '.join(self.known) or 'none'}")


class MapMissing(BpfError):
    """Nothing is pinned under that name."""

    hint = "The node's datapath service pins its maps when it starts: is it installed and has it run?"

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        super().__init__(f"map {name} is not pinned at {path}")


class MapMismatch(BpfError):
    """A pinned map was created by another version with another layout."""

    hint = "Drain the node and remove the pin, or deploy the version that made it"

    def __init__(self, name: str, field: str, pinned: int, wanted: int) -> None:
        self.name, self.field, self.pinned, self.wanted = name, field, pinned, wanted
        super().__init__(f"map {name} is pinned with {field} {pinned}, this build needs {wanted}")


class MapFull(BpfError):
    """An entry does not fit."""

    hint = "Load the programs with more max_entries for this map"

    def __init__(self, name: str, max_entries: int, stored: int = 0) -> None:
        self.name, self.max_entries, self.stored = name, max_entries, stored
        """*stored*: entries of this write that the map did take."""
        super().__init__(f"map {name} is full: it holds {max_entries} entries")


class RingBusy(BpfError):
    """Somebody else reads the ring buffer, which has one reader."""

    hint = "Stop the other reader"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"another process reads {path}")


class KernelRefused(BpfError):
    """A call was refused."""

    def __init__(self, operation: str, code: int) -> None:
        self.operation, self.code = operation, code
        if code in (errno.EPERM, errno.EACCES):
            self.hint = "It needs the capabilities BPF and NET_ADMIN: run it as root"
        # 524 is the kernel's internal ENOTSUPP, which strerror does not know.
        text = "not supported by this kind of object" if code == 524 else os.strerror(code)
        super().__init__(f"{operation}: {text} ({errno.errorcode.get(code, code)})")
