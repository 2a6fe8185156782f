"""Maglev tables: fair, the same everywhere, and calm when a backend goes."""

from collections import Counter

import pytest

from cirri.maglev import SIZES, table


def names(count: int) -> dict[str, int]:
    return {f"10.0.{number >> 8}.{number & 255}:80": 1 for number in range(count)}


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_primes(size: int) -> None:
    assert all(size % divisor for divisor in range(2, int(size**0.5) + 1))


@pytest.mark.parametrize(("count", "size"), [(1, 251), (2, 251), (3, 1021), (100, 16381), (1000, 65521)])
def test_every_backend_has_its_share(count: int, size: int) -> None:
    shares = Counter(table(names(count), size))
    assert sorted(shares) == list(range(count))
    assert max(shares.values()) - min(shares.values()) <= 1


def test_the_order_of_backends_does_not_matter() -> None:
    backends = names(50)
    assert table(dict(reversed(backends.items()))) == table(backends)


def test_another_seed_is_another_table() -> None:
    assert table(names(50), seed="AAAAAAAAAAAAAAAA") != table(names(50))


def test_when_one_goes_few_others_move() -> None:
    """Each slot of the one that goes finds another backend; of the rest one in 250 moves at most."""
    before, size = names(100), 65521
    moved = []
    for gone in list(before)[::10]:
        after = {name: weight for name, weight in before.items() if name != gone}
        old, new = table(before, size), table(after, size)
        was, now = sorted(before), sorted(after)
        moved.append(sum(was[a] not in (gone, now[b]) for a, b in zip(old, new, strict=True)) / size)
        assert len({b for a, b in zip(old, new, strict=True) if was[a] == gone}) > 90
    assert max(moved) < 0.004


def test_weights() -> None:
    shares = Counter(table({"a": 1, "b": 2, "c": 0, "d": 5}, 16381))
    assert set(shares) == {0, 1, 3}
    for place, weight in ((0, 1), (1, 2), (3, 5)):
        assert abs(shares[place] - 16381 * weight / 8) < 1


@pytest.mark.parametrize("backends", [{}, {"a": 0}], ids=["none", "none that counts"])
def test_without_backends_there_is_no_table(backends: dict[str, int]) -> None:
    assert not table(backends)
