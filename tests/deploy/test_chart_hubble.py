"""The chart's certificates of Hubble: where the configuration says, for the names that are asked for."""

import base64
import subprocess
import time
from pathlib import Path
from typing import Any

import helm_python
import pytest

from cirri.hubble.node import server_name
from cirri.hubble.tls import TlsFiles, read
from cirri.model.observing import Tls, observing
from cirri.testing.rendering import Manifest, of, pods, render

RELAY_TLS = {"hubble": {"relay": {"tls": {"server": {"enabled": True}}}}}
OWN = {
    "hubble": {
        "tls": {"auto": {"enabled": False}, "server": {"existingSecret": "nodes"}},
        "relay": {"tls": {"client": {"existingSecret": "relay"}}},
    }
}


def settings(made: list[Manifest]) -> dict[str, Tls]:
    (config,) = of(made, "ConfigMap", "cirri-config")
    found, wrong = observing(config["data"])
    assert wrong == []
    return {"flows": found.tls, "relay-client": found.relay_client_tls, "relay-server": found.relay_tls}


def mounted(made: list[Manifest]) -> dict[str, str]:
    """Secrets of certificates by the path that they are mounted at, and that the first container sees."""
    found = {}
    for name in ("cirri-flows", "cirri-relay"):
        pod = pods(made)[name]
        secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
        for mount in pod["containers"][0]["volumeMounts"]:
            if mount["name"] in secrets and mount["name"] != "bus":
                found[mount["mountPath"]] = secrets[mount["name"]]
    return found


@pytest.mark.parametrize(
    ("values", "secrets"),
    [
        ({}, {"flows": "hubble-server-certs", "relay-client": "hubble-relay-client-certs"}),
        (
            RELAY_TLS,
            {
                "flows": "hubble-server-certs",
                "relay-client": "hubble-relay-client-certs",
                "relay-server": "hubble-relay-server-certs",
            },
        ),
        (OWN, {"flows": "nodes", "relay-client": "relay"}),
        ({"hubble": {"tls": {"enabled": False}}}, {}),
    ],
    ids=["made", "clients of the relay too", "one's own", "none"],
)
def test_files_are_where_the_configuration_says(values: dict[str, Any], secrets: dict[str, str]) -> None:
    made = render(values)
    where = mounted(made)
    for who, files in settings(made).items():
        if who not in secrets:
            assert files == Tls()
            continue
        (folder,) = [path for path, secret in where.items() if secret == secrets[who]]
        certificate, key, ca = (Path(folder) / name for name in ("tls.crt", "tls.key", "ca.crt"))
        assert files == Tls(certificate=certificate, key=key, ca=ca)
    assert set(where.values()) == set(secrets.values())


@pytest.mark.parametrize(
    ("secret", "name"),
    [
        ("hubble-server-certs", server_name("node-1.example", "far.east")),
        ("hubble-relay-client-certs", "ui.hubble-relay.cilium.io"),
        ("hubble-relay-server-certs", "ui.hubble-relay.cilium.io"),
    ],
)
def test_certificates_are_for_the_names_that_are_asked_for(secret: str, name: str, tmp_path: Path) -> None:
    (made,) = of(render(RELAY_TLS | {"cluster": {"name": "far.east"}}), "Secret", secret)
    files = TlsFiles(*(tmp_path / file for file in ("tls.crt", "tls.key", "ca.crt")))
    for path in files:
        assert path is not None
        path.write_bytes(base64.b64decode(made["data"][path.name]))
    read(files, time.time())
    words = f"openssl verify -CAfile ca.crt -verify_hostname {name} tls.crt"
    assert (
        subprocess.run(words.split(), cwd=tmp_path, capture_output=True, check=True).stdout
        == b"tls.crt: OK\n"
    )


def test_what_is_not_made_must_be_named() -> None:
    with pytest.raises(helm_python.HelmRenderError) as refused:
        render({"hubble": {"tls": {"auto": {"enabled": False}}}})
    assert "hubble.tls.server.existingSecret must name a Secret" in str(refused.value)
