"""``python -m cirri.cli.trace.child``: compile and load a view by bcc, and hand it over.

Standard input has the order; the descriptors of programs and maps go over the socket whose number is the
argument.  Then this process ends, and the compiler's 120 MB with it; the kernel keeps what somebody holds.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

import msgspec

from cirri.sensor.compiler import bcc, headers


class Order(msgspec.Struct, frozen=True):
    """What is to be compiled."""

    text: str
    functions: tuple[str, ...]
    maps: tuple[str, ...]


def main() -> None:
    """Entry point; the reason of a failure is the last line on standard error."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    with (
        tempfile.TemporaryDirectory(prefix="cirri-trace-") as stub,
        socket.socket(fileno=int(sys.argv[1])) as way,
    ):
        headers(Path(stub))
        os.environ["BCC_KERNEL_SOURCE"] = stub
        module = bcc()
        program = module.BPF(text=order.text.encode(), cflags=["-w"])
        found = [program.load_func(name.encode(), module.BPF.RAW_TRACEPOINT).fd for name in order.functions]
        found += [module.lib.bpf_table_fd(program.module, name.encode()) for name in order.maps]
        socket.send_fds(way, [b"."], found)


if __name__ == "__main__":
    main()
