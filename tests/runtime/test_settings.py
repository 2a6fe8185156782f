"""The environment is read once, and everything wrong with it is said at once."""

from pathlib import Path

import pytest

from cirri.runtime import Settings, SettingsInvalid


def test_defaults() -> None:
    settings = Settings.read({}, "policy")
    assert settings.node
    assert settings.instance == f"policy@{settings.node}"
    assert settings.nats_url == "nats://127.0.0.1:4222"
    assert settings.http == ("127.0.0.1", 0)
    assert settings.bpf_objects.parts[-2:] == ("bpf", "build")
    assert settings.cgroup is None


def test_everything_given() -> None:
    settings = Settings.read(
        {
            "CIRRI_NODE": "n1.example",
            "CIRRI_NATS_URL": "nats://10.0.0.1:4223",
            "CIRRI_NATS_USER": "datapath-n1",
            "CIRRI_NATS_PASSWORD": "secret",
            "CIRRI_STATE_DIR": "/s",
            "CIRRI_RUN_DIR": "/r",
            "CIRRI_BPFFS": "/b",
            "CIRRI_CGROUP": "/c",
            "CIRRI_HTTP": "[::1]:9000",
            "CIRRI_LOG_LEVEL": "DEBUG",
            "CIRRI_NODE_ADDRESSES": "10.0.0.1, fd00::1",
            "CIRRI_INSTANCE": "me",
            "UNRELATED": "x",
        },
        "datapath",
    )
    assert settings == Settings(
        node="n1.example",
        nats_url="nats://10.0.0.1:4223",
        nats_user="datapath-n1",
        nats_password="secret",
        state_dir=Path("/s"),
        run_dir=Path("/r"),
        bpffs=Path("/b"),
        cgroup=Path("/c"),
        http=("::1", 9000),
        log_level="debug",
        node_addresses=("10.0.0.1", "fd00::1"),
        instance="me",
    )
    assert settings.shard == "n1=2Eexample"


FAULTS = [
    ("CIRRI_HTTP", "80", "CIRRI_HTTP must be HOST:PORT, not '80'"),
    ("CIRRI_HTTP", "x:99999", "CIRRI_HTTP must be HOST:PORT, not 'x:99999'"),
    ("CIRRI_LOG_LEVEL", "loud", "CIRRI_LOG_LEVEL must be one of debug, info, warning, error, not 'loud'"),
    ("CIRRI_RUN_DIR", "run", "CIRRI_RUN_DIR must be an absolute path, not 'run'"),
    ("CIRRI_NODE_ADDRESSES", "10.0.0.1,x", "CIRRI_NODE_ADDRESSES holds 'x', which is no IP address"),
    ("CIRRI_NATS_URL", "http://x", "CIRRI_NATS_URL must start with nats:// or tls://, not 'http://x'"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), FAULTS, ids=lambda v: str(v)[:24])
def test_faults(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        Settings.read({name: value})
    assert caught.value.faults == (sentence,)


def test_all_faults_at_once() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        Settings.read({name: value for name, value, _ in FAULTS})
    assert len(caught.value.faults) == len({name for name, _, _ in FAULTS})


def test_empty_is_not_given() -> None:
    assert Settings.read({"CIRRI_HTTP": "", "CIRRI_NODE": ""}).http == ("127.0.0.1", 0)
