"""Sizes of maps and the time between sweeps, as the configuration has them."""

import pytest

from cirri.layout import MAPS
from cirri.layout.limits import DEFAULTS, InvalidLimits, Limits, complaint

MANY = {"bpf-lb-map-max": "4096", "bpf-ct-global-tcp-max": "2048", "bpf-nat-global-max": "1024"}


def test_without_configuration_maps_are_as_c_declares_them() -> None:
    assert Limits.of({}) == Limits.of(DEFAULTS) == Limits()
    assert Limits().entries == {name: MAPS[name].max_entries for name in Limits().entries}


def test_sizes() -> None:
    """The map of connections holds those of TCP and the others."""
    assert Limits.of(MANY | {"bpf-ct-global-any-max": "1024"}).entries == {
        "cirri_lb_services": 4096,
        "cirri_lb_frontends": 4096,
        "cirri_lb_ranges": 4096,
        "cirri_lb_backends": 16384,
        "cirri_lb_alive": 16384,
        "cirri_ct": 3072,
        "cirri_nat": 1024,
    }


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 30), ("0s", 30), ("5s", 5), ("1m30s", 90), ("1500ms", 1.5), ("1h", 3600)]
)
def test_sweeps(text: str, seconds: float) -> None:
    assert Limits.of({"conntrack-gc-interval": text}).sweep_s == seconds


WRONG = [
    ("bpf-lb-map-max", "1023", "a number from 1024 to 16777216"),
    ("bpf-ct-global-any-max", "many", "a number from 1024 to 16777216"),
    ("bpf-nat-global-max", "16777217", "a number from 1024 to 16777216"),
    ("conntrack-gc-interval", "30", "a duration"),
    ("conntrack-gc-interval", "100ms", "a duration of a second or more"),
    ("conntrack-gc-interval", "s", "a duration"),
]


@pytest.mark.parametrize(("key", "text", "allowed"), WRONG)
def test_what_is_not_allowed(key: str, text: str, allowed: str) -> None:
    with pytest.raises(InvalidLimits, match=allowed) as caught:
        Limits.of({key: text})
    assert str(caught.value).startswith(f"cirri-config: {key}: ")
    assert allowed in complaint(key)(text)
    assert not complaint(key)(DEFAULTS[key])
