"""What rows make of their samples: lines, goals, and the proof that traffic took the path."""

import subprocess
from collections.abc import Iterable
from typing import Any, cast

import pytest
from integration.bench import (
    churn,
    cni,
    compiling,
    ctchurn,
    datapath,
    flood,
    kubeproxy,
    maglev,
    memory,
    pps,
    propagation,
    svclatency,
    svcupdate,
    tunnel,
    width,
)
from integration.bench.machine import BenchError
from integration.bench.paths import Path
from integration.bench.report import Line, Report
from integration.bench.rounds import Clients, Effort, Mode, Series, merged, moved, pooled
from integration.bench.stats import CpuTimes, Interval, Round

from cirri.maglev import table

PEERS = ("raw veth", "raw again", "bridge", "kernel routing", "routing+conntrack", "redirect only", "cirri")


def series(
    mode: Mode = "rr",
    *,
    again: float = 1.0,
    cirri: float = 0.98,
    counted: dict[str, int] | None = None,
    names: tuple[str, ...] = PEERS,
) -> Series:
    rates = dict.fromkeys(names, 0.8) | {
        names[0]: 1.0,
        names[1]: again,
        "cirri": cirri,
        "redirect only": 0.985,
    }
    samples = {
        name: {"rate": 1000.0 * rate, "p99_us": 20 / rate, "count": 1000} for name, rate in rates.items()
    }
    moved_by = {"forwarded": 30_000, "events": 15_000, "events_lost": 0, "ct_entries": 10} | (counted or {})
    return Series(mode, 4, [Round(samples)] * 15, 0, {"cirri": moved_by})


def verdicts(lines: Iterable[Line]) -> dict[str, str]:
    return {line.what: line.verdict for line in lines if line.goal}


def test_local_row() -> None:
    found = verdicts(datapath.local_lines("B1", series()))
    assert found == {
        "IPv4 1 B there and back: cirri / raw veth": "met",
        "IPv4 1 B there and back: cirri / kernel routing": "met",
        "IPv4 1 B there and back: p99 of cirri / raw veth": "met",
    }


def test_connections_have_their_own_goal() -> None:
    found = verdicts(datapath.local_lines("B2", series("crr", cirri=0.93)))
    assert found["IPv4 connect, 1 B, close: cirri / raw veth"] == "missed"


def test_what_limits_it_is_measured() -> None:
    line = next(each for each in datapath.local_lines("B1", series()) if each.goal)
    assert line.limit == "an empty redirect to the pod: 0.985 of raw veth"


def test_a_run_whose_paths_do_not_equal_themselves_is_void() -> None:
    assert set(verdicts(datapath.local_lines("B1", series(again=1.03))).values()) == {"void"}


def test_remote_row() -> None:
    names = ("node to node", "node to node again", "kernel routing", "redirect only", "cirri")
    found = verdicts(datapath.remote_lines("B4", series("stream", cirri=0.99, names=names)))
    assert found == {"IPv4 one stream: cirri / node to node": "met"}


@pytest.mark.parametrize(
    ("mode", "counted", "said"),
    [
        pytest.param("rr", {}, [], id="all moved"),
        pytest.param("rr", {"forwarded": 29_999}, ["only 29999 packets were counted for 15000 transactions"],
                     id="packets went around"),
        pytest.param("rr", {"events": 0}, ["only 0 flow events for 15000 transactions"], id="no events"),
        pytest.param("crr", {"events": 14_999}, ["only 14999 flow events for 15000 transactions"],
                     id="connections without an event"),
        pytest.param("stream", {"ct_entries": 0}, ["no connection was tracked"], id="no tracking"),
    ],
)  # fmt: skip
def test_a_path_around_the_datapath_is_a_failure(mode: Mode, counted: dict[str, int], said: Any) -> None:
    assert datapath.unproved(series(mode, counted=counted), "cirri") == said


def test_counters_rise_and_states_are() -> None:
    before, after = {"forwarded": 5, "ct_entries": 9}, {"forwarded": 7, "ct_entries": 3, "events": 1}
    assert moved(before, after) == {"forwarded": 2, "ct_entries": 3, "events": 1}


def test_slices_make_one_sample() -> None:
    slices = [
        {"count": 98, "seconds": 0.1, "histogram_ns": [[1000.0, 90], [2000.0, 8]]},
        {"count": 102, "seconds": 0.3, "histogram_ns": [[1000.0, 100], [9000.0, 2]]},
    ]
    found = merged(slices)
    assert found["rate"] == pytest.approx(500)
    assert (found["p50_us"], found["p99_us"], found["p999_us"]) == (1.0, 9.0, 9.0)


def test_a_stream_has_no_latencies() -> None:
    assert merged([{"count": 10, "seconds": 2.0}]) == {"count": 10, "seconds": 2.0, "rate": 5.0}


def change(nodes: float) -> dict[str, Any]:
    return {"first_ms": 2.0, "nodes_ms": nodes, "all_ms": nodes + 1, "reply_ms": 1.5, "sent": 40}


def test_propagation_row() -> None:
    found = list(
        propagation.lines("B12", [change(n / 10) for n in range(20, 60)], [0.5] * 30, [8.0] * 30, 100)
    )
    assert verdicts(found) == {
        "policy in force on 10 nodes: p50": "missed",
        "policy in force on 10 nodes: p99": "met",
        "policy in force on 10 nodes / raw NATS to 10 subscribers, p50": "met",
    }
    assert found[0].limit.startswith("API 1.5 ms, first node at 2.0 ms, last at 4.0 ms")


def test_policies_differ_in_one_port() -> None:
    ports = [
        propagation.policy(port)["spec"]["ingress"][0]["toPorts"][0]["ports"] for port in propagation.PORTS
    ]
    assert [each["port"] for each in ports[0]] == ["7000", "7001"]
    assert [each["port"] for each in ports[1]] == ["7000", "7002"]


def test_cni_row() -> None:
    times = {"cirri": [10.0] * 50, "ptp": [30.0] * 50, "bridge": [40.0] * 50, "bare netlink": [5.0] * 50}
    bursts = {"cirri": [2.5, 2.6, 2.4], "ptp": [4.0, 4.1, 4.2]}
    found = verdicts(cni.lines("B14", times, times, bursts, {name: [900.0] for name in bursts}, 100))
    assert found == {
        "ADD, in sequence: cirri p99": "met",
        "ADD, in sequence: p99 of cirri / ptp": "met",
        "DEL, in sequence: cirri p99": "met",
        "100 ADDs at once, until the last: cirri": "missed",
    }


def test_memory_of_a_process() -> None:
    text = "00400000-7fff ---p [rollup]\nRss:   20480 kB\nPss:    5120 kB\nPss_Dirty:  1 kB\n"
    assert memory.parse_rollup(text) == {"rss": 20.0, "pss": 5.0}


def test_memory_that_cannot_be_read() -> None:
    with pytest.raises(BenchError, match="no Rss and Pss"):
        memory.parse_rollup("Size: 4 kB\n")


def test_memory_row_sums_a_nodes_services() -> None:
    nursery = {"rss": 70.0, "pss": 10.0}
    idle = {"datapath-node1": {"rss": 40.0, "pss": 30.0}, "policy": {"rss": 30.0, "pss": 20.0}}
    full = {"datapath-node1": {"rss": 60.0, "pss": 50.0}, "policy": {"rss": 200.0, "pss": 195.0}}
    idle, full = idle | {"nursery": nursery}, full | {"nursery": nursery}
    found = {line.what: line for line in memory.lines("MEM", idle, full, 10_000)}
    assert found["services of one node"].ratio == Interval(60.0, 60.0, 60.0)
    assert verdicts(found.values()) == {
        "services of one node": "met",
        "all services of a one-node cluster, bus included": "missed",
    }


def test_a_series_that_fails_is_told_and_leaves_the_others_their_turn() -> None:
    class Broken:
        def slice(self, *_: object) -> dict[str, Any]:
            raise BenchError("no answer")

    report, path = Report(), Path("cirri", "c", "s", {4: "10.0.0.1"})
    broken = cast(Clients, Broken())
    assert datapath.series_of(report, "B1", broken, [path], "rr", 4, Effort(rounds=1)) is None
    assert report.failures == ["B1: no answer"]


def test_wide_policies_have_goals_and_a_peer() -> None:
    names = (width.NONE, width.AGAIN, *width.WIDTHS, width.NFT)
    found = verdicts(width.lines("B11", series("crr", cirri=1, names=names)))
    assert found == {f"IPv4 connect, 1 B, close: {name} / no policy": "missed" for name in width.WIDTHS}


def test_the_nft_peer_is_a_ruleset() -> None:
    done = subprocess.run(
        ["nft", "--check", "-f", "-"], input=width.nft_rules(300), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_equal_paths_count_as_one() -> None:
    rates = {"a": 1.0, "b": 3.0, "other": 5.0}
    samples = {name: {"rate": rate, "p99_us": 10 * rate} for name, rate in rates.items()}
    found = pooled(Series("rr", 4, [Round(samples, 0.01)], 0, {}), {"both": ("a", "b")})
    wanted = {"other": {"rate": 5.0, "p99_us": 50.0}, "both": {"rate": 2.0, "p99_us": 20.0}}
    assert found.rounds == [Round(wanted, 0.01)]


def test_services_are_compared_with_kube_proxy() -> None:
    kinds = [f"{kind} of {count}" for kind in ("iptables", "nft") for count in svclatency.PEER_COUNTS]
    services = map(svclatency.cirri, svclatency.COUNTS)
    names = (svclatency.DIRECT, svclatency.AGAIN, svclatency.ROUTED, *kinds, *services)
    found = verdicts(svclatency.lines("B6", series("crr", names=names)))
    assert {what.rpartition(": ")[2]: verdict for what, verdict in found.items()} == {
        "ClusterIP of 100 k / direct": "missed",
        "ClusterIP of 100 k / ClusterIP of 1": "met",
        "ClusterIP of 30 k / iptables of 30 k": "missed",
        "ClusterIP of 30 k / nft of 30 k": "missed",
    }


def test_what_kube_proxy_would_have_nft_load_can_be_loaded() -> None:
    text = kubeproxy.nft(kubeproxy.strangers(30))
    done = subprocess.run(
        ["nft", "--check", "-f", "-"], input=text, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_change_of_a_service() -> None:
    loads = {30_000: {"all_s": 0.1, "maps_s": 0.05, "bare_s": 0.01}}
    peers = {name: {"load_s": 1.0, "change_s": [0.9] * 5} for name in (svcupdate.IPTABLES, svcupdate.NFT)}
    found = verdicts(svcupdate.lines("B7", 30_000, [0.001] * 20, [0.0005] * 20, 5.0, loads, peers))
    assert set(found.values()) == {"met"}
    assert len(found) == 4


def test_tunnels_and_many_connections() -> None:
    names = (tunnel.NODES, tunnel.AGAIN, tunnel.KERNEL, tunnel.CIRRI)
    assert list(verdicts(tunnel.lines("B5", series("rr", cirri=0.9, names=names))).values()) == [
        "met",
        "missed",
    ]
    tables = (ctchurn.EMPTY, ctchurn.AGAIN, ctchurn.FULL)
    assert list(verdicts(ctchurn.lines("B31", series(names=tables))).values()) == ["missed", "missed"]
    told = {"written": 200, "seconds": 1.0, "sweeps": [0.1], "evicted": 1}
    assert list(verdicts(ctchurn.lines_of_others("B31", told, 10)).values()) == ["missed"]


def test_compiling_is_compared_with_asking_everything() -> None:
    times = {"compile": [2.0, 2.1, 2.2], "naive": [100.0, 110.0], "single": [0.001] * 10}
    found = list(compiling.lines("COMPILE", times))
    assert verdicts(found) == {"compiled from nothing": "met"}
    assert found[1].ratio
    assert found[1].ratio.median == pytest.approx(0.02)


def test_compiling_compiles_what_it_says() -> None:
    identities = {256 + number: compiling.labels(number) for number in range(200)}
    objects = compiling.policies(20)
    compiler, seconds = compiling.compiled(objects, identities)
    assert len(set(map(tuple, identities.values()))) == 200
    assert set(identities) <= set(compiler.policies)
    assert compiler.sets
    assert seconds > 0
    assert compiling.naive(objects, identities) > 0


def test_identities_one_by_one_and_in_a_stream() -> None:
    one = churn.identity_lines("IDENTITY", [0.003] * 20, [0.001] * 20, 100)
    told = {"changes": 990, "seconds": 1.0, "latencies": [0.06] * 20, "backlog": 0.1}
    stream = churn.churn_lines("B13", told, [0.001] * 20, 100)
    assert verdicts([*one, *stream]) == {
        "one identity more, until the node's map has it: p99": "met",
        "changes a second, sustained": "met",
        "until the node's map has it: p99": "missed",
        "backlog gone after the last change": "met",
    }


def test_what_moves_without_need() -> None:
    """Nothing when nothing changes; of two backends nothing when one goes, since its slots have to move."""
    two, weights = maglev.backends(2), maglev.connections(251)
    one = maglev.without(two, [next(iter(two))])
    for fill in (table, maglev.published):
        assert maglev.share_moved(two, two, 251, weights, fill) == 0
        assert maglev.share_moved(two, one, 251, weights, fill) == 0
    ten = maglev.backends(10)
    nine = maglev.without(ten, [next(iter(ten))])
    calm, paper = (maglev.share_moved(ten, nine, 251, weights, fill) for fill in (table, maglev.published))
    assert 0 < calm < paper < 0.1


def test_packets_net_of_the_generator() -> None:
    times = dict.fromkeys((pps.TX, pps.AGAIN), 300.0)
    times |= {pps.DROP: 240, pps.FLOOR: 350, pps.CIRRI: 380, pps.ONE: 380, pps.MOST: 390}
    times |= {pps.IPTABLES: 1640, pps.NFT: 1440}
    samples = {name: {"ns": ns, "net": ns - 240, "share": 1.0} for name, ns in times.items()}
    found = verdicts(pps.lines("B8", [Round(samples)] * 5))
    assert found == {
        "iptables DNAT / cirri": "met",
        "cirri / bare XDP_TX": "missed",
        "cirri, 65000 Services / cirri, 1 Service": "missed",
    }


@pytest.mark.parametrize(
    ("cirri", "again", "kernel", "drop"),
    [
        pytest.param(85, 100, "met", "met", id="as cheap as XDP_DROP"),
        pytest.param(70, 100, "met", "missed", id="twice what nft leaves"),
        pytest.param(30, 100, "missed", "missed", id="dearer than nft"),
        pytest.param(85, 103, "void", "void", id="the same twice is not the same"),
    ],
)
def test_what_a_flood_leaves(cirri: float, again: float, kernel: str, drop: str) -> None:
    rates = {flood.NONE: 100.0, flood.AGAIN: again, flood.DROP: 86}
    rates |= dict.fromkeys(flood.KERNEL, 35.0) | dict.fromkeys(flood.CIRRI, cirri)
    samples = {name: {"rate": rate, "pps": 1e6, "busy": 0.5, "share": 1.0} for name, rate in rates.items()}
    found = verdicts(flood.lines("B9", [Round(samples)] * 5))
    wanted = dict.fromkeys(flood.KERNEL, kernel) | {flood.DROP: drop}
    assert found == {f"{name} / {peer}": verdict for name in flood.CIRRI for peer, verdict in wanted.items()}


@pytest.mark.parametrize(
    ("share", "said"), [(0.99, []), (0.5, ["B9: cirri: 50.0% of the flood was counted as dropped"])]
)
def test_a_flood_that_is_not_dropped_is_a_failure(
    share: float, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "cpu_times", lambda: CpuTimes(0, 0))
    report = Report()
    assert list(flood.turns({"cirri": None}, lambda *_: {"share": share}, Effort(rounds=1), report))
    assert report.failures == said
