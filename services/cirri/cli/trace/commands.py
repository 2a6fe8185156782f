"""The group."""

import click

from cirri.cli.trace.dns import dns
from cirri.cli.trace.drops import drops
from cirri.cli.trace.execs import execs
from cirri.cli.trace.latency import latency


@click.group()
def trace() -> None:
    """Look into the kernels of this machine, now: views that are compiled when they are asked for.

    They use raw tracepoints, which every kernel has, and the kernel's own description of its types; not
    kprobes or fentry, which some kernels lack (`cirri bpf features`).  They need root and see
    the machine that they run on.  A view ends with its command: nothing is pinned, nothing stays loaded.
    """


for each in (drops, latency, dns, execs):
    trace.add_command(each)
