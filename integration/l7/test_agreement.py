"""What Envoy lets pass is what ``cirri.engine.l7.answer`` does: for random rules, and for hostile bytes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import pytest
from integration.l7.corpus import CORPUS, SECRET
from integration.l7.sending import send

from cirri.engine.l7 import Answer, HttpRequest, answer
from cirri.model import Rule
from cirri.testing.proxied import Proxied, http
from cirri.testing.recorder import Recorder, Seen, ask, request

SETS, REQUESTS, SEED = 40, 12, 20261123
FIRST, HOSTILE = 20000, 8500
METHODS = ("", "GET", "POST", "GET|POST", "[A-Z]+", "P.*", "^GET$")
PATHS = (
    "",
    "/",
    "/a",
    "/a.*",
    "/a/[0-9]+",
    r"/a\?x=1",
    "/(a|b)",
    "(?i)/A",
    r"/a\.b",
    "/a.b",
    ".*x=1",
    "/%7Ea",
)
HOSTS = ("", "", "api", r"api(:[0-9]+)?", r".*\.example", r"api\.example")
HEADERS = ("X-A: 1", "X-A 2", "X-B", "x-b: 1,2", "Host: api")
MISMATCH = ("LOG", "ADD", "DELETE", "REPLACE")
TARGETS = ("/", "/a", "/b", "/A", "/a?x=1", "/a/1", "/a/1?x=1", "/a.b", "/aXb", "/~a", "/?x=1", "/c")


def some_rules(dice: random.Random) -> dict[str, Any]:
    allows = []
    for number in range(dice.randint(0, 3)):
        allow: dict[str, Any] = {"cookie": number + 1}
        if dice.random() > 0.05:
            count = dice.choice((0, 1, 2, 3, 12))
            allow["requests"] = [some_entry(dice) for _ in range(count)]
        allows.append(allow)
    return {"any": dice.random() < 0.05, "allows": allows}


def some_entry(dice: random.Random) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for field, choices in (("method", METHODS), ("path", PATHS), ("host", HOSTS)):
        if chosen := dice.choice(choices):
            entry[field] = chosen
    if dice.random() < 0.3:
        entry["headers"] = dice.sample(HEADERS, dice.randint(1, 2))
    if dice.random() < 0.4:
        names = dice.sample(("X-A", "X-B", "X-C"), dice.randint(1, 3))
        entry["headerMatches"] = [some_match(dice, name) for name in names]
    return entry


def some_match(dice: random.Random, name: str) -> dict[str, str]:
    match = {"name": name}
    if dice.random() < 0.8:
        match["value"] = dice.choice(("1", "2", "50%"))
    if dice.random() < 0.7:
        match["mismatch"] = dice.choice(MISMATCH)
    return match


def some_request(dice: random.Random) -> HttpRequest:
    names = dice.choices(("X-A", "x-b", "X-C"), k=dice.randint(0, 3))
    headers = tuple((name, dice.choice(("1", "2", "1,2", "50%", ""))) for name in names)
    host = dice.choice(("api", "api:80", "www.example", "api.example"))
    return HttpRequest(dice.choice(("GET", "POST", "PUT", "DELETE")), dice.choice(TARGETS), host, headers)


def as_engine(rules: dict[str, Any]) -> list[Rule]:
    """The same rules as the engine has them."""
    head: dict[str, Any] = {"selector": "", "protocol": 6, "port": 80}
    found = [
        Rule(**head, redirect="http", priority=26, origins=(allow["cookie"],),
             l7=json.dumps({key: allow[key] for key in allow if key != "cookie"}))
        for allow in rules["allows"]
    ]  # fmt: skip
    if rules["any"]:
        found.append(Rule(**head, origins=(99,)))
    # What sent the connection here, even if it lists nothing.
    return [*found, Rule(**head, redirect="http", priority=26, l7='{"requests": []}', origins=(98,))]


def decided(rules: dict[str, Any], asked: HttpRequest) -> Answer:
    with_host = asked._replace(headers=(*asked.headers, ("Host", asked.host)))
    return answer(as_engine(rules), with_host, enforced=True)


def arrived(asked: HttpRequest, decision: Answer) -> dict[str, list[str]]:
    """Values of the headers that the server is to see."""
    found: dict[str, list[str]] = {"x-a": [], "x-b": [], "x-c": []}
    for name, value in asked.headers:
        found[name.lower()].append(value)
    for change in decision.changes:
        name = change.name.lower()
        if change.action in ("DELETE", "REPLACE"):
            found[name] = []
        if change.action in ("ADD", "REPLACE"):
            found[name].append(change.value)
    return found


def test_random_rules_and_requests(world: Proxied) -> None:
    dice = random.Random(SEED)
    sets = [some_rules(dice) for _ in range(SETS)]
    world.publish({FIRST + n: http(10400 + n, json.dumps(rules)) for n, rules in enumerate(sets)})
    assert not world.serving.failed
    allowed = 0
    for number, rules in enumerate(sets):
        with Recorder(world.ns("s"), FIRST + number) as server, world.connect(FIRST + number) as client:
            for _ in range(REQUESTS):
                asked = some_request(dice)
                decision = decided(rules, asked)
                raw = request(asked.path, asked.method, host=asked.host, headers=asked.headers)
                reply = ask(client, raw, asked.method)
                assert reply.status == (200 if decision.allowed else 403), (rules, asked, decision, reply)
                allowed += decision.allowed
                if decision.allowed:
                    seen = server.seen.pop()
                    assert (seen.method, seen.target, seen.header("host")) == (
                        asked.method, asked.path, [asked.host],
                    )  # fmt: skip
                    got = {name: seen.header(name) for name in ("x-a", "x-b", "x-c")}
                    assert got == arrived(asked, decision), (rules, asked, decision)
                assert not server.seen
    assert 0.15 < allowed / (SETS * REQUESTS) < 0.85, "the dice ask nothing of interest"


GUARD: dict[str, Any] = {
    "any": False,
    "allows": [
        {
            "cookie": 1,
            "requests": [
                {"method": "GET", "path": "/public(/.*)?"},
                {"method": "POST", "path": "/ok"},
                {"path": "/t", "headers": ["X-Tenant: acme"]},
            ],
        }
    ],
}
QUIET_S = 0.3
"""When nothing has been heard for so long, nothing more comes."""
LINE = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+: [^\r\n\x00]*")


def faults(seen: Seen) -> Iterator[str]:
    """What is wrong with a request that has reached the server."""
    head, _, _ = seen.raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    if not re.fullmatch(rb"[!-~]+ [!-~\x80-\xff]+ HTTP/1\.1", first):
        yield f"request line {first!r}"
    yield from (f"header line {line!r}" for line in lines if not LINE.fullmatch(line))
    lengths = [*seen.header("content-length"), *seen.header("transfer-encoding")]
    if len(lengths) > 1:
        yield f"framed {lengths}"
    if len(hosts := seen.header("host")) != 1:
        yield f"hosts {hosts}"
    asked = HttpRequest(seen.method, seen.target, (*hosts, "")[0], seen.headers)
    if not answer(as_engine(GUARD), asked, enforced=True).allowed:
        yield "refused by the rules"


@pytest.fixture
def guarded(world: Proxied) -> Iterator[Recorder]:
    world.publish({HOSTILE: http(10500, json.dumps(GUARD))})
    with Recorder(world.ns("s"), HOSTILE) as server:
        yield server


def hostile(world: Proxied, server: Recorder, cases: Sequence[bytes]) -> None:
    """Send each of *cases* in a connection of its own, all at once, and look at what reaches the server."""
    send(world, HOSTILE, cases, QUIET_S)
    assert server.seen, "nothing arrives at all"
    for seen in server.seen:
        assert list(faults(seen)) == [], seen.raw
    # It is in good health.
    with suppress(HTTPException, OSError), world.connect(HOSTILE) as client:
        assert ask(client, request("/secret")).status == 403
        assert ask(client, request("/public")).status == 200
        return
    pytest.fail("it answers no more")


def test_hostile_requests(world: Proxied, guarded: Recorder) -> None:
    hostile(world, guarded, CORPUS)
    assert {"/public", "/ok", "/t", "/public/x"} <= {seen.target for seen in guarded.seen}


def test_damaged_requests(world: Proxied, guarded: Recorder) -> None:
    dice = random.Random(SEED)
    spice = (
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b" ",
        b"\t",
        b":",
        b"%2f",
        b"..",
        b"/",
        b"\\",
        b"chunked",
        b"0\r\n\r\n",
        SECRET,
    )
    cases = []
    for _ in range(120):
        raw = bytearray(dice.choice(CORPUS))
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(raw) + 1)
            raw[at : at + dice.randint(0, 2)] = dice.choice(spice)
        cases.append(bytes(raw))
    hostile(world, guarded, cases)


def test_without_normalisation_paths_go_on_as_they_came(world: Proxied) -> None:
    rules = json.dumps({"any": False, "allows": [{"requests": [{"path": "/a%2Fb"}, {"path": "/c//d/../e"}]}]})
    settings = {"http-normalize-path": "false"}
    with Recorder(world.ns("s"), HOSTILE) as server:
        world.publish({HOSTILE: http(10501, rules)}, settings=settings)
        for path in ("/a%2Fb", "/c//d/../e"):
            with world.connect(HOSTILE) as client:
                assert ask(client, request(path)).status == 200
                assert ask(client, request("/a/b")).status == 403
        assert [seen.target for seen in server.seen] == ["/a%2Fb", "/c//d/../e"]
