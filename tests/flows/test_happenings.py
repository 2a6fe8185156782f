"""What happens to endpoints and addresses becomes events, whatever the order of the news."""

from typing import NamedTuple

import msgspec
import pytest

from cirri.cli.flowevents import event_details
from cirri.flows.happenings import Happenings
from cirri.hubble.messages import AgentEventType
from cirri.model import Endpoint

NEW = Endpoint(
    node="node1",
    id=7,
    namespace="default",
    pod="xwing",
    container_id="c",
    interface="lxc7",
    ipv4="10.52.0.3",
    ipv6="fd00::3",
    labels=("k8s:class=xwing",),
)
READY = msgspec.structs.replace(NEW, identity=300, state="ready")
ENFORCED = msgspec.structs.replace(READY, ingress_enforced=True)
BROKEN = msgspec.structs.replace(READY, error="the map is full")
OTHER = msgspec.structs.replace(READY, node="node2")
RELABELLED = msgspec.structs.replace(READY, identity=301)

CREATED = "ENDPOINT_CREATED id: 7, namespace: default, pod name: xwing"
DELETED = CREATED.replace("CREATED", "DELETED")
REGENERATED = "ENDPOINT_REGENERATE_SUCCESS id: 7, labels: [k8s:class=xwing]"
FAILED = "ENDPOINT_REGENERATE_FAILURE id: 7, labels: [k8s:class=xwing], error: the map is full"
UP4 = "IPCACHE_UPSERTED cidr: 10.52.0.3/32, identity: 300, host ip: 192.168.3.11, encrypt key: 0"
UP6 = UP4.replace("10.52.0.3/32", "fd00::3/128")
GONE4, GONE6 = (up.replace("UPSERTED", "DELETED").replace(", host ip: 192.168.3.11", "") for up in (UP4, UP6))
MOVED = [up.replace("identity: 300", "identity: 301, old identity: 300") for up in (UP4, UP6)]


class Case(NamedTuple):
    id: str
    news: list[Endpoint | None]
    expected: list[str]
    quiet: int = 0
    """News of the beginning."""


CASES = [
    Case("a pod", [NEW, READY], [CREATED, REGENERATED, UP4, UP6]),
    Case("at once", [READY], [CREATED, REGENERATED, UP4, UP6]),
    Case("nothing new", [READY, READY], [CREATED, REGENERATED, UP4, UP6]),
    Case("was there", [READY], [], quiet=1),
    Case("was there, and goes", [READY, None], [DELETED, GONE4, GONE6], quiet=1),
    Case("a policy comes into force", [READY, ENFORCED], [REGENERATED], quiet=1),
    Case("fails, and mends", [READY, BROKEN, BROKEN, READY], [FAILED], quiet=1),
    Case("other labels", [READY, RELABELLED], [REGENERATED, *MOVED], quiet=1),
    Case("of another node", [OTHER, None], [UP4, UP6, GONE4, GONE6]),
    Case("never there", [None], []),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_events(case: Case) -> None:
    told: list[str] = []
    happenings = Happenings(
        "node1",
        lambda said: told.append(f"{AgentEventType.Name(said.event.type)} {event_details(said.event)}"),
        lambda node: "192.168.3.11",
    )
    for number, endpoint in enumerate(case.news):
        happenings.endpoint("node1.7", endpoint, quiet=number < case.quiet)
    assert sorted(told) == sorted(case.expected)


def test_the_start_is_an_event() -> None:
    told: list[str] = []
    Happenings("node1", lambda said: told.append(event_details(said.event)), now=lambda: 10**9).started()
    assert told == ["start time: Jan  1 00:00:01.000"]
