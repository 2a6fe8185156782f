"""Row B10: Maglev tables: how even, how calm when backends come and go, how fast, how alike on all nodes."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter

from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, Interval, bootstrap_median

from cirri.maglev import DEFAULT_SEED, table

SHAPES = ((16381, 100), (65521, 100), (65521, 1000))
"""(slots, backends)"""
CONNECTIONS = 1_000_000
NODES = 5
MOVED = {(65521, 100): Goal(at_most=0.5, unit=" %")}
BUILD = {(65521, 1000): Goal(at_most=5, unit=" ms")}
SHARE, ALIKE = Goal(at_most=1.01), Goal(at_most=0, unit=" nodes")
Fill = Callable[[Mapping[str, int], int], "array[int]"]


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B10."""
    for shape in SHAPES:
        report.lines += lines(rows[0], shape, effort.rounds)
    size, count = SHAPES[1]
    own = digest(backends(count), size)
    different = float(sum(elsewhere(size, count, node) != own for node in range(NODES)))
    report.lines.append(
        Line(
            rows[0],
            "tables of processes that met the backends in another order",
            f"{NODES} processes",
            Interval(different, different, different),
            unit=" differ",
            goal=ALIKE,
        )
    )


def lines(row: str, shape: tuple[int, int], rounds: int) -> Iterator[Line]:
    """Of a table of so many slots and backends."""
    (size, count), what = shape, f"{shape[0]} slots, {shape[1]} backends"
    names = backends(count)
    times = [build_ms(names, size) for _ in range(max(5, 2 * rounds))]
    yield Line(row, f"{what}: build", "", bootstrap_median(times), unit=" ms", goal=BUILD.get(shape))
    shares = Counter(table(names, size)).values()
    found = max(shares) / min(shares)
    # 65 slots each cannot be nearer: some have one more.
    least = "each has 65 or 66" if count == 1000 else ""
    goal = None if count == 1000 else SHARE
    yield Line(row, f"{what}: most / least slots", "", Interval(found, found, found), goal=goal, limit=least)
    weights = connections(size)
    gone = list(names)[:: max(1, count // min(20, rounds + 5))]
    moved = [100 * share_moved(names, without(names, [one]), size, weights, table) for one in gone]
    paper = share_moved(names, without(names, gone[:1]), size, weights, published)
    yield Line(
        row,
        f"{what}: moved without need when one goes, nothing remembered",
        f"as published {100 * paper:.2f} %",
        bootstrap_median(moved),
        unit=" %",
        goal=MOVED.get(shape),
    )
    tenth = list(names)[::10]
    more = names | {"10.99.0.1:80": 1}
    for text, after in (("a tenth goes", without(names, tenth)), ("one comes", more)):
        found = 100 * share_moved(names, after, size, weights, table)
        yield Line(row, f"{what}: ... when {text}", "", Interval(found, found, found), unit=" %")


def backends(count: int) -> dict[str, int]:
    """Equal ones."""
    return {f"10.{number >> 8}.{number & 255}.7:8080": 1 for number in range(count)}


def without(names: Mapping[str, int], gone: Sequence[str]) -> dict[str, int]:
    """The others."""
    return {name: weight for name, weight in names.items() if name not in gone}


def build_ms(names: Mapping[str, int], size: int) -> float:
    """How long a table takes."""
    began = perf_counter()
    table(names, size)
    return 1000 * (perf_counter() - began)


def connections(size: int) -> Counter[int]:
    """How many of a million connections hash to each slot."""
    draw = random.Random(size)
    return Counter(draw.getrandbits(32) % size for _ in range(CONNECTIONS))


def share_moved(
    before: Mapping[str, int], after: Mapping[str, int], size: int, weights: Mapping[int, int], fill: Fill
) -> float:
    """Share of the connections whose backend was there before and after, and is another one nevertheless."""
    was, now, old, new = sorted(before), sorted(after), fill(before, size), fill(after, size)
    moved = 0
    for slot, (left, right) in enumerate(zip(old, new, strict=True)):
        then, here = was[left], now[right]
        if then != here and then in after and here in before:
            moved += weights[slot]
    return moved / CONNECTIONS


def published(names: Mapping[str, int], size: int) -> array[int]:
    """The table as the paper fills it: who has its turn looks until it finds a free slot."""
    places = []
    for name in sorted(names):
        raw = hashlib.blake2b(name.encode(), digest_size=16, key=DEFAULT_SEED.encode()).digest()
        first, second = (int.from_bytes(raw[at : at + 8], "little") for at in (0, 8))
        places.append([first % size, second % (size - 1) + 1])
    free = len(places)
    found, taken = array("H", [free]) * size, 0
    while taken < size:
        for number, place in enumerate(places[: size - taken]):
            slot, skip = place
            while found[slot] != free:
                slot = (slot + skip) % size
            found[slot] = number
            place[0] = (slot + skip) % size
            taken += 1
    return found


def digest(names: Mapping[str, int], size: int) -> str:
    """Of a table."""
    return hashlib.sha256(table(names, size).tobytes()).hexdigest()


def elsewhere(size: int, count: int, seed: int) -> str:
    """The digest that another process finds, which meets the backends in an order of its own."""
    code = f"""
import random
from integration.bench.maglev import backends, digest
names = list(backends({count}).items())
random.Random({seed}).shuffle(names)
print(digest(dict(names), {size}))
"""
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": sys.path[0]}
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return told.stdout.strip()
