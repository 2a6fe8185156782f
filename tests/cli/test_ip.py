"""Which address has which identity, as the services say."""

from cirri.cli.ip import Owner, prefixes
from cirri.model import Identity

PREFIX, PREFIX6, NODE = (1 << 24) + 7, (1 << 24) + 8, (1 << 25) + 9


def test_a_prefix_that_a_policy_names_has_an_identity_of_its_own() -> None:
    found = prefixes(
        [
            Identity(id=PREFIX, labels=("cidr:192.168.0.0/16", "reserved:world-ipv4")),
            Identity(id=PREFIX6, labels=("cidr:fd00-7--0/32", "reserved:world-ipv6")),
            Identity(id=300, labels=("k8s:app=web",)),
            Identity(id=NODE, labels=("cidr:192.168.3.11/32", "reserved:remote-node")),
            Identity(id=PREFIX + 9, labels=()),
        ]
    )
    assert list(found) == [
        Owner("192.168.0.0/16", PREFIX, "", "prefix"),
        Owner("fd00:7::/32", PREFIX6, "", "prefix"),
    ]
