"""The compiled edge reads messages as ``message`` does, and is not broken by those that are."""

import random
import struct
import subprocess
from pathlib import Path

import pytest

from cirri.dnsproxy.core import query_end, read_addresses
from cirri.dnsproxy.message import Malformed, check_query, question_end, read_answer
from cirri.testing.hostile import fuzzed, seeds

COUNT = 20000
CORE = Path(__file__).parents[2] / "services/cirri/dnsproxy/core"


def test_it_finds_what_python_finds() -> None:
    plain = 0
    for wire in fuzzed(random.Random(5), seeds(), COUNT):
        found = read_addresses(wire)
        if found is not None:
            plain += len(found) > 0
            assert found == read_answer(wire, question_end(wire)).addresses, wire.hex()
        for query in (wire, wire[:2] + b"\1" + wire[3:]):
            try:
                end = check_query(query)
            except Malformed:
                end = 0
            assert query_end(query) == end, query.hex()
    assert plain > 500


def test_nothing_breaks_it() -> None:
    """Every message as a question and as an answer, with address and undefined behaviour checked."""
    subprocess.run(["make", "-s", "-C", CORE, "build/broken"], check=True)
    wires = list(fuzzed(random.Random(6), seeds(), COUNT))
    stream = b"".join(struct.pack("!H", len(wire)) + wire for wire in wires)
    done = subprocess.run([CORE / "build/broken"], input=stream, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"%d messages" % COUNT)


@pytest.mark.parametrize("size", [0, 1, 11, 12, 16, 17])
def test_little_is_nothing(size: int) -> None:
    assert query_end(bytes(size)) == 0
    assert read_addresses(bytes(size)) is None
