"""Policies that wait for a person, and updates that are refused: on the real service."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

GUARD = """apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: guard}
spec:
  endpointSelector: {}
  ingress: [{toPorts: [{ports: [{port: "%s", protocol: TCP}]}]}]
"""


@pytest.fixture
def guard(served: Any, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Writes policy ``guard`` for a port to a file; the object is gone afterwards."""
    file = tmp_path / "guard.yaml"

    def write(port: str) -> str:
        file.write_text(GUARD % port)
        return str(file)

    yield write
    served.ok("delete", "cnp", "guard", "--ignore-not-found")


def test_a_provisional_policy_says_what_to_do_and_is_confirmed(
    served: Any, guard: Callable[[str], str]
) -> None:
    assert served.run("confirm").stdout == "Nothing is provisional.\n"
    done = served.run("apply", "-f", guard("80"), "--confirm-within", "600")
    assert (done.exit_code, done.stdout) == (0, "ciliumnetworkpolicy.cilium.io/guard created\n")
    first, second = done.stderr.splitlines()
    assert re.fullmatch(
        r"Provisional: default/guard is deleted again at 20\S+Z \(in (600|601|599)s\)\.", first
    )
    assert second == (
        "Try whether everything still works, then keep it: "
        f"cirri --context {served.name} confirm default/guard"
    )
    (waiting,) = json.loads(served.ok("confirm", "-o", "json"))
    warned = "Warnings:      CiliumNetworkPolicy default/guard is undone at"
    assert warned in served.run("status").stdout
    assert waiting["confirmBy"] in first
    lines = served.ok("confirm").splitlines()
    assert lines[0].split() == ["NAME", "NAMESPACE", "UNDONE", "AT", "IN"]
    assert lines[1].split()[:3] == [
        "ciliumnetworkpolicy.cilium.io/guard",
        "default",
        waiting["confirmBy"],
    ]

    assert served.ok("confirm", "default/guard") == "ciliumnetworkpolicy.cilium.io/guard confirmed\n"

    assert served.run("confirm").stdout == "Nothing is provisional.\n"
    assert served.ok("apply", "-f", guard("80")) == "ciliumnetworkpolicy.cilium.io/guard unchanged\n"


def test_a_provisional_policy_is_rolled_back(served: Any, guard: Callable[[str], str]) -> None:
    served.ok("apply", "-f", guard("80"))
    done = served.run("apply", "-f", guard("81"), "--confirm-within", "600")
    assert "Provisional: default/guard goes back to its last confirmed version at " in done.stderr

    assert served.ok("rollback", "--all") == (
        "ciliumnetworkpolicy.cilium.io/guard rolled back to its last confirmed version\n"
    )

    found = json.loads(served.ok("get", "cnp", "guard", "-o", "json"))
    assert found["spec"]["ingress"][0]["toPorts"][0]["ports"][0]["port"] == "80"
    assert served.ok("rollback", "--all") == "Nothing is provisional.\n"
    served.ok("delete", "cnp", "guard")
    served.ok("apply", "-f", guard("80"), "--confirm-within", "600")
    assert served.ok("rollback", "ciliumnetworkpolicy/guard") == (
        "ciliumnetworkpolicy.cilium.io/guard deleted: it had no confirmed version\n"
    )


CONFIRMATIONS = [
    (("confirm", "ywing"), 1, "confirmed, or undone because nobody did in time. "),
    (("rollback", "ywing"), 1, "Provisional now: nothing"),
    (("rollback",), 2, "which one? Give its NAME or --all"),
    (("confirm", "x", "--all"), 2, "give either NAME or --all"),
    (("apply", "-f", "-", "--confirm-within", "9", "--no-confirm"), 2, "either --confirm-within or --no"),
    (("apply", "-f", "-", "--confirm-within", "0"), 2, "0 is not in the range 1<=x<=86400"),
    (("apply", "-f", "-", "--confirm-within", "9"), 2, "none of these objects is a policy"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"), CONFIRMATIONS, ids=[" ".join(c[0]) for c in CONFIRMATIONS]
)
def test_confirmations_that_make_no_sense(
    served: Any, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = served.run(*arguments, stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


REFUSED = [
    (GUARD % "70000", "spec.ingress[0].toPorts[0].ports[0].port"),  # the command line sees it
    (
        GUARD % "81" + "---\n" + GUARD.replace("guard}", "guard, namespace: x}") % "81",
        'namespace "x" does not exist',  # only the service knows
    ),
]


@pytest.mark.parametrize(("manifests", "says"), REFUSED, ids=["the command line", "the service"])
def test_an_update_that_is_refused_leaves_the_earlier_version_and_says_so(
    served: Any, guard: Callable[[str], str], manifests: str, says: str
) -> None:
    file = guard("80")
    served.ok("apply", "-f", file)
    before = served.ok("get", "cnp", "guard", "-o", "json")
    revision = json.loads(served.ok("apply", "-f", file, "-o", "json"))["revision"]
    Path(file).write_text(manifests)

    result = served.run("apply", "-f", file)

    assert result.exit_code == 1
    assert says in result.stderr
    kept = f"The earlier version stays in force: CiliumNetworkPolicy default/guard (revision {revision})"
    assert result.stderr.splitlines()[-1] == kept
    assert served.ok("get", "cnp", "guard", "-o", "json") == before
