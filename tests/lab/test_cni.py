"""What the plugin is called with, and how its answers are read."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cirri.cni.install import conflist
from cirri.lab import cni

RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "fd00:10:52::5/128"}, {"address": "10.52.0.5/32"}]}


def test_netconf() -> None:
    config = cni.netconf(conflist(Path("/run/x/cni.sock")), RESULT)

    assert config == {
        "cniVersion": "1.0.0",
        "name": "cirri",
        "type": "cirri-cni",
        "socket": "/run/x/cni.sock",
        "prevResult": RESULT,
    }
    assert "prevResult" not in cni.netconf(conflist(Path("/x")), None)


def test_arguments() -> None:
    text = cni.arguments(namespace="default", name="web", uid="u", container_id="c")

    assert text == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u"
    )


def test_addresses() -> None:
    assert cni.addresses(RESULT) == ["10.52.0.5", "fd00:10:52::5"]


SCRIPTS: dict[str, tuple[str, Any]] = {
    "a result": ("""cat >/dev/null; echo '{"a": 1}'""", {"a": 1}),
    "nothing": ("cat >/dev/null", {}),
    "the environment": (
        """cat >/dev/null; printf '"%s %s %s"' $CNI_COMMAND $CNI_IFNAME $CNI_CONTAINERID""",
        "ADD eth0 c",
    ),
    "a CNI error": (
        """cat >/dev/null; echo '{"code": 11, "msg": "later", "details": "no identity"}'; exit 1""",
        (11, "later; no identity"),
    ),
    "a crash": ("echo oops >&2; exit 3", (3, "oops")),
    "noise": ("echo noise; exit 1", (1, "noise")),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_call(name: str, tmp_path: Path) -> None:
    script, expected = SCRIPTS[name]
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o755)

    def call() -> Any:
        return asyncio.run(
            cni.call(plugin, "ADD", {}, container_id="c", netns=Path("/n"), args="", pod="default/web")
        )

    if isinstance(expected, tuple):
        with pytest.raises(cni.PluginFailed) as failed:
            call()
        assert (failed.value.code, failed.value.said) == expected
    else:
        assert call() == expected
