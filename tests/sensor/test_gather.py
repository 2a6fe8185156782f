"""Batches: events that are alike but for their time are written once, and read as if each had been."""

from __future__ import annotations

import pytest

from cirri.history.packing import Unreadable
from cirri.history.runtimewire import decode, encode
from cirri.model.runtimeevents import Process, RuntimeBatch, RuntimeEvent
from cirri.sensor.gather import BATCH_ALIKE, Gathering, Place

CALLER = Process(exec_id="a", pid=7, binary="/bin/a")
CALLS = ["setuid", "setuid", "kill", "setuid", "kill", "kill"]


def _add(gathering: Gathering, call: str, time_ns: int) -> list[RuntimeBatch]:
    return list(gathering.add(CALLER, type="process_kprobe", time=time_ns, function_name=call))


def _gathering() -> Gathering:
    return Gathering("n1", 5, lambda _: ())


@pytest.mark.parametrize("calls", [CALLS, CALLS[:1], ["a", "b", "c"], ["a"] * 900], ids=len)
def test_alike_is_what_one_by_one_is(calls: list[str]) -> None:
    alike, single, places = _gathering(), _gathering(), dict[str, Place]()
    for number, call in enumerate(calls):
        when = 1_000_000_000 + 7 * (number ^ 1)  # not in the order of their times
        _add(single, call, when)
        if call in places:
            assert alike.again(places[call], when) is None
        else:
            _add(alike, call, when)
            assert alike.last
            places[call] = alike.last
    (one,), (other,) = alike.flush(), single.flush()
    assert decode(encode(one)) == other
    assert (one.count, len(one.events), alike.count) == (len(calls), len(set(calls)), 0)


def test_a_full_batch_takes_no_more() -> None:
    gathering = _gathering()
    _add(gathering, "a", 1)
    place = gathering.last
    assert place
    full = [batch for number in range(BATCH_ALIKE - 1) if (batch := gathering.again(place, number))]
    assert [(batch.count, place.open, gathering.count) for batch in full] == [(BATCH_ALIKE, False, 0)]


@pytest.mark.parametrize(
    ("which", "times"),
    [(b"\1\0\0\0", bytes(8)), (b"", bytes(8)), (bytes(4), bytes(9))],
    ids=["index", "few", "odd"],
)
def test_columns_that_do_not_fit_are_no_batch(which: bytes, times: bytes) -> None:
    event = RuntimeEvent(type="process_kprobe", time=0, process=0)
    batch = RuntimeBatch(
        node="n",
        instance=1,
        number=1,
        namespace="",
        first_ns=0,
        last_ns=0,
        events=(event,),
        which=which,
        times=times,
    )
    with pytest.raises(Unreadable):
        decode(encode(batch))
