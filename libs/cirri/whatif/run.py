"""Running suites: what becomes of every flow, beside what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from msgspec import Struct

from cirri.engine.l7 import DnsQuery, HttpRequest, Request, TlsHello
from cirri.engine.ports import PROTOCOL_NAMES
from cirri.errors import CirriError
from cirri.manifests import ManifestError, Problem
from cirri.manifests.problems import suggestion
from cirri.model import Resource
from cirri.whatif.ask import proxy_reason, reason, sides
from cirri.whatif.endpoints import party
from cirri.whatif.load import load
from cirri.whatif.party import Party, Setting
from cirri.whatif.port import Port
from cirri.whatif.services import NoBackend, NoService, addresses, backends, service_named
from cirri.whatif.suite import Case, Flow, Suite
from cirri.whatif.world import World

PASSES = {"direct", "redirect", "audited"}
DROPPED = {"default-deny", "deny-rule", "auth-required"}


class Result(Struct, frozen=True, kw_only=True, rename={"source": "from", "target": "to"}):
    """What became of one flow."""

    file: str
    suite: str
    case: str
    line: int
    source: str
    target: str
    port: int
    protocol: str
    request: str
    """What was asked over the connection, for people; empty: nothing."""
    expect: str
    got: str
    passed: bool
    reasons: list[str]
    """What each side says, with the rule that decided."""


class NoParty(CirriError):
    """No manifest makes the party that a case names."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f'nobody is called "{name}"{suggestion(name, known)}')


class Outcome(NamedTuple):
    """How a flow to one destination ends."""

    got: str
    reasons: list[str]


def run(suite: Suite) -> tuple[list[Result], list[str]]:
    """The result of every flow, and warnings.  Raises a CirriError if something cannot be asked."""

    def more(resources: list[Resource], setting: Setting) -> list[Party]:
        listed = [party(one, setting) for one in suite.endpoints]
        return [*listed, *_described(suite, resources, setting)]

    world, resources, warnings = load(suite.manifests, suite.config, more, suite.objects)
    problems: list[Problem] = []
    found: list[Result] = []
    for case in suite.cases:
        for flow in case.flows:
            try:
                found.append(_result(suite, case, flow, world, resources))
            except (NoService, NoBackend, NoParty) as error:
                problems.append(Problem(file=suite.file, line=case.line, message=str(error)))
    if problems:
        raise ManifestError(dict.fromkeys(problems))
    return found, warnings


def _result(suite: Suite, case: Case, flow: Flow, world: World, resources: list[Resource]) -> Result:
    source, request = _party(flow.source, world), _request(case.request)
    outcomes = [
        _outcome(world, source, target, port, request) for target, port in _targets(flow, world, resources)
    ]
    # A Service is as good as the worst of what it leads to.
    worst = next((one for one in outcomes if not matches(case.expect, one.got)), outcomes[0])
    return Result(
        file=suite.file,
        suite=suite.name,
        case=case.name,
        line=case.line,
        source=source.name,
        target=_name(flow.target),
        port=flow.port.number,
        protocol=PROTOCOL_NAMES[flow.port.protocol],
        request=_shown(case.request),
        expect=case.expect,
        got=worst.got,
        passed=matches(case.expect, worst.got),
        reasons=worst.reasons,
    )


def matches(expect: str, got: str) -> bool:
    """Whether an outcome is what a case expects: ``allow`` and ``deny`` stand for several."""
    return got in {"allow": PASSES, "deny": DROPPED}.get(expect, {expect})


def _outcome(world: World, source: Party, target: Party, port: Port, request: Request | None) -> Outcome:
    asked = sides(world, source, target, port)
    says = [f"{one.subject.name}: {reason(world, one)}" for one in asked]
    denied = [one for one in asked if not one.allowed]
    if denied:
        return Outcome(denied[0].verdict.cause, says)
    proxied = [one for one in asked if one.verdict.allowed and one.verdict.redirect]
    for one in proxied:
        if request is None:
            break
        answer = world.answer(one.subject, one.direction, one.peer, port, request)
        says.append(f"{one.subject.name}: {proxy_reason(world, one, answer)}")
        if not answer.allowed:
            return Outcome(answer.refusal.lower(), says)
    audited = any(one.audited for one in asked)
    return Outcome("audited" if audited else "redirect" if proxied else "direct", says)


def _request(said: Mapping[str, Any]) -> Request | None:
    """What a case asks over its connections."""
    if "dns" in said:
        return DnsQuery(said["dns"])
    if "sni" in said:
        return TlsHello(said["sni"])
    if "http" not in said:
        return None
    http = said["http"]
    return HttpRequest(http["method"], http["path"], http["host"], tuple(http["headers"].items()))


def _party(who: Any, world: World) -> Party:
    name = _name(who)
    if name not in world.parties:
        raise NoParty(name, world.parties)
    return world.parties[name]


def _targets(flow: Flow, world: World, resources: Sequence[Resource]) -> list[tuple[Party, Port]]:
    if isinstance(flow.target, str) or "service" not in flow.target:
        return [(_party(flow.target, world), flow.port)]
    service = service_named(flow.target["service"], resources)
    return backends(service, flow.port, list(world.parties.values()), resources)


def _described(suite: Suite, resources: Sequence[Resource], setting: Setting) -> Iterator[Party]:
    """The parties that the cases describe in place, and what stands behind Services without pods."""
    ends = [end for case in suite.cases for flow in case.flows for end in (flow.source, flow.target)]
    entries: dict[str, Mapping[str, Any]] = {}
    for end in ends:
        if isinstance(end, str):
            entries |= {end: {"labels": [end]}} if end.startswith("reserved:") else {}
        elif "service" not in end:
            entries[_name(end)] = end
        else:
            with suppress(NoService):
                found = addresses(service_named(end["service"], resources), resources)
                entries |= {address: {"ip": address} for address in found}
    listed = {one["name"] for one in suite.endpoints}
    for name, entry in entries.items():
        if name not in listed:
            yield party(entry, setting)._replace(name=name)


def _shown(said: Mapping[str, Any]) -> str:
    if http := said.get("http"):
        headers = [f"{name}: {value}" for name, value in http["headers"].items()]
        return " ".join([http["method"], f"{http['host']}{http['path']}", *headers])
    return " ".join(f"{kind} {value or 'none'}" for kind, value in said.items())


def _name(who: Any) -> str:
    """As reports call one end of a flow."""
    if isinstance(who, str):
        return who
    if "service" in who:
        return f"service {who['service']}"
    ports = [f"{name}={number}" for name, number in who.get("ports", {}).items()]
    return " ".join([*filter(None, [who.get("ip", "")]), *who.get("labels", ()), *ports])
