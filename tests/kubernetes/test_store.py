"""Manifests on disk, over crashes."""

import os
from pathlib import Path

import pytest

from cirri.kubernetes.state import Key
from cirri.kubernetes.store import Store, StoredManifestUnreadable
from cirri.model import Resource


def config(name: str, value: str = "1") -> Resource:
    manifest = {"kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}}
    return Resource(kind="ConfigMap", namespace="default", name=name, manifest=manifest, source="f.yaml:1")


def key(name: str) -> Key:
    return Key("ConfigMap", "default", name)


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change([config("a"), config("b")], [])
    store.change([config("a", "2")], [key("b")])

    assert Store(tmp_path).load() == {key("a"): config("a", "2")}


def test_statuses_survive_beside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    running = config("a")
    running.manifest["status"] = {"phase": "Running"}
    store.change([config("a")], [])
    store.put_status(running)
    assert Store(tmp_path).load() == {key("a"): running}

    store.change([], [key("a")])
    store.change([config("a")], [])
    assert Store(tmp_path).load() == {key("a"): config("a")}


@pytest.mark.parametrize("survives", range(1, 8))
def test_a_crash_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """The process dies at its n-th change of the disk."""
    store = Store(tmp_path)
    store.change([config("a")], [])
    before, after = {key("a"): config("a")}, {key("b"): config("b"), key("c"): config("c")}
    left = survives

    def dying(function):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal left
            left -= 1
            if left <= 0:
                raise SystemExit
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(os, "fsync", dying(os.fsync))
        with pytest.raises(SystemExit):
            store.change([config("b"), config("c")], [key("a")])

    assert Store(tmp_path).load() in (before, after)
    assert Store(tmp_path).load() == Store(tmp_path).load()
    assert not list(tmp_path.rglob("*.new"))


def test_a_damaged_manifest_stops_the_service(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change([config("a")], [])
    (tmp_path / "manifests/ConfigMap/default/a.json").write_text("{")

    with pytest.raises(StoredManifestUnreadable, match=r"a\.json cannot be read: .*Restore the file"):
        Store(tmp_path).load()


def test_a_damaged_status_is_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change([config("a")], [])
    store.put_status(config("a"))
    (tmp_path / "statuses/ConfigMap/default/a.json").write_text("{")

    assert Store(tmp_path).load() == {key("a"): config("a")}
