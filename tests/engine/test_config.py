"""The switches of ConfigMap cirri-config; what is checked when it is applied is what is understood."""

import pytest

from cirri.engine import EngineConfig, InvalidConfig
from cirri.engine.config import SWITCHES
from cirri.manifests.config import KEYS


def test_nothing_said() -> None:
    assert EngineConfig.of({}) == EngineConfig()


@pytest.mark.parametrize(("key", "field"), SWITCHES.items(), ids=list(SWITCHES))
def test_switch(key: str, field: str) -> None:
    assert getattr(EngineConfig.of({key: "true"}), field) is True
    assert getattr(EngineConfig.of({key: "false"}), field) is False
    assert getattr(EngineConfig(), field) is (KEYS[key].default == "true")
    with pytest.raises(InvalidConfig, match=f"cirri-config: {key}: 'yes' is not one of true, false"):
        EngineConfig.of({key: "yes"})
    assert KEYS[key].complaint("yes")


def test_nodes_by_address() -> None:
    assert EngineConfig.of({"policy-cidr-match-mode": "nodes"}).nodes_by_cidr
    assert not EngineConfig.of({"policy-cidr-match-mode": ""}).nodes_by_cidr
    with pytest.raises(InvalidConfig, match="'pods' is not one of nodes"):
        EngineConfig.of({"policy-cidr-match-mode": "pods"})
    assert KEYS["policy-cidr-match-mode"].complaint("pods")
