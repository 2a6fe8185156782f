"""Errors keep their facts and end with what to do."""

import pytest

from cirri.errors import CirriError
from cirri.kv import errors

SENTENCES = [
    (
        errors.BusUnavailable("nats://x", "refused"),
        "no connection to the bus at nats://x (refused). Check that nats-server runs there and that the user "
        "and password are right",
    ),
    (errors.BusTimeout("put", 2.0), "put: no answer from the bus within 2 s"),
    (
        errors.BusTimeout("put", 0.5, kept=True),
        "put: no answer from the bus within 0.5 s; it is kept and will be written when the bus answers",
    ),
    (errors.BusRefused("x", 10071, "wrong"), "x: the bus refused: wrong (error 10071)"),
    (
        errors.NotPermitted("policy", "publish", "$KV.a.b"),
        "user policy may not publish on $KV.a.b. Declare the bucket or subject in the service's contract and "
        "regenerate the permissions",
    ),
    (
        errors.BucketMissing("nodes"),
        "bucket nodes does not exist. It is made when the service that writes it starts",
    ),
    (errors.KeyInvalid("nodes", "a b", "of blanks"), "'a b' cannot be a key of bucket nodes: of blanks"),
    (
        errors.ValueTooLarge("nodes", "a", 7, 5),
        "value of nodes/a takes 7 bytes, the limit is 5. Split it over several keys",
    ),
    (errors.NotOwner("nodes", "b", "a"), "a does not own key b of bucket nodes"),
    (errors.KeyTaken("nodes", "a", 3), "key a of bucket nodes already has a value (revision 3)"),
    (errors.StaleRevision("nodes", "a", 3), "key a of bucket nodes is no longer at revision 3"),
    (errors.ServiceAway("cirri.x"), "no service answers cirri.x. See `cirri status` for the service"),
    (errors.RequestFailed("cirri.x", 400, "no pods"), "no pods"),
]


@pytest.mark.parametrize(("error", "sentence"), SENTENCES, ids=lambda v: type(v).__name__)
def test_sentence(error: errors.BusError, sentence: str) -> None:
    assert str(error) == sentence
    assert isinstance(error, CirriError)


def test_long_keys_are_cut() -> None:
    assert len(str(errors.KeyInvalid("nodes", "x" * 5000, "it is long"))) < 200
