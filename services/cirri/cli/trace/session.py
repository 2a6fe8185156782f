"""A view that runs: programs at tracepoints for as long as this process holds them, and nothing pinned."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Self

import msgspec

from cirri.cli.trace.child import Order
from cirri.cli.trace.fields import Btf, defines
from cirri.errors import CirriError
from cirri.maps import KernelRefused, RingBuffer
from cirri.maps.libbpf import checked, libbpf

COMPILE_S = 60.0


class NotCompiled(CirriError):
    """There is no program."""

    hint = "It takes root, and package python3-bpfcc: `make setup` installs it"

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the view cannot be compiled: {why}")


class Session:
    """Programs and maps of one view; the end of the process is their end too, however it ends."""

    def __init__(self, text: str, points: Mapping[str, str], *maps: str) -> None:
        """Compile *text* and attach its functions.

        Args:
            points: function -> raw tracepoint.
            maps: names of maps that are read; ``told`` is the ring of events.

        Raises:
            NotCompiled: it cannot be compiled, or the verifier refuses it.
            KernelRefused: the kernel has no such tracepoint, or this is not permitted.
            NoBtf, NoField: the kernel does not say where its fields are.
        """
        self._fds: list[int] = []
        with closing(Btf()) as btf:
            text = f"{defines(btf)}\n{text}"
        found = _compiled(Order(text, tuple(points), maps))
        programs, self.maps = found[: len(points)], dict(zip(maps, found[len(points) :], strict=True))
        self.ring = RingBuffer(self.maps.pop("told")) if "told" in self.maps else None
        self._fds += [*programs, *self.maps.values()]
        try:
            for name, program in zip(points.values(), programs, strict=True):
                link = libbpf().bpf_raw_tracepoint_open(name.encode(), program)
                self._fds.append(checked(link, f"attach to tracepoint {name}"))
        except KernelRefused:
            self.close()
            raise

    def lost(self) -> int:
        """Events that found no room, from the beginning."""
        count = ctypes.c_uint64()
        checked(
            libbpf().bpf_map_lookup_elem(self.maps["lost"], bytes(4), ctypes.byref(count)), "count losses"
        )
        return count.value

    def entries(self, name: str, key: int, value: int) -> Iterator[tuple[bytes, bytes]]:
        """Of a map with keys and values of so many bytes."""
        fd, at, here = self.maps[name], None, ctypes.create_string_buffer(key)
        room = ctypes.create_string_buffer(value)
        while libbpf().bpf_map_get_next_key(fd, at, here) == 0:
            if libbpf().bpf_map_lookup_elem(fd, here.raw, room) == 0:
                yield here.raw, room.raw
            at = here.raw

    def close(self) -> None:
        """Detach, and give everything back."""
        if self.ring is not None:
            self.ring.close()
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _compiled(order: Order) -> list[int]:
    """Descriptors of *order*'s programs and maps, made by a process of its own."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            (sys.executable, "-m", "cirri.cli.trace.child", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is this process's to hear
        )
        try:
            _, said = child.communicate(msgspec.json.encode(order), COMPILE_S)
        except subprocess.TimeoutExpired:
            raise NotCompiled(f"it took more than {COMPILE_S:.0f} s") from None
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()
        if child.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            raise NotCompiled(lines[-1] if lines else "the compiler was killed")
        _, found, _, _ = socket.recv_fds(ours, 1, len(order.functions) + len(order.maps))
        return found
