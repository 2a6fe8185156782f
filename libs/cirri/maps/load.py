"""Load the compiled programs: their maps are pinned by name and shared, their constants set before."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from cirri.maps.errors import LoadFailed, MapMissing, NameUnknown, ObjectMissing, VerifierRejected
from cirri.maps.info import ProgramInfo, map_info, program_info
from cirri.maps.libbpf import ensure_bpffs, libbpf, object_get, object_pin, warnings
from cirri.maps.map import check
from cirri.maps.rodata import Variables

OBJECTS = ("bpf_pod", "bpf_node", "bpf_overlay", "bpf_sock", "bpf_xdp", "bpf_rest")
"""The shipped program files, without ``.o``."""
SCHED_CLS = 3
"""``BPF_PROG_TYPE_SCHED_CLS``: libbpf 1.1 does not know it by the section name ``tc/…``."""
LOG_BYTES = 1 << 20
"""Of the verifier's log for one program.  Newer kernels keep the end of a longer one."""
_NOISE = ("processed ", "verification time", "stack depth", "-- ")
"""Beginnings of the log's lines that say nothing of the reason."""
_one_load_at_a_time = Lock()


class _OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts``, as far as it is used; the size tells libbpf how far."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
    )


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program."""

    section: str
    """Where the C file puts it, e.g. ``tc/from_pod``."""
    name: str
    """Of the C function."""
    fd: int
    type: int
    attach_type: int
    """Expected attach type; 0 where it has none."""
    object: str
    """The file it comes from, without ``.o``."""

    @property
    def info(self) -> ProgramInfo:
        """What the kernel says about it."""
        return program_info(self.fd)


class Programs(Mapping[str, Program]):
    """Loaded programs by section; a context manager that gives their descriptors back.

    What is attached or pinned stays in the kernel.
    """

    def __init__(self, programs: Iterable[Program]) -> None:
        self._by_section: dict[str, Program] = {}
        for program in programs:
            assert program.section not in self._by_section, f"two programs in section {program.section}"
            self._by_section[program.section] = program

    def __getitem__(self, section: str) -> Program:
        if section not in self._by_section:
            raise NameUnknown("program", section, self._by_section)
        return self._by_section[section]

    def __contains__(self, section: object) -> bool:
        return section in self._by_section

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_section)

    def __len__(self) -> int:
        return len(self._by_section)

    def close(self) -> None:
        """Give the descriptors back."""
        for program in self._by_section.values():
            os.close(program.fd)
        self._by_section.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Objects:
    """Loads program files."""

    @staticmethod
    def load(
        directory: Path | str,
        bpffs: Path | str,
        *,
        rodata: Mapping[str, int | bytes] | None = None,
        max_entries: Mapping[str, int] | None = None,
        names: Iterable[str] = OBJECTS,
        log_directory: Path | str | None = None,
    ) -> Programs:
        """Load every program of the files *names* and pin their maps under *bpffs*.

        Maps that are pinned there are used as they are, so state survives every reload.  Nothing
        is attached.  After an error, maps that were new may stay pinned, empty.

        Args:
            directory: where ``NAME.o`` stand.
            bpffs: where maps are pinned; created if need be.
            rodata: values of ``const volatile`` variables (bpf/lib/config.h), by name; each must
                exist in one of the files, and is set in all that have it.
            max_entries: sizes of maps that differ from the C declaration, by name.
            names: files, without ``.o``.
            log_directory: where the log of a rejected program is written, /tmp by default.

        Raises:
            LibbpfMissing, BpffsMissing, ObjectMissing: as they say.
            NameUnknown: a variable or map that no file has.
            MapMismatch: a pinned map has another type, size or layout.
            VerifierRejected: the verifier refuses a program.
            LoadFailed: any other refusal.
        """
        directory, bpffs = Path(directory), Path(bpffs)
        settings, sizes = dict(rodata or {}), dict(max_entries or {})
        logs = Path(log_directory) if log_directory else Path("/tmp")
        ensure_bpffs(bpffs)
        opened: list[_Object] = []
        programs: list[Program] = []
        with _one_load_at_a_time:
            try:
                opened.extend(_Object(directory / f"{name}.o", bpffs) for name in names)
                _refuse_unknown("variable", settings, (o.variables.names for o in opened))
                _refuse_unknown("map", sizes, (o.maps for o in opened))
                for each in opened:
                    each.configure(settings, sizes)
                warnings.clear()
                # Beside each other: the verifier takes its time over each, and whoever restarts waits for it.
                with ThreadPoolExecutor() as pool:
                    loads = [pool.submit(each.load, logs) for each in opened]
                refused = [error for load in loads if (error := load.exception())]
                programs.extend(each for load in loads if not load.exception() for each in load.result())
                if refused:
                    raise refused[0]
                return Programs(programs)
            except BaseException:
                for program in programs:
                    os.close(program.fd)
                raise
            finally:
                for each in opened:
                    each.close()


def pin_program(program: Program | int, path: Path | str) -> None:
    """Pin *program* at *path*, in place of what is pinned there, in one step."""
    object_pin(program if isinstance(program, int) else program.fd, Path(path))


class _Object:
    """A program file between open and close."""

    def __init__(self, path: Path, bpffs: Path) -> None:
        if not path.is_file():
            raise ObjectMissing(path)
        self.path, self.lib = path, libbpf()
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), None, False, os.fsencode(bpffs))
        warnings.clear()
        handle = self.lib.bpf_object__open_file(os.fsencode(path), ctypes.byref(options))
        if not handle:
            raise LoadFailed(path, ctypes.get_errno(), warnings)
        self.handle: int | None = handle
        self.maps = {self.lib.bpf_map__name(m).decode(): m for m in self._each(self.lib.bpf_object__next_map)}
        self.variables = Variables(self.lib, handle, self.maps)

    def _each(self, following: ctypes._NamedFuncPointer) -> Iterator[int]:
        one = following(self.handle, None)
        while one:
            yield one
            one = following(self.handle, one)

    def configure(self, settings: Mapping[str, int | bytes], sizes: Mapping[str, int]) -> None:
        """Set variables and sizes, then compare with what is pinned."""
        for name, value in settings.items():
            self.variables.set(name, value)
        for name, size in sizes.items():
            if name in self.maps:
                self.lib.bpf_map__set_max_entries(self.maps[name], size)
        for name, handle in self.maps.items():
            if path := self.lib.bpf_map__pin_path(handle):
                self._compare(name, handle, Path(os.fsdecode(path)))

    def _compare(self, name: str, handle: int, path: Path) -> None:
        try:
            fd = object_get(path)
        except MapMissing:
            return
        try:
            info = map_info(fd)
        finally:
            os.close(fd)
        lib = self.lib
        check(name, "type", info.type, lib.bpf_map__type(handle))
        check(name, "key size", info.key_size, lib.bpf_map__key_size(handle))
        check(name, "value size", info.value_size, lib.bpf_map__value_size(handle))
        check(name, "max entries", info.max_entries, lib.bpf_map__max_entries(handle))
        check(name, "flags", info.map_flags, lib.bpf_map__map_flags(handle))

    def load(self, logs: Path) -> list[Program]:
        """Create maps, load programs."""
        lib, handles, buffers = self.lib, list(self._each(self.lib.bpf_object__next_program)), []
        for handle in handles:
            if lib.bpf_program__section_name(handle).startswith((b"tc/", b"tc")):
                lib.bpf_program__set_type(handle, SCHED_CLS)
            # Not touched, and so not resident, unless the verifier has something to say.
            buffers.append(buffer := (ctypes.c_char * LOG_BYTES)())
            lib.bpf_program__set_log_buf(handle, buffer, LOG_BYTES)
        result = lib.bpf_object__load(self.handle)
        if result < 0:
            for handle, buffer in zip(handles, buffers, strict=True):
                if log := buffer.value.decode(errors="replace"):
                    raise rejected(lib.bpf_program__name(handle).decode(), log, logs)
            raise LoadFailed(self.path, -result, warnings)
        return [
            Program(
                section=lib.bpf_program__section_name(handle).decode(),
                name=lib.bpf_program__name(handle).decode(),
                fd=os.dup(lib.bpf_program__fd(handle)),
                type=lib.bpf_program__type(handle),
                attach_type=lib.bpf_program__expected_attach_type(handle),
                object=self.path.stem,
            )
            for handle in handles
        ]

    def close(self) -> None:
        """Free it; what the kernel has loaded stays as long as somebody holds it."""
        if self.handle:
            self.lib.bpf_object__close(self.handle)
            self.handle = None


def rejected(program: str, log: str, directory: Path) -> VerifierRejected:
    """The error for the verifier's *log*, which is written to a file in *directory*."""
    lines = [line for line in log.splitlines() if line.strip()]
    telling = [line.strip() for line in lines if not line.startswith(_NOISE)]
    path = directory / f"cirri-verifier-{program}.log"
    try:
        path.write_text(log)
        written = True
    except OSError:
        written = False  # the last line is still told
    line = telling[-1] if telling else "no reason given"
    return VerifierRejected(program, line, len(lines) - 1, path if written else None)


def _refuse_unknown(kind: str, wanted: Iterable[str], known: Iterable[Iterable[str]]) -> None:
    names = {name for some in known for name in some}
    for name in wanted:
        if name not in names:
            raise NameUnknown(kind, name, names)
