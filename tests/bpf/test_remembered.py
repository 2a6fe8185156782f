"""What programs remember holds while the epoch stands: endpoints, next hops, policy's answers."""

from ipaddress import ip_address, ip_network

import pytest
from msgspec.structs import replace

from cirri.layout import (
    DropReason,
    EndpointFlag,
    EndpointValue,
    IpcacheKey,
    IpcacheValue,
    PolicyDirection,
    PolicyKey,
    PolicyValue,
    address16,
)
from cirri.testing.datapath import NEXT_HOP4, NEXT_HOP6, R_IDENTITY, A, B, Entry, World
from cirri.testing.packets import AWAY, FAMILIES, STACK, Case, Do, Family, Send, play


def behind(world: World, prefix: str, node: str) -> None:
    """Say behind which node *prefix* is ("": none), and that something changed."""
    value = IpcacheValue(identity=R_IDENTITY, node=address16(node) if node else bytes(16))
    world.ipcache.put(IpcacheKey.of(ip_network(prefix)), value)
    world.raise_epoch()


def unknown(world: World, prefix: str) -> None:
    """Say that nobody has *prefix*."""
    world.ipcache.delete(IpcacheKey.of(ip_network(prefix)))
    world.raise_epoch()


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_a_change_of_next_hops_holds_with_the_epoch(shared_world: World, f: Family) -> None:
    node = NEXT_HOP4 if f.version == 4 else NEXT_HOP6
    remote, outside = (f.udp(f.a, to) for to in (f.r, f.world))
    nothing: tuple[str, ...] = ()

    play(
        shared_world,
        Case(
            "moved",
            (
                Send("A", remote, AWAY, ("new",)),
                Send("A", remote, AWAY, nothing),
                Do(lambda w: behind(w, f.r, "")),
                Send("A", remote, STACK, nothing),
                Do(lambda w: behind(w, f.r, node)),
                Send("A", remote, AWAY, nothing),
                Send("A", outside, STACK, ("new",)),
                Do(lambda w: behind(w, f.world, node)),
                Send("A", outside, AWAY, nothing),
                Do(lambda w: unknown(w, f.world)),
                Send("A", outside, STACK, nothing),
            ),
        ),
    )


def found(world: World, address: str, value: EndpointValue | None, *, news: bool = True) -> None:
    """Say what is known of *address* (None: it is nobody's), and if it is *news*, that something changed."""
    if value is None:
        world.endpoints.delete(address16(address))
    else:
        world.endpoints.put(address16(address), value)
    if news:
        world.raise_epoch()


def known(world: World, address: str) -> EndpointValue:
    world.reset()
    return world.endpoints[address16(address)]


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_a_change_of_endpoints_holds_with_the_epoch(shared_world: World, f: Family) -> None:
    there, back = f.udp(f.a, f.b), f.udp(f.b, f.a, 53, 40000)
    b = known(shared_world, f.b)

    play(
        shared_world,
        Case(
            "comes and goes",
            (
                Send("A", f.udp(f.a, f.b), "B", ("new",)),
                Send("A", there, "B", ()),
                Do(lambda w: found(w, f.b, None)),
                Send("A", there, STACK, ()),
                Send("B", back, DropReason.INVALID_SOURCE_IP),
                Do(lambda w: found(w, f.b, b)),
                Send("A", there, "B", ()),
            ),
        ),
    )


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_an_endpoint_that_waits_for_its_device_is_not_remembered(shared_world: World, f: Family) -> None:
    """It gets it without a new epoch."""
    b = known(shared_world, f.b)
    play(
        shared_world,
        Case(
            "opened",
            (
                Do(lambda w: found(w, f.b, replace(b, ifindex=0))),
                Send("B", f.udp(f.b, f.a), DropReason.INVALID_SOURCE_IP),
                Do(lambda w: found(w, f.b, b, news=False)),
                Send("B", f.udp(f.b, f.a), "A", ("new",)),
            ),
        ),
    )


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_addresses_that_share_a_place_are_kept_apart(shared_world: World, f: Family) -> None:
    """1024 addresses further is the same place of the table, but another address."""
    other = str(ip_address(f.r) + 1024)
    both = Send("A", f.udp(f.a, f.r), AWAY, ()), Send("A", f.udp(f.a, other), STACK, ())
    first = Send("A", f.udp(f.a, f.r), AWAY, ("new",)), Send("A", f.udp(f.a, other), STACK, ("new",))

    play(shared_world, Case("same place", (*first, *both, *both)))


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_both_ends_of_a_packet_may_share_a_place(shared_world: World, f: Family) -> None:
    """A node with several ranges has pods 512 addresses apart: A's policy is asked, not the receiver's."""
    other = str(ip_address(f.a) + 512)
    b = known(shared_world, f.b)

    def denied(to: str) -> Send:
        return Send("A", f.udp(f.a, to), DropReason.POLICY, ("egress POLICY match=0 rule=0",))

    play(
        shared_world,
        Case(
            "same place",
            (Do(lambda w: found(w, other, b)), denied(f.b), denied(other), denied(other)),
            {"A": EndpointFlag.ENFORCE_EGRESS},
        ),
    )


def change(world: World, peer: int, value: PolicyValue | None) -> None:
    """Put an entry for *peer* and port 80 into A's policy, or take it out; say that something changed."""
    key = PolicyKey.of(A.policy_id, peer, PolicyDirection.EGRESS, 6, 80, 16)
    if value is None:
        world.policy.delete(key)
    else:
        world.policy.put(key, value)
    world.raise_epoch()


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_a_change_of_policy_holds_with_the_epoch(shared_world: World, f: Family) -> None:
    """Each connection is a new one, about which the same is asked."""
    ports = iter(range(40000, 40100))

    def allowed(told: str) -> Send:
        return Send("A", f.tcp(f.a, f.b, "S", next(ports), 80), "B", (f"egress allow {told}", "new"))

    def denied(reason: DropReason, told: str) -> Send:
        return Send("A", f.tcp(f.a, f.b, "S", next(ports), 80), reason, (f"egress {told}",))

    named, anybody = Entry("A", PolicyDirection.EGRESS, B.identity, 6, 80, 16, 7), PolicyValue(rule=8)
    play(
        shared_world,
        Case(
            "each step",
            (
                allowed("match=2 rule=7"),
                allowed("match=2 rule=7"),
                Do(lambda w: change(w, 0, PolicyValue(rule=9, action=1))),
                denied(DropReason.POLICY_DENY, "POLICY_DENY match=3 rule=9"),
                denied(DropReason.POLICY_DENY, "POLICY_DENY match=3 rule=9"),
                Do(lambda w: change(w, B.identity, None)),
                Do(lambda w: change(w, 0, anybody)),
                allowed("match=3 rule=8"),
                allowed("match=3 rule=8"),
                Do(lambda w: change(w, 0, None)),
                denied(DropReason.POLICY, "POLICY match=0 rule=0"),
                denied(DropReason.POLICY, "POLICY match=0 rule=0"),
            ),
            {"A": EndpointFlag.ENFORCE_EGRESS},
            (named,),
        ),
    )


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_what_the_entry_says_is_not_remembered(shared_world: World, f: Family) -> None:
    """Only which one decides is: what it says may be changed in place, in both sets that are asked."""
    ports = iter(range(40000, 40100))
    entry = Entry("A", PolicyDirection.EGRESS, B.identity, 6, 80, 16, 7)
    tried = entry._replace(rule=9, tried=True)

    def says(entry: Entry) -> Do:
        return Do(lambda world: world.policy.put(entry.key, entry.value))

    def asked(to: DropReason | str, *told: str) -> Send:
        return Send("A", f.tcp(f.a, f.b, "S", next(ports), 80), to, told)

    allowed = ("egress allow match=2 rule=7", "new")
    play(
        shared_world,
        Case(
            "each step",
            (
                asked("B", *allowed),
                says(tried._replace(deny=True)),
                asked("B", "egress audited POLICY_DENY match=2 rule=9", "new"),
                says(entry._replace(auth=True)),
                asked(DropReason.POLICY_AUTH_REQUIRED, "egress POLICY_AUTH_REQUIRED match=2 rule=7"),
                says(entry),
                says(tried),
                asked("B", *allowed),
            ),
            {"A": EndpointFlag.ENFORCE_EGRESS | EndpointFlag.AUDIT_EGRESS},
            (entry, tried),
        ),
    )
