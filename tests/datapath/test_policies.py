"""Two sets of one identity: what is in force, and what is tried out beside it.  The real maps."""

from itertools import permutations

from cirri.datapath.kernel import Kernel
from cirri.engine.entries import Entries, EntryKey, EntryValue
from cirri.layout import EndpointFlag, EndpointValue, PolicyAction, address16

from .test_kernel import INSIDE, TIE, WEB, X, allow, deny, in_force, pinned, pod

TRIED = EndpointFlag.AUDIT_INGRESS


def tried_out(kernel: Kernel, address: str) -> Entries | None:
    """Entries that are tried out on a pod; None: there is nothing to try out."""
    value = kernel.policies.endpoint_map[address16(address)]
    if not value.audit_policy_id:
        return None
    return {
        EntryKey(k.identity, k.direction, k.protocol, k.port, k.port_bits): EntryValue(
            v.rule, v.action == PolicyAction.DENY
        )
        for k, v in kernel.policies.map.items()
        if k.policy_id == value.audit_policy_id
    }


STATES: list[tuple[EndpointFlag, Entries, Entries | None]] = [
    (INSIDE, allow(TIE), None),
    (INSIDE | TRIED, allow(TIE), allow(TIE, X)),
    (INSIDE | TRIED, allow(TIE), deny(X)),
    (TRIED, {}, allow(X)),
    (INSIDE | TRIED, allow(X), {}),
]


def test_what_is_tried_out_stands_beside_what_is_in_force_and_leaves_nothing_behind() -> None:
    with pinned() as bpffs:
        kernel = Kernel(bpffs)
        kernel.policies.realize(WEB, *STATES[0])
        pod(kernel, "10.0.0.1", WEB)
        for path in permutations(STATES, 3):
            for flags, entries, trial in path:
                kernel.policies.realize(WEB, flags, entries, trial)
                assert in_force(kernel, "10.0.0.1") == (flags, entries)
                assert tried_out(kernel, "10.0.0.1") == trial
                kernel.policies.bury(kernel.policies.dying)
                assert kernel.policies.map.count() == len(entries) + len(trial or {})
        assert not kernel.policies.realize(WEB, *path[-1]), "the same again is no change"
        again = Kernel(bpffs)
        assert not again.policies.realize(WEB, *path[-1]), "nor after a restart"


def test_a_trial_that_does_not_fit_is_left_out_whole_and_closes_nothing() -> None:
    trial = allow(*range(900, 912))
    with pinned(policy=8) as bpffs:
        kernel = Kernel(bpffs)
        kernel.policies.realize(WEB, INSIDE, allow(TIE))
        pod(kernel, "10.0.0.1", WEB)
        kernel.policies.realize(WEB, INSIDE | TRIED, allow(TIE), trial)
        assert tried_out(kernel, "10.0.0.1") is None
        assert in_force(kernel, "10.0.0.1")[1] == allow(TIE)
        assert len(kernel.faults()) == 1
        assert kernel.policies.map.count() == 1
        kernel.policies.realize(WEB, INSIDE | TRIED, allow(TIE), allow(X))
        assert (kernel.faults(), tried_out(kernel, "10.0.0.1")) == ([], allow(X))


def test_flags_of_the_endpoint_itself_survive_every_change_of_policy() -> None:
    own = EndpointFlag.AUDIT | EndpointFlag.HOST
    with pinned() as bpffs:
        kernel = Kernel(bpffs)
        kernel.policies.realize(WEB, INSIDE, allow(TIE))
        value = EndpointValue(ifindex=5, id=1, flags=int(own))
        kernel.policies.put_endpoint(address16("10.0.0.1"), kernel.policies.under(WEB, value))
        for flags, entries, trial in STATES:
            kernel.policies.realize(WEB, flags, entries, trial)
            assert in_force(kernel, "10.0.0.1")[0] == flags | own
        assert Kernel(bpffs).policies.sets[WEB].flags == STATES[-1][0]


def test_a_place_takes_over_the_entries_of_what_its_addresses_were() -> None:
    with pinned() as bpffs:
        kernel = Kernel(bpffs)
        kernel.policies.realize(WEB, INSIDE | TRIED, allow(TIE) | deny(X), allow(X))
        pod(kernel, "10.0.0.1", WEB)
        assert kernel.policies.inherit(WEB, {901: TIE, 902: 901, 903: X, 904: 999})
        assert in_force(kernel, "10.0.0.1")[1] == allow(TIE, 901, 902) | deny(X, 903)
        assert tried_out(kernel, "10.0.0.1") == allow(X, 903)
