"""Masquerading as the configuration states it."""

from ipaddress import ip_network

import pytest

from cirri.addresses import InvalidMasquerading, Masquerading
from cirri.addresses.masquerading import complaint

TEN, LONG = ip_network("10.0.0.0/8"), ip_network("fd00::/8")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({}, Masquerading()),
        ({"enable-ipv4-masquerade": "false"}, Masquerading(ipv4=False)),
        ({"enable-ipv6-masquerade": "false"}, Masquerading(ipv6=False)),
        (
            {"ipv4-native-routing-cidr": "10.0.0.0/8", "ipv6-native-routing-cidr": "fd00::/8"},
            Masquerading(native=(TEN, LONG)),
        ),
        ({"non-masquerade-cidrs": "10.0.0.0/8, fd00::/8"}, Masquerading(exempt=(TEN, LONG))),
        ({"non-masquerade-cidrs": "10.0.0.0/8 fd00::/8"}, Masquerading(exempt=(TEN, LONG))),
    ],
)
def test_what_it_means(data: dict[str, str], wanted: Masquerading) -> None:
    assert Masquerading.of(data) == wanted


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("enable-ipv4-masquerade", "yes", '"yes" is not allowed; allowed: "true" and "false"'),
        ("ipv4-native-routing-cidr", "fd00::/8", '"fd00::/8" is not an IPv4 prefix'),
        ("ipv6-native-routing-cidr", "10.0.0.0/8", '"10.0.0.0/8" is not an IPv6 prefix'),
        ("ipv4-native-routing-cidr", "10.0.0.0", '"10.0.0.0" has no prefix length'),
        ("non-masquerade-cidrs", "10.0.0.0/8,here", '"here" is not a prefix'),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(key: str, value: str, says: str) -> None:
    assert says in complaint(key)(value)
    with pytest.raises(InvalidMasquerading, match=f"cirri-config: {key}: "):
        Masquerading.of({key: value})
