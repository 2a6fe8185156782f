"""Rows B17 and B18: requests through the node's Envoy, and changes of what they may be.

::

    client ── node: Envoy of l7proxy │ the same Envoy alone │ nothing ── nginx

nftables' TPROXY brings what goes to port 8080 to the proxy (see ``cirri.testing.proxied``); port 8081 leads
past it, and port 9000 of the node is an Envoy with one route that is configured by files.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from integration.bench.machine import BenchError, need
from integration.bench.report import Line, Report, rate
from integration.bench.rounds import Effort
from integration.bench.stats import (
    Goal,
    Interval,
    Round,
    bootstrap_median,
    bootstrap_percentile,
    ratio,
    ratios,
)

from cirri.l7proxy.envoy import binary
from cirri.l7proxy.sampling import RECORDS_PER_S
from cirri.proxies import Listener
from cirri.testing.proxied import SERVER, Proxied, http, until
from cirri.testing.recorder import ask, request
from cirri.testing.sockets import socket_in

CIRRI, STOCK, DIRECT = "l7proxy", "Envoy alone", "no proxy"
PLACES = {
    CIRRI: f"http://{SERVER[0]}:8080/v1/item-50/7",
    STOCK: "http://10.77.1.1:9000/v1/item-50/7",
    DIRECT: f"http://{SERVER[0]}:8081/v1/item-50/7",
}
CONNECTIONS = (1, 16, 512)
RULES = 100
"""In one port; the request is like the 51st."""
SHARE, LATER, SCALING = 0.95, 1.10, 0.97
CHANGE_MS = 30.0
PORTS, ADDED, EDITS, MANY = 50, 3000, 1000, 5000
LARGE_BYTES = 20 << 20
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_NGINX = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/nginx.error;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000;
  server {{ listen 8080; listen 8081; location / {{ return 200 "ok"; }} }} }}
"""


def rules(paths: Sequence[str]) -> str:
    """Rules that list *paths*."""
    entries = [{"method": "GET", "path": path} for path in paths]
    return json.dumps({"any": False, "allows": [{"cookie": 1, "requests": entries}]})


@contextmanager
def _scene() -> Iterator[Proxied]:
    need("wrk", "wrk")
    need("nginx", "nginx-light")
    with Proxied(bus=True) as world:
        world.start_all()
        config = world.home / "nginx.conf"
        config.write_text(_NGINX.format(home=world.home))
        stock = world.home / "stock.json"
        _routes(world, ["/"])
        stock.write_text(json.dumps(_stock(world)))
        alone = [binary(), "-c", stock, "--use-dynamic-base-id", "--concurrency", "2", "--log-level", "error"]
        with _running(world, "s", "nginx", "-c", config), _running(world, "n", *alone):
            yield world


@contextmanager
def _running(world: Proxied, where: str, *argv: object) -> Iterator[None]:
    command = ["ip", "netns", "exec", world.ns(where), *map(str, argv)]
    # In a session of its own, as the node's Envoy: the scheduler shares CPUs out by session.
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def _stock(world: Proxied) -> dict[str, Any]:
    """An Envoy of one's own: one listener, one server, routes from a file."""
    extensions = "type.googleapis.com/envoy.extensions.filters"
    source = {"path_config_source": {"path": str(world.home / "routes.json")}, "resource_api_version": "V3"}
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "stock",
        "rds": {"route_config_name": "stock", "config_source": source},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{extensions}.http.router.v3.Router"}}
        ],
    }
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 1000000)
    endpoint = {"address": {"socket_address": {"address": SERVER[0], "port_value": 8081}}}
    return {
        "node": {"id": "stock", "cluster": "stock"},
        "static_resources": {
            "listeners": [
                {
                    "address": {"socket_address": {"address": "10.77.1.1", "port_value": 9000}},
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "server",
                    "type": "STATIC",
                    "circuit_breakers": {"thresholds": [limits]},
                    "load_assignment": {
                        "cluster_name": "server",
                        "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
                    },
                }
            ],
        },
    }


def _routes(world: Proxied, prefixes: Sequence[str]) -> None:
    """Have the Envoy alone let these pass."""
    table = {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "stock",
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": one}, "route": {"cluster": "server"}} for one in prefixes],
            }
        ],
    }
    draft = world.home / "routes.draft"
    draft.write_text(json.dumps({"resources": [table]}))
    draft.rename(world.home / "routes.json")


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Rows B17 and B18."""
    with _scene() as world:
        if "B17" in rows:
            _throughput(world, effort, report)
        if "B18" in rows:
            _changes(world, effort, report)


# --- B17 -----------------------------------------------------------------------------------------------


def _throughput(world: Proxied, effort: Effort, report: Report) -> None:
    world.publish({8080: http(10100, rules([f"/v1/item-{n}/[0-9]+" for n in range(RULES)]))})
    for place in PLACES:
        _wrk(world, place, 16, 1.0)
    found: dict[int, list[Round]] = {}
    for count in CONNECTIONS:
        turns = [
            Round({place: _wrk(world, place, count, 2 * effort.seconds) for place in PLACES})
            for _ in range(max(2, effort.rounds // 3))
        ]
        found[count] = turns
        report.raw[f"B17 {count}"] = [dict(turn.samples) for turn in turns]
        report.lines += _lines(count, turns)
    first, last = found[CONNECTIONS[0]], found[CONNECTIONS[-1]]
    pairs = zip(ratios(last, CIRRI, STOCK), ratios(first, CIRRI, STOCK), strict=False)
    scaling = bootstrap_median([many / one for many, one in pairs])
    what = f"{CONNECTIONS[-1]} connections / 1, {CIRRI} / {STOCK}"
    report.lines.append(Line("B17", what, ratio=scaling, goal=Goal(at_least=SCALING)))


def _lines(count: int, turns: Sequence[Round]) -> list[Line]:
    each = "connection" if count == 1 else "connections"
    own = rate(bootstrap_median([turn.samples[CIRRI]["rate"] for turn in turns]).median)
    late = f"{bootstrap_median([turn.samples[CIRRI]['p99'] for turn in turns]).median * 1e3:.2f} ms"
    limit = f"{RULES} rules, records of {RECORDS_PER_S} requests a second"
    head = f"{count} {each}, {CIRRI} /"
    return [
        Line(
            "B17", f"{head} {STOCK}", own, ratio(turns, CIRRI, STOCK), goal=Goal(at_least=SHARE), limit=limit
        ),
        Line(
            "B17", f"{head} {STOCK}, p99", late, ratio(turns, CIRRI, STOCK, "p99"), goal=Goal(at_most=LATER)
        ),
        Line("B17", f"{head} {DIRECT}", own, ratio(turns, CIRRI, DIRECT)),
    ]


def _wrk(world: Proxied, place: str, connections: int, seconds: float) -> Mapping[str, float]:
    """What wrk says: requests a second, 99th percentile in seconds."""
    command = ["ip", "netns", "exec", world.ns("c"), "wrk", "--latency", "-t", str(min(2, connections)),
               "-c", str(connections), "-d", f"{max(1, round(seconds))}s", PLACES[place]]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    if not found or not late or "Non-2xx" in said or "Socket errors" in said:
        raise BenchError(f"wrk against {place}: {said[-400:]}")
    return {"rate": float(found[1]), "p99": float(late[1]) * _UNITS[late[2]]}


# --- B18 -----------------------------------------------------------------------------------------------


def _changes(world: Proxied, effort: Effort, report: Report) -> None:
    share = min(1.0, effort.rounds / 15)
    _added(world, round(ADDED * share), report)
    _edited(world, round(EDITS * share), report)
    _many(world, round(100 * share) + 2, report)
    _large(world, report)


def _listeners(count: int, extra: Sequence[str] = ()) -> dict[int, Listener]:
    """*count* rules over :data:`PORTS` ports; *extra* ones in the port that is asked."""
    each = max(1, count // PORTS)
    found = {}
    for port in range(PORTS):
        paths = [f"/v1/p{port}/r{n}" for n in range(each)]
        found[8080 + port] = http(11000 + port, rules([*paths, *extra] if port == 0 else paths))
    return found


def _added(world: Proxied, count: int, report: Report) -> None:
    """Rules that are added one by one; each is asked for until it holds."""
    took: list[float] = []
    extra: list[str] = []
    world.publish(_listeners(MANY))
    with world.connect(8080) as client:
        for number in range(count):
            extra = [*extra[-RULES:], f"/new/{number}"]
            changed = _listeners(MANY, extra)
            took.append(_until_ok(client, extra[-1], lambda at=changed: world.publish(at, wait=False)))
    peer = []
    with _stock_client(world) as client:
        for number in range(max(20, count // 10)):
            prefixes = [f"/v1/r{n}" for n in range(RULES)] + [f"/new/{number}"]
            peer.append(_until_ok(client, prefixes[-1], lambda p=prefixes: _routes(world, p)))
    _routes(world, ["/"])
    against = f"the same by files, one table of {RULES}: p50 {_ms(peer, 0.5)}, p99 {_ms(peer, 0.99)}"
    what = f"{count} rules added one by one to {MANY} in {PORTS} ports, until the first 200, p99"
    report.raw["B18 added ms"], report.raw["B18 files ms"] = took, peer
    report.lines.append(
        Line("B18", what, f"p50 {_ms(took, 0.5)}", bootstrap_percentile(took, 0.99), " ms",
             Goal(at_most=CHANGE_MS, unit=" ms"), limit=against)
    )  # fmt: skip


@contextmanager
def _stock_client(world: Proxied) -> Iterator[socket.socket]:
    with socket_in(world.ns("c"), socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(("10.77.1.1", 9000))
        yield client


def _until_ok(client: socket.socket, path: str, change: Any) -> float:
    """Milliseconds from *change* until *path* is answered with 200."""
    raw, began = request(path), time.perf_counter()
    change()
    while ask(client, raw).status != 200:
        if time.perf_counter() - began > 30:
            raise BenchError(f"{path} is not let pass after 30 s")
    return (time.perf_counter() - began) * 1e3


def _edited(world: Proxied, count: int, report: Report) -> None:
    """Changes beside some 1000 requests a second that every version of the rules lets pass."""
    wrong, done, stop = [], [0], threading.Event()
    world.publish(_listeners(MANY))

    def load() -> None:
        raw = request("/v1/p0/r0")
        with world.connect(8080) as client:
            while not stop.is_set():
                try:
                    status = ask(client, raw).status
                except OSError as error:
                    wrong.append(str(error))
                    return
                done[0] += 1
                if status != 200:
                    wrong.append(str(status))
                time.sleep(0.001)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for number in range(count):
        world.publish(_listeners(MANY, [f"/edit/{number}"]), wait=False)
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    per_s = f"{done[0] / (time.monotonic() - began):.0f} requests/s beside"
    found = Interval(*[float(len(wrong))] * 3)
    what = f"{count} changes, answers that are not 200"
    report.lines.append(Line("B18", what, per_s, found, goal=Goal(at_most=0)))


def _many(world: Proxied, count: int, report: Report) -> None:
    """Changes of one port with thousands of rules of a kilobyte."""
    paths = [f"/v1/r{n}/" + "x" * 1000 for n in range(MANY)]
    world.publish({8080: http(12000, rules(paths))})
    took = []
    with world.connect(8080, timeout_s=30) as client:
        for number in range(count):
            new = f"/many/{number}"
            text = rules([*paths, new])
            took.append(
                _until_ok(client, new, lambda t=text: world.publish({8080: http(12000, t)}, wait=False))
            )
    report.raw["B18 many ms"] = took
    size = f"{len(text) / 1e6:.0f} MB"
    what = f"{count} changes of {MANY} rules in one port ({size}), until the first 200, p99"
    found, goal = bootstrap_percentile(took, 0.99), Goal(at_most=CHANGE_MS, unit=" ms")
    limit = "Envoy reads the whole table of a port anew"
    report.lines.append(Line("B18", what, f"p50 {_ms(took, 0.5)}", found, " ms", goal, limit))


def _large(world: Proxied, report: Report) -> None:
    """20 MB of rules in one port."""
    paths = [f"/v1/r{n}/" + "x" * 1000 for n in range(LARGE_BYTES // 1000)]
    began = time.perf_counter()
    world.publish({8080: http(13000, rules(paths))}, wait=False)
    until(lambda: 13000 in world.serving.ports, world.explain, 60)
    with world.connect(8080, timeout_s=30) as client:
        status = ask(client, request(paths[-1])).status
    took = f"after {time.perf_counter() - began:.1f} s"
    state = "taken" if status == 200 else f"answered {status}"
    report.lines.append(Line("B18", f"{LARGE_BYTES >> 20} MB of rules in one port: {state}", took))
    world.publish({8080: http(10100, rules(["/"]))})
    until(lambda: 10100 in world.serving.ports, world.explain)


def _ms(values: Sequence[float], share: float) -> str:
    return f"{bootstrap_percentile(values, share).median:.1f} ms"
