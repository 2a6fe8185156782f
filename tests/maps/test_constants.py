"""Numbers and offsets that ``cirri.maps`` takes from kernel and libbpf headers, proved by the compiler."""

import ctypes
import subprocess

from cirri.layout import MapType
from cirri.maps import AttachType
from cirri.maps.info import LINK_INFO, LINK_TYPE_CGROUP, MAP_INFO, PROGRAM_INFO_SIZE
from cirri.maps.load import SCHED_CLS, _OpenOptions
from cirri.maps.map import ANY, EXIST, NOEXIST, PER_CPU_TYPES
from cirri.maps.ring import BUSY, DISCARDED, HEADER, RINGBUF
from cirri.maps.rodata import _MEMBER, _TYPE, BTF_KIND_DATASEC
from cirri.maps.run import _CB, _OFFSETS, _Options

HEAD = """
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/magic.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
"""


def offset(struct: str, field: str, at: int) -> str:
    return f'_Static_assert(offsetof(struct {struct}, {field}) == {at}, "{struct}.{field}");'


def equal(c: str, value: int) -> str:
    return f'_Static_assert({c} == {value}, "{c}");'


def struct_asserts(c_name: str, mirror: type[ctypes.Structure]) -> list[str]:
    return [offset(c_name, name, getattr(mirror, name).offset) for name, *_ in mirror._fields_]


def test_headers_agree() -> None:
    asserts = [
        # Headers of Linux 6.1 do not have tcx; test_attach.py proves its numbers.
        *(equal(f"BPF_{each.name}", each.value) for each in AttachType if "TCX" not in each.name),
        *(equal(f"BPF_MAP_TYPE_{each.name}", each.value) for each in MapType),
        *(offset("__sk_buff", name, at) for name, at in _OFFSETS.items()),
        offset("__sk_buff", "cb", _CB),
        *struct_asserts("bpf_test_run_opts", _Options),
        *struct_asserts("bpf_object_open_opts", _OpenOptions),
        *(
            offset("bpf_map_info", name, 4 * index)
            for index, name in enumerate(
                ("type", "id", "key_size", "value_size", "max_entries", "map_flags", "name")
            )
        ),
        offset("bpf_map_info", "name[16]", MAP_INFO.size),
        offset("bpf_prog_info", "tag", 8),
        offset("bpf_prog_info", "name", 64),
        offset("bpf_prog_info", "run_time_ns", 192),
        offset("bpf_prog_info", "run_cnt", 200),
        offset("bpf_prog_info", "verified_insns", 216),
        f'_Static_assert(sizeof(struct bpf_prog_info) >= {PROGRAM_INFO_SIZE}, "bpf_prog_info");',
        offset("bpf_link_info", "prog_id", 8),
        offset("bpf_link_info", "cgroup.cgroup_id", 16),
        offset("bpf_link_info", "cgroup.attach_type", LINK_INFO.size - 4),
        f'_Static_assert(sizeof(struct btf_type) == {_TYPE.size}, "btf_type");',
        f'_Static_assert(sizeof(struct btf_var_secinfo) == {_MEMBER.size}, "btf_var_secinfo");',
        offset("btf_var_secinfo", "size", 8),
        equal("BTF_KIND_DATASEC", BTF_KIND_DATASEC),
        equal("BPF_LINK_TYPE_CGROUP", LINK_TYPE_CGROUP),
        equal("BPF_PROG_TYPE_SCHED_CLS", SCHED_CLS),
        *(
            equal(f"BPF_{name}", value)
            for name, value in (("ANY", ANY), ("NOEXIST", NOEXIST), ("EXIST", EXIST))
        ),
        equal("BPF_MAP_TYPE_RINGBUF", RINGBUF),
        equal("BPF_RINGBUF_BUSY_BIT", BUSY),
        equal("BPF_RINGBUF_DISCARD_BIT", DISCARDED),
        equal("BPF_RINGBUF_HDR_SZ", HEADER),
        equal("BPF_FS_MAGIC", 0xCAFE4A11),
    ]

    result = subprocess.run(
        ["clang", "-fsyntax-only", "-x", "c", "-"],
        input=HEAD + "\n".join(asserts) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert result.returncode == 0, result.stderr
    assert set(PER_CPU_TYPES) == {kind.value for kind in MapType if kind.per_cpu}
