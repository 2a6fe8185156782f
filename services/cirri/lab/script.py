"""The steps of the demo: commands, what they should show, and how to see it in their output.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from cirri.lab import seen

DEATHSTAR = "deathstar.default.svc.cluster.local"
HANG_S = 3
EXAMPLES = "deploy/examples"
APP = f"{EXAMPLES}/http-sw-app.yaml"
POLICY = f"{EXAMPLES}/sw_l3_l4_policy.yaml"
LANDED = "Ship landed, exit code 0"
HANGS = f"no answer for {HANG_S} s, exit code 28"
"""28 is curl's code for an operation that timed out."""
EXPLODED = "Panic: deathstar exploded, exit code 0"
DENIED = "Access denied, exit code 0"
OUTSIDE4, OUTSIDE6 = "192.168.3.200", "[fd00:192:168:3::200]"
"""The first addresses of the pool in deploy/examples/lb-l2.yaml."""
ROUTED4, ROUTED6 = "198.51.100.200", "[2001:db8:51::200]"
"""The Service's addresses in deploy/examples/lb-bgp.yaml."""
TOLD = "the router was told the way"
OK, FOUND = "HTTP/2 200", "HTTP/2 302"


class Ran(NamedTuple):
    """What a command did."""

    code: int
    output: str


class Step(NamedTuple):
    """One command of the demo."""

    command: str
    """As a user types it."""
    expected: str
    see: Callable[[Ran], str]
    """What the command showed, in the words of *expected* if all is well."""
    quiet: bool = False
    """Whether its whole output is too long to show."""


class Act(NamedTuple):
    """Steps that show one thing."""

    title: str
    steps: tuple[Step, ...]


def see_up(ran: Ran) -> str:
    """Whether the lab became ready."""
    return "the lab is ready" if ran.code == 0 and " is ready after " in ran.output else _failed(ran)


def see_actions(ran: Ran) -> str:
    """How many objects were created, deleted, ..."""
    if ran.code:
        return _failed(ran)
    words = [line.split()[-1] for line in ran.output.splitlines() if line.strip()]
    return ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(words))


def see_answer(ran: Ran) -> str:
    """The first line of what a ship was answered."""
    if ran.code == 28 and not ran.output.strip():
        return HANGS
    return f"{_first_line(ran) or 'no answer'}, exit code {ran.code}"


def see_head(ran: Ran) -> str:
    """Protocol and status of what a web site answered."""
    return _first_line(ran) if ran.code == 0 and ran.output.strip() else see_answer(ran)


def _first_line(ran: Ran) -> str:
    return ran.output.strip().partition("\n")[0].strip()


def see_pods(ran: Ran) -> str:
    """How many pods run."""
    rows = ran.output.splitlines()[1:]
    running = [row for row in rows if "Running" in row.split() and "1/1" in row.split()]
    return f"{len(running)} of {len(rows)} pods running" if ran.code == 0 else _failed(ran)


def see_enforcement(ran: Ran) -> str:
    """(ingress, egress) enforcement of the Death Star's endpoints, and of all others."""
    if ran.code:
        return _failed(ran)
    blocks = re.split(r"\n(?=\d)", ran.output)[1:]
    own = {_enforcement(b) for b in blocks if "k8s:class=deathstar" in b}
    others = {_enforcement(b) for b in blocks if "k8s:class=deathstar" not in b}
    ready = sum(block.splitlines()[0].rstrip().endswith("ready") for block in blocks)
    return f"deathstar {_either(own)}, others {_either(others)}; {ready} of {len(blocks)} endpoints ready"


def _enforcement(block: str) -> str:
    return "/".join(block.split()[1:3])


def _either(states: set[str]) -> str:
    return " or ".join(sorted(states)) or "absent"


def see_denials(ran: Ran) -> str:
    """Whether the kernel counted packets that policy dropped."""
    if ran.code:
        return _failed(ran)
    counts = [
        int(n)
        for row in ran.output.splitlines()
        if "Policy denied" in row
        for n in re.findall(r"\b\d+\b", row)
    ]
    return "packets dropped: Policy denied" if any(counts) else "no packet dropped by policy"


def see_rule(ran: Ran) -> str:
    """Whether the kernel holds an entry for port 80."""
    if ran.code:
        return _failed(ran)
    found = any(re.search(r"\b80\b", row) and "TCP" in row for row in ran.output.splitlines())
    return "entries that allow 80/TCP" if found else "no entry for 80/TCP"


def see_requests(ran: Ran) -> str:
    """What was asked of the Death Star, and answered."""
    return seen.requests(ran.output) if ran.code == 0 else _failed(ran)


def see_observers(ran: Ran) -> str:
    """How many nodes can be asked for their flows."""
    rows = [row.split() for row in ran.output.splitlines()[1:]]
    connected = [row for row in rows if row[1:2] == ["Connected"]]
    return f"{len(connected)} of {len(rows)} nodes tell flows" if ran.code == 0 else _failed(ran)


def see_drops(ran: Ran) -> str:
    """What the Death Star was not given."""
    return seen.drops(ran.output) if ran.code == 0 else _failed(ran)


def see_held(ran: Ran) -> str:
    """How many announced addresses are held by a node."""
    if ran.code:
        return _failed(ran)
    rows = [row.split() for row in ran.output.splitlines()[1:]]
    held = [row for row in rows if row[2:3] and row[2].startswith("node")]
    return f"{len(held)} of {len(rows)} addresses are held by a node"


def see_sessions(ran: Ran) -> str:
    """Whether a node has told the router something; that the others have it by now is nobody's promise."""
    if ran.code:
        return _failed(ran)
    rows = [row.split() for row in ran.output.splitlines()[1:]]
    told = any(row[4:5] == ["established"] and row[-1] != "0" for row in rows)
    return TOLD if told else "the router was told nothing"


def _failed(ran: Ran) -> str:
    lines = ran.output.strip().splitlines()
    return f"exit code {ran.code}" + (f": {lines[-1]}" if lines else "")


class Asks(NamedTuple):
    """How pods ask: the options that are the same for all of them."""

    options: str

    def ship(self, name: str, what: str, expected: str) -> Step:
        """A ship asks the Death Star: *what* is method and path."""
        method, path = what.split()
        curl = f"curl -s{self._options(expected)} -X{method} {DEATHSTAR}{path}"
        return Step(f"cirri lab exec {name} -- {curl}", expected, see_answer)

    def landing(self, name: str, expected: str) -> Step:
        """A ship asks whether it may land."""
        return self.ship(name, "POST /v1/request-landing", expected)

    def mediabot(self, url: str, expected: str) -> Step:
        """mediabot asks a site of the internet."""
        curl = f"curl -I -s{self._options(expected)} {url}"
        return Step(f"cirri lab exec mediabot -- {curl}", expected, see_head)

    def outsider(self, expected: str) -> Step:
        """Somebody outside the cluster asks at the Death Star's address on the network."""
        return self._outsider(OUTSIDE4, OUTSIDE6, "--max-time 10", expected)

    def far_outsider(self, expected: str) -> Step:
        """The same at the address that the router knows, as soon as it does."""
        return self._outsider(ROUTED4, ROUTED6, "--retry 20 --retry-delay 1 --retry-all-errors", expected)

    def _outsider(self, ipv4: str, ipv6: str, how: str, expected: str) -> Step:
        address = ipv6 if self.options.strip() == "-6" else ipv4
        curl = f"curl -s{self.options} {how} -XPOST http://{address}/v1/request-landing"
        return Step(f"cirri lab exec --host client -- {curl}", expected, see_answer)

    def _options(self, expected: str) -> str:
        return self.options + (f" --max-time {HANG_S}" if expected == HANGS else "")


def acts(nodes: int, routing: str | None = None, family: str | None = None) -> tuple[Act, ...]:
    """The demo, in order.  *family*: "4" or "6", over which pods ask; None: as their program likes."""
    asks = Asks(f" -{family}" if family else "")
    return (
        *_by_labels(nodes, routing, asks),
        *_by_service(asks),
        *_by_request(nodes, asks),
        *_by_name(asks),
        *_by_address(asks),
    )


def _apply(file: str, expected: str = "1 created") -> Step:
    return Step(f"cirri apply -f {file} --wait", expected, see_actions)


def _delete(*names: str) -> Step:
    return Step(f"cirri delete cnp {' '.join(names)} --wait", f"{len(names)} deleted", see_actions)


def _by_labels(nodes: int, routing: str | None, asks: Asks) -> tuple[Act, ...]:
    up = f"cirri lab up --nodes {nodes}" + (f" --routing {routing}" if routing else "")
    open_, closed = (
        f"deathstar {state}, others Disabled/Disabled; 5 of 5 endpoints ready"
        for state in ("Disabled/Disabled", "Enabled/Disabled")
    )
    return (
        Act(
            f"A cluster of {nodes} nodes on this machine",
            (Step(up, "the lab is ready", see_up),),
        ),
        Act(
            "The Death Star (two replicas behind a Service) and two ships",
            (
                _apply(APP, "4 created"),
                Step("cirri get pods", "4 of 4 pods running", see_pods),
                Step("cirri endpoint list", open_, see_enforcement),
            ),
        ),
        Act(
            "Without a policy, both ships land",
            (asks.landing("xwing", LANDED), asks.landing("tiefighter", LANDED)),
        ),
        Act(
            "A policy on labels: only ships of the empire, only 80/TCP",
            (
                _apply(POLICY),
                asks.landing("tiefighter", LANDED),
                asks.landing("xwing", HANGS),
                Step("cirri endpoint list", closed, see_enforcement, quiet=True),
            ),
        ),
        Act(
            "The same, in the kernel",
            (
                Step("cirri bpf policy list", "entries that allow 80/TCP", see_rule, quiet=True),
                Step("cirri bpf metrics list", "packets dropped: Policy denied", see_denials),
            ),
        ),
        Act(
            "The policy is deleted, and the xwing lands again",
            (
                _delete("rule1"),
                asks.landing("xwing", LANDED),
                Step("cirri endpoint list", open_, see_enforcement, quiet=True),
            ),
        ),
    )


def _by_service(asks: Asks) -> tuple[Act, ...]:
    return (
        Act(
            "The same from the other end, by Service: where ships may go, and where they may not",
            (
                _apply(f"{EXAMPLES}/sw_l3_l4_policy_service.yaml", "2 created"),
                asks.landing("tiefighter", LANDED),
                asks.landing("xwing", HANGS),
                _delete("rule1", "rule2"),
            ),
        ),
    )


def _by_request(nodes: int, asks: Asks) -> tuple[Act, ...]:
    exhaust = "PUT /v1/exhaust-port"
    return (
        Act(
            "Who may land may also put something into the exhaust port",
            (asks.ship("tiefighter", exhaust, EXPLODED),),
        ),
        Act(
            "A policy on requests: ships of the empire may POST /v1/request-landing, and no more",
            (
                _apply(f"{EXAMPLES}/sw_l3_l4_l7_policy.yaml"),
                asks.landing("tiefighter", LANDED),
                asks.ship("tiefighter", exhaust, DENIED),
                asks.landing("xwing", HANGS),
            ),
        ),
        Act(
            "What the network saw of it: requests and answers, and what was dropped",
            (
                Step("cirri observe --pod deathstar --protocol http", seen.REQUESTS, see_requests),
                Step("cirri observe --pod deathstar --verdict DROPPED", seen.DROPS, see_drops),
                Step("cirri list nodes", f"{nodes} of {nodes} nodes tell flows", see_observers),
            ),
        ),
    )


def _by_name(asks: Asks) -> tuple[Act, ...]:
    api, support, github = (f"https://{n}github.com" for n in ("api.", "support.", ""))
    return (
        Act(
            "mediabot, which looks after repositories on the internet",
            (_apply(f"{EXAMPLES}/dns-sw-app.yaml"), asks.mediabot(support, FOUND)),
        ),
        Act(
            "A policy on a name: api.github.com, and nothing else",
            (
                _apply(f"{EXAMPLES}/dns-matchname.yaml"),
                asks.mediabot(api, OK),
                asks.mediabot(support, HANGS),
            ),
        ),
        Act(
            "A pattern: *.github.com, which github.com is not",
            (
                _apply(f"{EXAMPLES}/dns-pattern.yaml", "1 configured"),
                asks.mediabot(api, OK),
                asks.mediabot(support, FOUND),
                asks.mediabot(github, HANGS),
            ),
        ),
        Act(
            "Names and a port: all of github.com, but only 443/TCP",
            (
                _apply(f"{EXAMPLES}/dns-port.yaml", "1 configured"),
                asks.mediabot(api, OK),
                asks.mediabot(support, FOUND),
                asks.mediabot(github, OK),
                asks.mediabot("http://support.github.com", HANGS),
            ),
        ),
    )


def _by_address(asks: Asks) -> tuple[Act, ...]:
    return (
        Act(
            "An address on the network: out of a pool, and one node answers for it",
            (
                _delete("rule1"),
                _apply(f"{EXAMPLES}/lb-l2.yaml", "2 created, 1 configured"),
                asks.outsider(LANDED),
                Step("cirri l2 list", "2 of 2 addresses are held by a node", see_held),
            ),
        ),
        Act(
            "An address of no network: nodes tell the router, over BGP, the way to it",
            (
                _apply(f"{EXAMPLES}/lb-bgp.yaml", "5 created"),
                asks.far_outsider(LANDED),
                Step("cirri bgp peers", TOLD, see_sessions),
            ),
        ),
    )
