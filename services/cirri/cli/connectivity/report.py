"""How a run is told: lines while it goes, the field's summary, JUnit and JSON.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

from cirri.cli.connectivity.actions import Action


@dataclass(frozen=True, slots=True)
class Failure:
    """One action that came out otherwise."""

    name: str
    line: str
    """``SOURCE (ADDRESS) -> TARGET``."""
    why: str
    flows: str = ""
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one test."""

    test: str
    actions: int = 0
    failures: tuple[Failure, ...] = ()
    skipped: str = ""
    """Why it was; "": it ran."""
    took_s: float = 0.0

    def after(self, seconds: float) -> Outcome:
        """The same, which took that long."""
        return replace(self, took_s=seconds)


def action_line(action: Action) -> str:
    """``cirri-test/client (10.52.0.5) -> cirri-test/echo-same-node (10.52.0.6:8080)``."""
    source = action.source
    family = next((a for a in source.addresses if (":" in a) == (":" in action.address)), "")
    return f"{source.says} ({family}) -> {action.target}"


def progress(outcome: Outcome) -> str:
    """A dot for each action that was right, and everything about those that were not; "" if skipped."""
    if outcome.skipped:
        return ""
    lines = ["." * (outcome.actions - len(outcome.failures)) + "❌" * len(outcome.failures)]
    for failure in outcome.failures:
        lines.append(f"  [.] Action [{failure.name}: {failure.line}]")
        lines.append(f"  ❌ {failure.why}")
        if failure.command:
            lines.append(f"  ℹ  command: {' '.join(failure.command)}")
        lines += [f"     {line}" for line in failure.flows.splitlines()]
    return "\n".join(lines)


def summary(namespace: str, outcomes: Sequence[Outcome]) -> str:
    """The last lines, as the field's."""
    ran = [each for each in outcomes if not each.skipped]
    bad = [each for each in ran if each.failures]
    skipped = len(outcomes) - len(ran)
    total = sum(each.actions for each in ran)
    if not bad:
        counted = f"All {len(ran)} tests ({total} actions) successful"
        return f"✅ [{namespace}] {counted}, {skipped} tests skipped, 0 scenarios skipped."
    wrong = sum(len(each.failures) for each in bad)
    lines = [
        f"📋 Test Report [{namespace}]",
        f"❌ {len(bad)}/{len(ran)} tests failed ({wrong}/{total} actions), {skipped} tests skipped, "
        "0 scenarios skipped:",
    ]
    for each in bad:
        lines.append(f"Test [{each.test}]:")
        lines += [f"  🟥 {failure.name}: {failure.line}: {failure.why}" for failure in each.failures]
    return "\n".join([*lines, f"[{namespace}] {len(bad)} tests failed"])


def as_data(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """For ``-o json``."""
    return [
        {
            "test": each.test,
            "result": "skipped" if each.skipped else "failed" if each.failures else "passed",
            "actions": each.actions,
            "seconds": round(each.took_s, 3),
            **({"reason": each.skipped} if each.skipped else {}),
            "failures": [
                {"action": f.name, "who": f.line, "why": f.why, "command": list(f.command), "flows": f.flows}
                for f in each.failures
            ],
        }
        for each in outcomes
    ]


def junit(name: str, outcomes: Sequence[Outcome], properties: Mapping[str, str], at: str) -> str:
    """A JUnit report: a case for each test.  *at*: when the run began."""
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(sum(bool(each.failures) for each in outcomes)),
        "errors": "0",
        "skipped": str(sum(bool(each.skipped) for each in outcomes)),
        "time": f"{sum(each.took_s for each in outcomes):.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, "timestamp": at, **counts})
    if properties:
        listed = ElementTree.SubElement(suite, "properties")
        for key, value in properties.items():
            ElementTree.SubElement(listed, "property", {"name": key, "value": value})
    for each in outcomes:
        about = {"name": each.test, "classname": name, "time": f"{each.took_s:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", about)
        if each.skipped:
            ElementTree.SubElement(case, "skipped", {"message": each.skipped})
        if each.failures:
            says = "; ".join(f"{failure.name}: {failure.why}" for failure in each.failures)
            failed = ElementTree.SubElement(case, "failure", {"type": "failure", "message": _printable(says)})
            failed.text = _printable(progress(each))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Without what XML 1.0 has no characters for."""
    return "".join(c for c in text if c in "\n\t" or c >= " ")
