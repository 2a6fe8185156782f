from cirri.identity.demand import Demand

WEB, API, DB = ("k8s:app=web",), ("k8s:app=api",), ("k8s:app=db",)


def test_users_are_counted() -> None:
    demand = Demand()
    demand.use("a", ((WEB, 0), (API, 0)))
    demand.use("b", ((WEB, 0),))
    assert set(demand.sets) == {WEB, API}
    assert demand.take_fresh() == {WEB, API}
    assert demand.take_fresh() == set()
    demand.use("a")
    assert demand.wants(WEB)
    assert not demand.wants(API)
    assert demand.take_ended() == ({API}, set())
    demand.use("b")
    assert list(demand.sets) == []
    assert demand.take_ended() == ({WEB}, set())


def test_a_set_that_changes_hands_does_not_end() -> None:
    demand = Demand()
    demand.use("a", ((WEB, 700),))
    demand.use("a", ((WEB, 700), (API, 0)))
    demand.use("a", ((API, 0), (WEB, 700)))
    assert demand.take_ended() == (set(), set())
    demand.use("a", ((API, 0),))
    assert demand.take_ended() == ({WEB}, {700})


def test_fresh_means_still_wanted() -> None:
    demand = Demand()
    demand.use("a", ((WEB, 0),))
    demand.use("a")
    assert demand.take_fresh() == set()


def test_who_needs_no_number_may_have_one() -> None:
    demand = Demand()
    demand.use("a", (((), 4),))
    assert list(demand.sets) == []
    assert demand.holds(4)


def test_numbers_in_force() -> None:
    demand = Demand()
    for user, number in enumerate((700, 700, 800, 0)):
        demand.use(str(user), ((WEB, number),))
    assert demand.reported(WEB) == [700, 800]
    assert demand.holds(800)
    assert not demand.held_by_others(800, WEB)
    assert demand.held_by_others(800, API)
    demand.use("2", ((WEB, 700),))
    assert not demand.holds(800)
    assert demand.take_ended() == (set(), {800})
