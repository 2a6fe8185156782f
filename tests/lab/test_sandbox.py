"""What is known of a pod outlives the process that started it."""

import os
from pathlib import Path

from cirri.lab.enter import alive, start_time
from cirri.lab.sandbox import Container, Sandbox, load, load_all
from cirri.lab.topology import Paths


def sandbox(name: str) -> Sandbox:
    return Sandbox(
        uid="u",
        namespace="default",
        name=name,
        node="node1",
        container_id="c",
        netns="n",
        addresses=["10.52.0.1"],
        result={"ips": []},
        containers=[Container(name="main", image="x", argv=["sleep", "1"], pid=os.getpid(), began=1)],
    )


def test_saved_and_loaded(tmp_path: Path) -> None:
    where = Paths(*[tmp_path] * 4)
    for name in ("b", "a"):
        sandbox(name).save(where)

    assert load(where, "default", "a") == sandbox("a")
    assert [s.name for s in load_all(where)] == ["a", "b"]

    sandbox("a").forget(where)
    sandbox("b").forget(where)
    assert load(where, "default", "a") is None
    assert list(where.pods.iterdir()) == [], "empty folders go too"


def test_a_pid_that_is_used_again_is_not_the_container(tmp_path: Path) -> None:
    own = sandbox("a").containers[0]
    assert not own.running, "this process began later"

    own.began = start_time(os.getpid())
    assert own.running
    assert not alive(0, 0)
