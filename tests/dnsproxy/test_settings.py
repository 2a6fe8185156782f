"""What the configuration says about names."""

import pytest

from cirri.model.names import DEFAULTS, InvalidNames, NameSettings, complaint, name_settings


def test_defaults_are_what_is_said_of_them() -> None:
    assert name_settings(DEFAULTS) == name_settings({}) == (NameSettings(), [])


def test_all() -> None:
    data = {
        "tofqdns-min-ttl": "3600",
        "tofqdns-endpoint-max-ip-per-hostname": "50",
        "tofqdns-max-deferred-connection-deletes": "0",
        "tofqdns-idle-connection-grace-period": "2m",
        "tofqdns-proxy-response-max-delay": "1s",
        "tofqdns-dns-reject-response-code": "nameError",
    }
    wanted = NameSettings(min_ttl_s=3600, per_name=50, zombies=0, grace_s=120, delay_s=1, refusal="nameError")
    assert name_settings(data) == (wanted, [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tofqdns-min-ttl", "1h"),
        ("tofqdns-min-ttl", "-1"),
        ("tofqdns-min-ttl", "٣"),
        ("tofqdns-endpoint-max-ip-per-hostname", "0"),
        ("tofqdns-proxy-response-max-delay", "100"),
        ("tofqdns-proxy-response-max-delay", "1.5s"),
        ("tofqdns-dns-reject-response-code", "NXDOMAIN"),
    ],
)
def test_what_is_wrong_is_said_and_its_default_holds(key: str, value: str) -> None:
    settings, (wrong,) = name_settings({key: value})
    assert settings == NameSettings()
    assert isinstance(wrong, InvalidNames)
    assert complaint(key)(value).startswith(f"{value!r} is not allowed; allowed: ")
    assert complaint(key)(DEFAULTS[key]) == ""
