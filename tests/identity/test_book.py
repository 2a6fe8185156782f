import pytest

from cirri.identity.book import Book
from cirri.identity.demand import LabelSet
from cirri.labels import Space, probes, space_of
from cirri.model import Identity

SPACE = Space(low=range(300, 310), high=range(1000, 1010), low_probes=3, probes=6)
WEB, API = ("k8s:app=web",), ("k8s:app=api",)


def small(_: LabelSet) -> Space:
    return SPACE


def order(labels: tuple[str, ...]) -> list[int]:
    return list(probes(labels, SPACE))


def test_learn_and_forget() -> None:
    book = Book(small)
    number = order(WEB)[0]
    book.learn(Identity(id=number, labels=WEB))
    assert (book.number(WEB), book.labels(number), len(book)) == (number, WEB, 1)
    book.forget(number)
    assert (book.number(WEB), book.labels(number), len(book)) == (None, None, 0)


def test_a_number_that_a_set_passed_must_not_become_free() -> None:
    book = Book(small)
    first, second = order(WEB)[:2]
    book.learn(Identity(id=first, labels=API))
    book.learn(Identity(id=second, labels=WEB))
    assert book.passed(first)
    assert not book.passed(second)
    book.learn(Identity(id=first, labels=()))
    assert book.labels(first) == ()
    assert book.passed(first), "retired, but still passed"
    book.forget(second)
    assert not book.passed(first)


def test_of_two_numbers_the_earlier_counts() -> None:
    book = Book(small)
    first, second = order(WEB)[:2]
    book.learn(Identity(id=second, labels=WEB))
    assert not book.surplus(second)
    book.learn(Identity(id=first, labels=WEB))
    assert book.number(WEB) == first
    assert book.surplus(second)
    assert not book.surplus(first)


def test_a_number_can_change_hands() -> None:
    book = Book(small)
    number = order(WEB)[0]
    book.learn(Identity(id=number, labels=API))
    book.learn(Identity(id=number, labels=WEB))
    assert (book.number(API), book.number(WEB)) == (None, number)


@pytest.mark.parametrize(
    "labels",
    [WEB, ("cidr:10.0.0.0/8", "reserved:world-ipv4"), ("k8s:role=edge", "reserved:host")],
    ids=["pods", "prefix", "node"],
)
def test_each_set_has_numbers_of_its_own_space(labels: LabelSet) -> None:
    space = space_of(labels)
    assert next(Book().order(labels)) in space.low


def touched(book: Book) -> set[int]:
    return book.take_touched()


def test_what_may_have_ended_the_use_of_a_number() -> None:
    book = Book(small)
    first, second = order(WEB)[:2]
    book.learn(Identity(id=second, labels=WEB))
    assert touched(book) == {second}
    book.learn(Identity(id=second, labels=WEB))
    assert touched(book) == set(), "nothing new"
    book.learn(Identity(id=first, labels=WEB))
    assert touched(book) == {first, second}, "one of the two is too many"
    book.forget(first)
    assert touched(book) == {second}
    book.learn(Identity(id=first, labels=()))
    assert touched(book) == {first}
    book.forget(second)
    assert touched(book) == {first}, "nobody passes it any more"
