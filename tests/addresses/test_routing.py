"""The routing mode as the configuration states it."""

import pytest

from cirri.addresses import InvalidRouting, Routing


@pytest.mark.parametrize(
    ("data", "port"),
    [
        ({}, 0),
        ({"routing-mode": "native", "tunnel-port": "4789"}, 0),
        ({"routing-mode": "tunnel"}, 8472),
        ({"routing-mode": "tunnel", "tunnel-protocol": "vxlan", "tunnel-port": "4789"}, 4789),
    ],
)
def test_a_port_stands_for_tunnels(data: dict[str, str], port: int) -> None:
    assert Routing.of(data) == Routing(port)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("routing-mode", "Tunnel"),
        ("tunnel-protocol", "geneve"),
        ("tunnel-port", "0"),
        ("tunnel-port", "65536"),
        ("tunnel-port", "vxlan"),
        ("tunnel-port", "\u0663"),
    ],
)
def test_what_cannot_be_is_refused_also_while_it_is_not_used(key: str, value: str) -> None:
    with pytest.raises(InvalidRouting, match=f"cirri-config: {key}: "):
        Routing.of({key: value})
