"""Row B11: does it matter how many policy entries and address prefixes there are?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, product

from integration.bench import paths
from integration.bench.cirri_paths import Width, local_pods
from integration.bench.datapath import account, line, series_of, why_void
from integration.bench.report import Line, Report
from integration.bench.rounds import Clients, Effort, Mode, Series, pooled
from integration.bench.stats import Goal

NONE, AGAIN, NFT = "no policy", "no policy again", "nft set of 64 k"
WIDTHS = {
    "1 k entries": Width(500),
    "16 k entries": Width(8_000),
    "64 k entries": Width(32_000),
    "64 k entries, 700 k prefixes": Width(32_000, 700_000),
}
"""Of each pod, half of them for each direction."""
REFERENCES = {name: tuple(f"{name} ({copy})" for copy in "ab") for name in (NONE, AGAIN)}
"""Each is the mean of two equal paths."""
SHARE = 0.3
"""Length of a sample, of what was asked for: there are nine paths."""
GOALS: dict[Mode, Goal] = {"rr": Goal(at_least=0.99), "crr": Goal(at_least=0.98)}


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B11: pods of one node with ever more in the maps, against the same without policy."""
    with ExitStack() as stack:
        peers = [
            stack.enter_context(each)
            for each in (
                *(
                    local_pods(name, f"r{at}", Width(0))
                    for at, name in enumerate(chain(*REFERENCES.values()))
                ),
                *(local_pods(name, f"w{at}", width) for at, (name, width) in enumerate(WIDTHS.items())),
                paths.routed(NFT, "wn", rules=nft_rules(64_000)),
            )
        ]
        effort = replace(effort, seconds=SHARE * effort.seconds)
        clients = Clients(stack, peers, effort.families)
        modes: tuple[Mode, ...] = ("rr", "crr")
        for mode, family in product(modes, effort.families):
            if series := series_of(report, rows[0], clients, peers, mode, family, effort):
                account(report, rows[0], series, tuple(WIDTHS))
                series = pooled(series, REFERENCES)
                report.lines += lines(rows[0], series)
                if void := why_void(series, NONE, AGAIN):
                    report.failures.append(f"{rows[0]} {mode} IPv{family}: void, {void}")


def lines(row: str, series: Series) -> Iterator[Line]:
    """The lines of one mode and family."""
    why = why_void(series, NONE, AGAIN)
    for name in (NONE, AGAIN, NFT):
        yield line(row, series, name, NONE)
    for name in WIDTHS:
        yield line(row, series, name, NONE, GOALS[series.mode], why)
    yield line(row, series, next(reversed(WIDTHS)), NFT)


def nft_rules(elements: int) -> str:
    """A stateful ruleset that looks the client up in a set of *elements* addresses."""
    strangers = ", ".join(f"11.0.{number >> 8}.{number & 255}" for number in range(elements))
    strangers6 = ", ".join(f"fd11::{number:x}" for number in range(elements))
    return f"""
table inet stateful {{
  set peers4 {{ type ipv4_addr; elements = {{ 10.9.1.2, {strangers} }} }}
  set peers6 {{ type ipv6_addr; elements = {{ fd00:9:1::2, {strangers6} }} }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    meta l4proto {{ icmp, ipv6-icmp }} accept
    ip saddr @peers4 tcp dport 5000-5002 ct state new accept
    ip6 saddr @peers6 tcp dport 5000-5002 ct state new accept
  }}
}}
"""
