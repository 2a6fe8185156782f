"""L7 rules of a Cilium rule: HTTP, DNS, Kafka and generic parsers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cirri.manifests.problems import Path, listed
from cirri.manifests.schema import TEXT, Fault, Fields, Items, MapOf, Spec, Text
from cirri.manifests.schemas.cilium_l3 import DNS_NAME
from cirri.manifests.words import LABEL_NAME, SUBDOMAIN_NAME


def _regex(text: str) -> str:
    """V77."""
    from cirri.engine.regex import complaint  # late: few manifests have any

    wrong = complaint(text)
    return f'"{text}" is not a regular expression of RE2: {wrong}' if wrong else ""


_REGEX = Text(test=_regex)


def _header(text: str) -> str:
    """``Name``, ``Name value`` or ``Name: value``; without a blank the latter can never match."""
    if not text:
        return "must not be empty"
    name, blank, _ = text.partition(" ")
    if not blank and ":" in name.rstrip(":"):
        return f'"{text}" has no blank after the colon; write "{name.replace(":", ": ", 1)}"'
    return ""


_HEADER_MATCH = Fields(
    {
        "name": Text(low=1),
        "value": TEXT,
        "secret": Fields({"namespace": LABEL_NAME, "name": SUBDOMAIN_NAME}, required=("name",)),
        "mismatch": Text(choices=("LOG", "ADD", "DELETE", "REPLACE")),
    },
    required=("name",),
)
_HTTP = Fields(
    {
        "path": _REGEX,
        "method": _REGEX,
        "host": _REGEX,
        "headers": Items(Text(test=_header)),
        "headerMatches": Items(_HEADER_MATCH),
    }
)

_API_KEYS = tuple(
    re.findall(
        r"\w+",
        """produce fetch offsets metadata leaderandisr stopreplica updatemetadata controlledshutdown
        offsetcommit offsetfetch findcoordinator joingroup heartbeat leavegroup syncgroup
        describegroups listgroups saslhandshake apiversions createtopics deletetopics deleterecords
        initproducerid offsetforleaderepoch addpartitionstotxn addoffsetstotxn endtxn
        writetxnmarkers txnoffsetcommit describeacls createacls deleteacls describeconfigs
        alterconfigs""",
    )
)


def _api_key(text: str) -> str:
    return (
        "" if text.lower() in _API_KEYS else f'"{text}" is not a Kafka API key; allowed: {listed(_API_KEYS)}'
    )


def _kafka_role(entry: Mapping[str, Any]) -> Iterator[Fault]:
    if "role" in entry and "apiKey" in entry:
        yield ("apiKey",), "cannot be combined with role, which stands for a set of API keys"


_KAFKA = Fields(
    {
        "role": Text(choices=("produce", "consume")),
        "apiKey": Text(test=_api_key),
        "apiVersion": Text(re.compile("[0-9]+"), "a number in quotes"),
        "clientID": TEXT,
        "topic": Text(re.compile(r"[A-Za-z0-9._-]+"), 'letters, digits, ".", "_" and "-"', high=255),
    },
    rules=(_kafka_role,),
)

_KINDS: dict[str, Spec] = {
    "http": Items(_HTTP),
    "kafka": Items(_KAFKA),
    "l7proto": Text(low=1),
    "l7": Items(MapOf(TEXT, lambda key: "" if key else "a key must not be empty")),
}


def _one_kind(rules: Mapping[str, Any]) -> Iterator[Fault]:
    """V70, V71, V79: one parser."""
    kinds = [kind for kind in ("http", "dns", "kafka", "l7proto") if kind in rules]
    if "l7" in rules and "l7proto" not in rules:
        yield ("l7",), "needs l7proto, the name of the parser"
    elif not kinds:
        yield (), "has no kind; exactly one of http, dns, kafka, l7proto is needed"
    elif len(kinds) > 1:
        yield (kinds[1],), f"cannot be combined with {kinds[0]}; write two port rules"


INGRESS_RULES = Fields(
    _KINDS,
    rules=(_one_kind,),
    absent={"dns": "DNS is observed where queries leave: rules.dns is supported in egress only"},
)
EGRESS_RULES = Fields({**_KINDS, "dns": Items(DNS_NAME)}, rules=(_one_kind,))


def l7_faults(port_rule: Mapping[str, Any]) -> Iterator[Fault]:
    """V45-V47, V72, V73: an L7 parser needs concrete ports of the right protocol."""
    rules = port_rule.get("rules", {})
    kind = next((k for k in ("http", "kafka", "l7proto", "dns") if rules.get(k)), None)
    if kind is None:
        return
    ports = port_rule.get("ports", [])
    if not ports:
        yield ("rules", kind), "needs at least one port in ports"
    for i, port in enumerate(ports):
        where: Path = ("ports", i)
        protocol = port.get("protocol", "ANY")
        if port["port"] == "0":
            yield (
                (*where, "port"),
                f'"0" (all ports) is not allowed with rules.{kind}: it needs a concrete port',
            )
        if kind != "dns" and protocol != "TCP":
            given = f'"{protocol}"' if "protocol" in port else "none (any)"
            yield (*where, "protocol"), f"must be TCP with rules.{kind}, not {given}"
        if kind == "dns" and protocol == "SCTP":
            yield (*where, "protocol"), "must be UDP, TCP or ANY with rules.dns"
        if kind == "dns" and port["port"].isdigit() and port.get("endPort", 0) > int(port["port"]):
            yield (*where, "endPort"), "ranges are not supported with rules.dns"
