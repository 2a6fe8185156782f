"""Manifests on disk, over crashes."""

import os
from pathlib import Path

import msgspec
import pytest

from cirri.kubernetes.state import Change, Key, Provisional
from cirri.kubernetes.store import Loaded, Store, StoredManifestUnreadable
from cirri.model import Resource


def config(name: str, value: str = "1") -> Resource:
    manifest = {"kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}}
    return Resource(kind="ConfigMap", namespace="default", name=name, manifest=manifest, source="f.yaml:1")


def key(name: str) -> Key:
    return Key("ConfigMap", "default", name)


def put(*objects: Resource, provisional: Provisional | None = None) -> list[Change]:
    return [Change("configured", each, provisional=provisional) for each in objects]


def gone(*objects: Resource) -> list[Change]:
    return [Change("deleted", each) for each in objects]


def objects(folder: Path) -> dict[Key, Resource]:
    return Store(folder).load().objects


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change(put(config("a"), config("b")))
    store.change([*put(config("a", "2")), *gone(config("b")), Change("unchanged", config("c"))])

    assert Store(tmp_path).load() == Loaded({key("a"): config("a", "2")}, {})


@pytest.mark.parametrize("before", [None, config("a")])
def test_what_is_provisional_stays_so(tmp_path: Path, before: Resource | None) -> None:
    waiting = Provisional("2026-01-02T03:04:05Z", before)
    store = Store(tmp_path)
    store.change(put(config("a", "2"), provisional=waiting))

    assert Store(tmp_path).load() == Loaded({key("a"): config("a", "2")}, {key("a"): waiting})

    store.change([Change("confirmed", config("a", "2"))])
    assert Store(tmp_path).load() == Loaded({key("a"): config("a", "2")}, {})


def test_objects_of_earlier_versions_are_for_good(tmp_path: Path) -> None:
    path = tmp_path / "manifests/ConfigMap/default/a.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(config("a")))

    assert Store(tmp_path).load() == Loaded({key("a"): config("a")}, {})


def test_statuses_survive_beside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    running = config("a")
    running.manifest["status"] = {"phase": "Running"}
    store.change(put(config("a")))
    store.put_status(running)
    assert objects(tmp_path) == {key("a"): running}

    store.change(gone(config("a")))
    store.change(put(config("a")))
    assert objects(tmp_path) == {key("a"): config("a")}


@pytest.mark.parametrize("survives", range(1, 8))
def test_a_crash_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """The process dies at its n-th change of the disk."""
    store = Store(tmp_path)
    store.change(put(config("a")))
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
            store.change([*put(config("b"), config("c")), *gone(config("a"))])

    assert objects(tmp_path) in (before, after)
    assert Store(tmp_path).load() == Store(tmp_path).load()
    assert not list(tmp_path.rglob("*.new"))


def test_a_damaged_manifest_stops_the_service(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change(put(config("a")))
    (tmp_path / "manifests/ConfigMap/default/a.json").write_text("{")

    with pytest.raises(StoredManifestUnreadable, match=r"a\.json cannot be read: .*Restore the file"):
        Store(tmp_path).load()


def test_a_damaged_status_is_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change(put(config("a")))
    store.put_status(config("a"))
    (tmp_path / "statuses/ConfigMap/default/a.json").write_text("{")

    assert objects(tmp_path) == {key("a"): config("a")}
