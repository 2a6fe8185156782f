"""Sizes of maps between two starts: programs are loaded before anybody has answered."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cirri.datapath.configured import Configured
from cirri.layout.limits import Limits
from cirri.model import Resource

SMALL = {"bpf-lb-map-max": "2048"}


class Config(dict[str, Resource]):
    """The table of the configuration, with what it says."""

    def __init__(self, data: dict[str, str] | None) -> None:
        super().__init__()
        self.ready = asyncio.Event()
        if data is not None:
            self["c"] = Resource(kind="ConfigMap", name="cirri-config", manifest={"data": data})
            self.ready.set()


def begin(file: Path, data: dict[str, str] | None) -> tuple[Configured, int]:
    """A start, and for how many frontends it makes maps; *data* None: nobody answers."""
    one = Configured(file)

    async def main() -> dict[str, int]:
        config: Any = Config(data)
        return await one.begin(config)

    return one, asyncio.run(main())["cirri_lb_services"]


def test_a_fresh_node_asks_and_later_starts_do_not_have_to(tmp_path: Path) -> None:
    file = tmp_path / "limits.json"
    assert begin(file, None)[1] == Limits().frontends
    assert begin(file, SMALL)[1] == 2048
    assert begin(file, None)[1] == 2048
    running, _ = begin(file, {})
    assert running.made.frontends == 2048, "it has been asked before"
    assert not running.note(SMALL)
    assert running.note({})
    assert running.fault == "cirri-config: other sizes of maps are in force when this service starts again"
    assert not running.note({})
    assert begin(file, None)[1] == Limits().frontends


@pytest.mark.parametrize("content", [b"", b"{", b'{"frontends": "x"}'])
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "limits.json"
    file.write_bytes(content)
    assert begin(file, SMALL)[1] == 2048


def test_what_is_not_allowed_changes_nothing_and_sweeps_change_at_once(tmp_path: Path) -> None:
    running, _ = begin(tmp_path / "limits.json", SMALL)
    assert running.note({"bpf-lb-map-max": "some"})
    assert running.fault.startswith("cirri-config: bpf-lb-map-max: 'some' is not allowed")
    assert running.now.frontends == 2048
    assert running.note(SMALL | {"conntrack-gc-interval": "5s"})
    assert (running.fault, running.now.sweep_s) == ("", 5.0)
