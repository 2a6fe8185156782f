import pytest

from cirri.labels import RESERVED_LABELS, Reserved, Space, probes, reserved_number

WEB = ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop")


def test_reserved_numbers_are_an_interface() -> None:
    expected = {
        1: {"reserved:host"},
        2: {"reserved:world"},
        3: {"reserved:unmanaged"},
        4: {"reserved:health"},
        5: {"reserved:init"},
        6: {"reserved:remote-node"},
        7: {"reserved:kube-apiserver", "reserved:remote-node"},
        8: {"reserved:ingress"},
        9: {"reserved:world-ipv4"},
        10: {"reserved:world-ipv6"},
    }
    assert {int(number): set(labels) for number, labels in RESERVED_LABELS.items()} == expected


@pytest.mark.parametrize(
    ("labels", "number"),
    [(["reserved:host"], Reserved.HOST), (["reserved:host", "k8s:a"], 0), (WEB, 0), ([], 0)],
)
def test_reserved_number(labels: list[str], number: int) -> None:
    assert reserved_number(labels) == number


def test_everyone_tries_the_same_numbers() -> None:
    assert list(probes(WEB)) == list(probes(reversed(WEB)))
    # Written down: another release must not move the numbers of a running cluster.
    assert list(probes(WEB))[:3] == [34270, 49208, 32919]


def test_ranges() -> None:
    numbers = list(probes(WEB))
    assert all(256 <= number <= 65535 for number in numbers[:8])
    assert all(0x1000_0000 <= number <= 0xFFFF_FFFF for number in numbers[8:])
    assert len(set(numbers)) == len(numbers)


def test_small_space() -> None:
    assert set(probes(WEB, Space(low=range(300, 302), high=range(1000, 1001)))) <= {300, 301, 1000}
