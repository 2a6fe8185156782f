"""The tests that there are, and how ``--test`` chooses among them."""

import pytest

from cirri.cli.connectivity.catalogue import HERE, BadPattern, Case, Check, cases, select


def test_there_are_enough_and_each_has_its_own_name() -> None:
    names = [each.test for each in cases()]

    assert len(set(names)) == len(names)
    assert len(names) >= 100
    assert len([each for each in cases() if each.variant is None]) >= 60


def test_every_policy_file_is_used_and_there() -> None:
    used = {name for each in cases() for name in each.policies}

    assert used == {path.stem for path in (HERE / "policies").glob("*.yaml")}


def test_every_case_with_a_policy_that_isolates_denies_something() -> None:
    """A test in which all may do all would pass without any policy."""
    harmless = {"allow-all", "enable-default-deny"}
    toothless = [
        each.test
        for each in cases()
        if each.policies and each.variant is None and all(check.expect == "allow" for check in each.checks)
    ]

    assert set(toothless) == harmless


def check(scenario: str) -> Check:
    return Check(scenario=scenario, sources=("a",), to=("b",))


KNOWN = (
    Case(test="echo-ingress", checks=(check("pod-to-pod"), check("pod-to-service"))),
    Case(test="echo-ingress-l7", checks=(check("pod-to-pod"),)),
    Case(test="client-ingress", checks=(check("client-to-client"),)),
)


ALL = [
    "echo-ingress/pod-to-pod,pod-to-service",
    "echo-ingress-l7/pod-to-pod",
    "client-ingress/client-to-client",
]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((), ALL),
        (("^echo-ingress$",), ["echo-ingress/pod-to-pod,pod-to-service"]),
        (("^echo",), ["echo-ingress/pod-to-pod,pod-to-service", "echo-ingress-l7/pod-to-pod"]),
        (("^echo", "!l7"), ["echo-ingress/pod-to-pod,pod-to-service"]),
        (("!l7",), ["echo-ingress/pod-to-pod,pod-to-service", "client-ingress/client-to-client"]),
        (("!l7", "l7"), []),
        (("/pod-to-service",), ["echo-ingress/pod-to-service"]),
        (("!/pod-to-pod",), ["echo-ingress/pod-to-service", "client-ingress/client-to-client"]),
        (("client", "l7"), ["echo-ingress-l7/pod-to-pod", "client-ingress/client-to-client"]),
        (("nothing",), []),
    ],
    ids=str,
)
def test_what_patterns_name(patterns: tuple[str, ...], expected: list[str]) -> None:
    found = select(KNOWN, patterns)

    assert [f"{each.test}/{','.join(each.scenarios)}" for each in found] == expected


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(BadPattern, match=r'--test "\(": '):
        select(KNOWN, ["("])
