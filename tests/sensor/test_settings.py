"""What is taken out of arguments: all of them before it is known what, and wrong filters change nothing."""

from __future__ import annotations

from typing import cast

import pytest

from cirri.model.runtimeevents import Process
from cirri.runtime import Runtime
from cirri.sensor.export import Exporter
from cirri.sensor.processes import Processes
from cirri.sensor.settings import Settings

KEY = (7, 100)


@pytest.fixture
def processes() -> Processes:
    def look(key: tuple[int, int]) -> Process:
        return Process(exec_id="", pid=key[0], binary="/bin/x", arguments="--key=one --word=two")

    return Processes("n", lambda *_: None, look, lambda _: None, lambda _: KEY)


def _redact(name: str) -> dict[str, str]:
    return {"redaction-filters": f'{{"redact": ["--{name}=(\\\\S+)"]}}'}


def test_arguments(processes: Processes) -> None:
    settings = Settings(cast(Runtime, None), processes, Exporter(lambda *_, **__: None))
    assert processes.at(7, 100, 0, 0).arguments == "*****"

    for number, (data, told, why) in enumerate(
        [
            ({}, "--key=one --word=two", ""),
            (_redact("key"), "--key=***** --word=two", ""),
            ({"redaction-filters": "("}, "--key=***** --word=two", "redaction-filters: no JSON"),
            (_redact("word") | {"export-filename": "x"}, "--key=one --word=*****", "export-filename: 'x'"),
        ]
    ):
        said = "".join(settings.adopt(data))
        assert processes.at(8 + number, 100, 0, 0).arguments == told
        assert said.startswith(f"cirri-config: {why}" if why else "")
        assert bool(said) == bool(why)
    assert processes.at(8, 100, 0, 0).arguments == "--key=***** --word=*****", "of what is known, too"
