"""Two that share the facts' file read the same records, whatever happens to one of them."""

import fcntl
import time
from pathlib import Path

import pytest

from cirri.dnsproxy.facts import Gone, Learnt, Owner, Record
from cirri.dnsproxy.journal import Journal

A, B, C = Learnt(1, b"\1a\0", ((bytes(16), 60),)), Gone(1, b"\1a\0", (bytes(16),)), Owner(1, "ns/a 10.0.0.1")


def add(journal: Journal, *records: Record) -> list[Record]:
    with journal.locked() as news:
        journal.append(records)
    return news


def both(folder: Path) -> tuple[Journal, Journal]:
    return Journal(folder / "facts"), Journal(folder / "facts")


def test_each_reads_what_the_other_adds(tmp_path: Path) -> None:
    one, two = both(tmp_path)
    assert add(one, A, B) == []
    assert (one.changed(), two.changed()) == (False, True)
    assert add(two, C) == [A, B]
    assert one.news() == [C]
    assert one.news() == two.news() == []
    assert Journal(tmp_path / "facts").news() == [A, B, C]


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 20])
def test_a_record_cut_short_is_cut_off_by_who_writes_next(tmp_path: Path, cut: int) -> None:
    one, two = both(tmp_path)
    add(one, A)
    whole = (tmp_path / "facts").read_bytes()
    (tmp_path / "facts").write_bytes(whole + whole[:cut])
    assert two.news() == [A]
    assert add(two, B) == []
    assert two.bad == 1
    assert one.news() == [B]
    assert Journal(tmp_path / "facts").news() == [A, B]


def test_what_is_no_record_ends_the_file(tmp_path: Path) -> None:
    one, _ = both(tmp_path)
    add(one, A)
    with (tmp_path / "facts").open("ab") as file:
        file.write(b"\0\0\0\2\xff\xff" + bytes(100))
    again = Journal(tmp_path / "facts")
    assert add(again, B) == [A]
    assert Journal(tmp_path / "facts").news() == [A, B]


def test_written_anew(tmp_path: Path) -> None:
    one, two = both(tmp_path)
    add(one, A, B)
    two.news()
    add(one, C)
    with one.locked():
        one.replace([A])
    assert two.news() == [C, A], "what is read again makes the same facts"
    assert add(two, B) == []
    assert one.news() == [B]


def test_nobody_waits_long_for_who_stands_still(tmp_path: Path) -> None:
    one, two = both(tmp_path)
    add(one, A)
    add(two)
    with (tmp_path / "facts.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        for _ in range(20):
            add(two, B)
        assert time.monotonic() - began < 0.5
        add(one, C)
    assert one.news() == [C], "what was written without the lock is read again"
    assert add(two) == [B, C]
    assert two.bad == 0
