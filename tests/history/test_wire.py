"""Batches on the wire: whole again, small, and errors instead of anything else."""

import zlib

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from cirri.history import ROW
from cirri.history.packing import Unreadable
from cirri.history.wire import decode, encode
from cirri.model import End, FlowBatch

FORMS = (0, 1, 3, 300, 4096)


def batch(count: int) -> FlowBatch:
    draw = np.random.default_rng(count)
    rows = np.frombuffer(draw.bytes(count * ROW.itemsize), ROW)
    return FlowBatch(
        node="n1",
        instance=2**64 - 1,
        number=3,
        namespace="a",
        verdict="dropped",
        first_ns=1,
        last_ns=2,
        lost={"ring": 5},
        rows=rows.tobytes(),
        ends=(End(identity=5, labels=("k8s:a=b",)),),
    )


@pytest.mark.parametrize("count", FORMS)
def test_batches_come_back(count: int) -> None:
    assert decode(encode(batch(count))) == batch(count)


def test_rows_that_are_alike_take_little() -> None:
    rows = np.zeros(4096, ROW)
    rows["time"] = 1_764_000_000_000_000_000 + 1000 * np.arange(4096)
    rows["seq"] = np.arange(4096)

    assert len(encode(replace(batch(0), rows=rows.tobytes()))) < 12 * 4096


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x78",
        b"\x78\x01nothing",
        encode(batch(300))[:-5],
        b"\x80",
        msgspec.msgpack.encode(replace(batch(0), rows=b"x")),
        msgspec.msgpack.encode({"node": 5}),
        zlib.compress(bytes(65 << 20)),
    ],
    ids=["nothing", "one byte", "no zlib", "cut", "empty", "half a row", "wrong", "too large"],
)
def test_anything_else_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        decode(data)
