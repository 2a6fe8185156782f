"""The installer writes whole files, waits for the service, and leaves the node as it found it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cirri.cni import install
from cirri.cni.install import CONFIG, PLUGIN

OTHER = "10-flannel.conflist"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """bin/, net.d/ with another network's configuration, and a plugin that says what is in file ``code``."""
    for name in ("bin", "net.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "net.d" / OTHER).write_text("{}")
    (tmp_path / "net.d/README").write_text("no configuration")
    built = tmp_path / "built"
    built.write_text(f'#!/bin/sh\ncat > {tmp_path}/asked\necho no pods yet\nexit "$(cat {tmp_path}/code)"\n')
    monkeypatch.setattr(install, "BUILT", built)
    return tmp_path


@pytest.fixture
def look(node: Path) -> Callable[..., list[str]]:
    def once(*, exclusive: bool = True) -> list[str]:
        return install.install(node / "bin", node / "net.d", node / "cni.sock", exclusive=exclusive)

    return once


def names(node: Path) -> set[str]:
    return {p.name for p in (node / "net.d").iterdir()}


def test_the_configuration_comes_when_the_service_can_take_pods(
    node: Path, look: Callable[..., list[str]]
) -> None:
    (node / "code").write_text("50")
    assert look() == [f"wrote {node / 'bin' / PLUGIN}", "waiting for datapath: no pods yet"]
    assert names(node) == {OTHER, "README"}, "a kubelet must not take the node for ready"
    assert json.loads((node / "asked").read_text())["socket"] == str(node / "cni.sock")
    (node / "code").write_text("0")
    assert look() == [f"wrote {node / 'net.d' / CONFIG}", f"put {OTHER} aside"]
    assert names(node) == {CONFIG, OTHER + install.ASIDE, "README"}
    written = json.loads((node / "net.d" / CONFIG).read_text())
    assert written["plugins"] == [{"type": "cirri-cni", "socket": str(node / "cni.sock")}]
    assert look() == []


def test_what_is_gone_or_old_is_written_again(node: Path, look: Callable[..., list[str]]) -> None:
    (node / "code").write_text("0")
    look()
    (node / "net.d" / CONFIG).unlink()
    (node / "bin" / PLUGIN).write_text("an older one")
    assert look() == [f"wrote {node / 'bin' / PLUGIN}", f"wrote {node / 'net.d' / CONFIG}"]
    assert subprocess.run([node / "bin" / PLUGIN], check=False, input=b"").returncode == 0
    (node / "code").write_text("11")
    assert look() == [], "a restart of the service leaves the configuration in place"


def test_others_stay_unless_it_is_to_be_the_only_one(node: Path, look: Callable[..., list[str]]) -> None:
    (node / "code").write_text("0")
    look(exclusive=False)
    assert names(node) == {CONFIG, OTHER, "README"}


def test_removal_leaves_the_node_as_it_was(node: Path, look: Callable[..., list[str]]) -> None:
    (node / "code").write_text("0")
    look()
    install.remove(node / "bin", node / "net.d")
    assert names(node) == {OTHER, "README"}
    assert not list((node / "bin").iterdir())
    assert install.remove(node / "bin", node / "net.d") == []
