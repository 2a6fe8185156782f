"""The ring buffer's reader, against records that a program wrote."""

import asyncio
import gc
import mmap
import os
import select
import struct
import threading
from pathlib import Path

import pytest

from cirri.maps import MapMismatch, MapMissing, Programs, RingBuffer, RingBusy, SkBuff, test_run
from cirri.maps.libbpf import object_get

PACKET = bytes(64)
RECORD = struct.Struct("=3I")
PER_RUN = 96
"""Bytes that a run of ``tc/emit`` takes: 8 + 64 thrown away, 8 + 12 kept and rounded up."""
SIZE = 1 << 16


def emit(programs: Programs, *marks: int) -> list[int]:
    return [test_run(programs["tc/emit"], PACKET, context=SkBuff(mark=mark)).action for mark in marks]


def marks(records: list[bytes]) -> list[int]:
    for record in records:
        first, second, zero = RECORD.unpack(record)
        assert (first, zero) == (second, 0)
    return [RECORD.unpack(record)[0] for record in records]


def test_records_come_in_order(kinds: Programs, bpffs: Path) -> None:
    with RingBuffer(bpffs / "cirri_ring") as ring:
        assert ring.read() == []
        assert not ring.wait(0)

        emit(kinds, 1, 2, 3)

        assert ring.wait(1)
        assert ring.pending == 3 * PER_RUN
        assert marks(ring.read(limit=2)) == [1, 2]
        assert marks(ring.read()) == [3]
        assert ring.pending == 0
        assert not ring.wait(0)


def test_the_ring_wraps(kinds: Programs, bpffs: Path) -> None:
    seen: list[int] = []
    with RingBuffer(bpffs / "cirri_ring") as ring:
        for mark in range(5 * SIZE // PER_RUN):
            emit(kinds, mark)
            if mark % 100 == 99:
                seen += marks(ring.read())
        seen += marks(ring.read())

    assert seen == list(range(5 * SIZE // PER_RUN))


def test_a_full_ring_refuses_and_goes_on_when_read(kinds: Programs, bpffs: Path) -> None:
    with RingBuffer(bpffs / "cirri_ring") as ring:
        outcomes = emit(kinds, *range(SIZE // PER_RUN + 10))
        kept = outcomes.count(0)

        assert kept == pytest.approx(SIZE // PER_RUN, abs=2)
        assert marks(ring.read()) == [mark for mark, outcome in enumerate(outcomes) if outcome == 0]
        assert emit(kinds, 7) == [0]
        assert marks(ring.read()) == [7]


def positions_seen(ring: int, writer: int) -> None:
    """Say when the reader's position is below one that was seen before, and end after 2,000 positions."""
    position = memoryview(mmap.mmap(ring, mmap.PAGESIZE, prot=mmap.PROT_READ)).cast("Q")
    highest = changes = 0
    while changes < 2000:
        now = position[0]
        if now < highest:
            os.write(writer, b"back")
            return
        changes += now > highest
        highest = now
    os.write(writer, b"never")


def test_what_the_kernel_sees_of_the_reader_only_grows(kinds: Programs, bpffs: Path) -> None:
    """A position of 0 for a moment is a full ring to whoever writes on another CPU."""
    mapped = object_get(bpffs / "cirri_ring")
    reader, writer = os.pipe()
    with RingBuffer(bpffs / "cirri_ring") as ring:
        emit(kinds, 1)
        ring.read()
        if not (child := os.fork()):
            positions_seen(mapped, writer)
            os._exit(0)
        try:
            while not select.select([reader], [], [], 0)[0]:
                emit(kinds, 1)
                ring.read()
            assert os.read(reader, 16) == b"never"
        finally:
            os.waitpid(child, 0)
            for fd in (mapped, reader, writer):
                os.close(fd)


def test_what_was_read_is_gone_for_the_next_reader(kinds: Programs, bpffs: Path) -> None:
    with RingBuffer(bpffs / "cirri_ring") as ring:
        emit(kinds, 1, 2)
        ring.read(limit=1)

    with RingBuffer(bpffs / "cirri_ring") as ring:
        assert marks(ring.read()) == [2]


def test_records_wake_a_coroutine(kinds: Programs, bpffs: Path) -> None:
    async def main() -> list[list[int]]:
        batches: list[list[int]] = []
        with RingBuffer(bpffs / "cirri_ring") as ring:
            loop = asyncio.get_running_loop()
            loop.call_later(0.01, emit, kinds, 1, 2)
            async with asyncio.timeout(10):
                async for records in ring.batches():
                    batches.append(marks(records))
                    if len(batches) == 2:
                        return batches
                    loop.call_later(0.01, emit, kinds, 3)
        return batches

    assert asyncio.run(main()) == [[1, 2], [3]]


def test_a_record_that_wakes_nobody_is_found(kinds: Programs, bpffs: Path) -> None:
    with RingBuffer(bpffs / "cirri_ring") as ring:
        timer = threading.Timer(0.02, emit, (kinds, 1))
        timer.start()

        assert ring.wait(10)
        timer.join()
        assert marks(ring.read()) == [1]


def test_there_is_one_reader(bpffs: Path, kinds: Programs) -> None:
    with RingBuffer(bpffs / "cirri_ring"):
        with pytest.raises(RingBusy) as caught:
            RingBuffer(bpffs / "cirri_ring")
        assert caught.value.path == bpffs / "cirri_ring"

    RingBuffer(bpffs / "cirri_ring").close()


def test_other_maps_are_refused(bpffs: Path, kinds: Programs) -> None:
    gc.collect()  # what earlier tests left would be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MapMismatch, match="needs 27"):
        RingBuffer(bpffs / "cirri_hash")
    with pytest.raises(MapMissing):
        RingBuffer(bpffs / "cirri_absent")

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_descriptor_can_be_taken_over(bpffs: Path, kinds: Programs) -> None:
    with RingBuffer(object_get(bpffs / "cirri_ring")) as ring:
        emit(kinds, 5)
        assert marks(ring.read()) == [5]
