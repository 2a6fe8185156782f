"""``python -m cirri.sensor.compiler``: compile and load what policies need, by bcc, in a process of its own.

A compiler takes some 120 MB, which go with this process; the program stays, pinned.  bcc is a package of
Debian's for its own Python, pure ctypes: it is imported past that Python's other packages.  No kernel headers
are needed: what bcc asks for is written into a folder that lives as long as this process, since structs of
another kernel's headers would be silently wrong.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from cirri.maps import pin_program
from cirri.maps.libbpf import object_get
from cirri.model import Resource
from cirri.tracing import generate, policy_of, tells_results

BCC = Path("/usr/lib/python3/dist-packages/bcc")
KCONFIG = """#pragma once
#define CONFIG_BPF_SYSCALL 1
#define __LINUX_BPF_H__	/* bcc brings its own */
#include <linux/types.h>
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
typedef _Bool bool;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#define true 1
#define false 0
#define ntohs(x) __builtin_bswap16(x)
#define htons(x) __builtin_bswap16(x)
#define ntohl(x) __builtin_bswap32(x)
#define htonl(x) __builtin_bswap32(x)
"""
UAPI = Path("/usr/include")
"""Of package linux-libc-dev."""


class Order(msgspec.Struct, frozen=True):
    """What is read from standard input, as JSON."""

    maps: str
    """Folder of the pinned maps."""
    pin: str
    """Where the program is pinned; that for the ends of calls, if there is one, beside it."""
    policies: tuple[Resource, ...]
    """In the order of their bits; all of them can be served."""


EXIT = "_exit"
MAPS = ("scope", "policies", "events", "counters")


def bcc() -> Any:
    """The module.  Raises: ImportError."""
    spec = importlib.util.spec_from_file_location(
        "bcc", BCC / "__init__.py", submodule_search_locations=[str(BCC)]
    )
    if spec is None or spec.loader is None or not BCC.is_dir():
        raise ImportError("package python3-bpfcc is not installed")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    spec.loader.exec_module(module)
    return module


def headers(folder: Path) -> None:
    """Write the headers that bcc looks for, and no kernel's."""
    for name in ("include/linux", "include/asm", "include/uapi"):
        (folder / name).mkdir(parents=True)
    (folder / "include/linux/kconfig.h").write_text(KCONFIG)
    (folder / "include/linux/log2.h").write_text("")
    (folder / "include/asm/page.h").write_text("#define PAGE_SIZE 4096\n")
    machine = UAPI / f"{os.uname().machine}-linux-gnu" / "asm"
    for name, target in (("linux", UAPI / "linux"), ("asm", machine), ("asm-generic", UAPI / "asm-generic")):
        (folder / "include/uapi" / name).symlink_to(target)


def main() -> None:
    """Entry point; the reason of a failure is the last line on standard error."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    folder = Path(order.maps)
    maps = {name: object_get(folder / f"cirri_sensor_{name}") for name in MAPS}
    policies = [policy_of(each) for each in order.policies]
    text = generate(policies, maps)
    functions = (("sensor_enter", ""), *((("sensor_exit", EXIT),) if tells_results(policies) else ()))
    with tempfile.TemporaryDirectory(prefix="cirri-sensor-") as stub:
        headers(Path(stub))
        os.environ["BCC_KERNEL_SOURCE"] = stub
        module = bcc()
        program = module.BPF(text=text.encode(), cflags=["-w"])
        for name, suffix in functions:
            function = program.load_func(name.encode(), module.BPF.RAW_TRACEPOINT)
            pin_program(function.fd, Path(order.pin + suffix))


if __name__ == "__main__":
    main()
