"""What a service that starts makes of what it finds on disk."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cirri.kubernetes.cluster import Cluster
from cirri.kubernetes.state import Change, Key, Provisional
from cirri.kubernetes.store import Store
from cirri.model import Resource

BY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = Key("CiliumNetworkPolicy", "default", "p")


class Bucket:
    """What is published."""

    async def put(self, value: Resource) -> int:
        raise AssertionError(value)

    async def delete(self, key: str) -> int:
        raise AssertionError(key)

    async def replace(self, values: Iterable[Resource]) -> int:
        raise AssertionError(values)


def policy(version: str) -> Resource:
    manifest = {
        "kind": KEY.kind,
        "metadata": {"name": "p", "generation": 1},
        "spec": {"description": version},
    }
    return Resource(kind=KEY.kind, namespace="default", name="p", manifest=manifest)


@pytest.mark.parametrize(
    ("before", "late_s", "found"),
    [
        (policy("old"), -1, "new"),
        (policy("old"), 0, "old"),
        (policy("old"), 9999, "old"),
        (None, -1, "new"),
        (None, 1, None),
    ],
)
def test_what_was_due_while_it_was_down_is_undone_before_it_does_anything(
    tmp_path: Path, before: Resource | None, late_s: int, found: str | None
) -> None:
    waiting = Provisional("2026-01-02T03:04:05Z", before)
    Store(tmp_path).change([Change("configured", policy("new"), provisional=waiting)])

    def start() -> Cluster:
        return Cluster(
            Store(tmp_path), Bucket(), now=lambda: BY + timedelta(seconds=late_s), new_uid=lambda: "uid"
        )

    for cluster in (start(), start()):
        there = cluster.state.get(KEY)
        assert (there.manifest["spec"]["description"] if there else None) == found
        assert cluster.pending == ({KEY: waiting} if late_s < 0 else {})
        assert cluster.due_in_s() == (-late_s if late_s < 0 else None)
