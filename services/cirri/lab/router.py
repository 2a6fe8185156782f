"""The lab's router as a BGP peer: BIRD takes what any node announces and puts it into the kernel.  Pure.

Nodes connect to it, from any AS but its own; several ways to one prefix are used together (ECMP).
"""

from __future__ import annotations

from pathlib import Path

from cirri.lab.topology import FABRIC4, FABRIC6, Host

ASN = 64512
CONFIG, SOCKET = "bird.conf", "bird.ctl"
"""In the lab's run directory."""


def program(run: Path) -> tuple[str, ...]:
    """How BIRD is run."""
    return ("bird", "-f", "-c", str(run / CONFIG), "-s", str(run / SOCKET))


def config(router: Host) -> str:
    """Its configuration."""
    sessions = "\n".join(
        f"""protocol bgp nodes{version} {{
  local {address} as {ASN};
  neighbor range {network} external;
  dynamic name "nodes{version}_";
  graceful restart on;
  ipv4 {{ import all; export none; }};
  ipv6 {{ import all; export none; }};
}}"""
        for version, address, network in ((4, router.ipv4, FABRIC4), (6, router.ipv6, FABRIC6))
    )
    tables = "\n".join(
        f"protocol kernel {{ merge paths on; ipv{v} {{ import none; export where source = RTS_BGP; }}; }}"
        for v in (4, 6)
    )
    return f"""log stderr {{ warning, error, fatal, bug }};
router id {router.ipv4};
protocol device {{}}
{tables}
{sessions}
"""
