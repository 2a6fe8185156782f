"""What can go wrong on the bus.

::

    CirriError
    └── BusError
        ├── BusUnavailable    no connection (yet)
        ├── BusTimeout        no answer in time; a publisher still keeps the wanted state
        ├── BusRefused        the server answered with an error
        ├── NotPermitted      the server refuses this user that subject
        ├── BucketMissing     no service has made the bucket yet
        ├── LogMissing        no service has made the log yet
        ├── KeyInvalid        a key outside the alphabet, reserved, or too long
        ├── ValueTooLarge     a value beyond the limit of one key
        ├── NotOwner          a key of somebody else's bucket or shard
        ├── KeyTaken          create() of a key that has a value
        ├── StaleRevision     compare-and-set against a revision that has passed
        ├── ServiceAway       nobody answers a request subject
        └── RequestFailed     the service answered with an error
"""

from cirri.errors import CirriError


class BusError(CirriError):
    """Anything that concerns the bus."""


class BusUnavailable(BusError):
    """There is no connection to the server at *url*; *why* as the client said it."""

    hint = "Check that nats-server runs there and that the user and password are right"

    def __init__(self, url: str, why: str) -> None:
        self.url, self.why = url, why
        super().__init__(f"no connection to the bus at {url} ({why})")


class BusTimeout(BusError):
    """*what* was not answered within *timeout_s* seconds."""

    def __init__(self, what: str, timeout_s: float, *, kept: bool = False) -> None:
        self.what, self.timeout_s, self.kept = what, timeout_s, kept
        tail = "; it is kept and will be written when the bus answers" if kept else ""
        super().__init__(f"{what}: no answer from the bus within {timeout_s:g} s{tail}")


class BusRefused(BusError):
    """The server answered *what* with error *code* and *text*."""

    def __init__(self, what: str, code: int, text: str) -> None:
        self.what, self.code, self.text = what, code, text
        super().__init__(f"{what}: the bus refused: {text} (error {code})")


class NotPermitted(BusError):
    """The server lets this user not do *action* ("publish" or "subscribe") on *subject*."""

    hint = "Declare the bucket or subject in the service's contract and regenerate the permissions"

    def __init__(self, user: str, action: str, subject: str) -> None:
        self.user, self.action, self.subject = user, action, subject
        super().__init__(f"user {user or '(none)'} may not {action} on {subject}")


class BucketMissing(BusError):
    """Bucket *bucket* does not exist."""

    hint = "It is made when the service that writes it starts"

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        super().__init__(f"bucket {bucket} does not exist")


class LogMissing(BusError):
    """Log *name* does not exist, or no log takes subject *name*."""

    hint = "It is made when the service that appends to it starts"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is no stream for {name}")


class KeyInvalid(BusError):
    """*key* cannot be a key of *bucket*, because *why*."""

    def __init__(self, bucket: str, key: str, why: str) -> None:
        self.bucket, self.key, self.why = bucket, key, why
        super().__init__(f"{key[:80]!r} cannot be a key of bucket {bucket}: {why}")


class ValueTooLarge(BusError):
    """The value of *key* takes *size* bytes; a value may have *limit*."""

    hint = "Split it over several keys"

    def __init__(self, bucket: str, key: str, size: int, limit: int) -> None:
        self.bucket, self.key, self.size, self.limit = bucket, key, size, limit
        super().__init__(f"value of {bucket}/{key} takes {size} bytes, the limit is {limit}")


class NotOwner(BusError):
    """*key* of *bucket* belongs to another writer than *owner*."""

    def __init__(self, bucket: str, key: str, owner: str) -> None:
        self.bucket, self.key, self.owner = bucket, key, owner
        super().__init__(f"{owner} does not own key {key} of bucket {bucket}")


class KeyTaken(BusError):
    """*key* of *bucket* already has a value, at *revision*."""

    def __init__(self, bucket: str, key: str, revision: int) -> None:
        self.bucket, self.key, self.revision = bucket, key, revision
        super().__init__(f"key {key} of bucket {bucket} already has a value (revision {revision})")


class StaleRevision(BusError):
    """*key* of *bucket* is no longer at *revision*."""

    def __init__(self, bucket: str, key: str, revision: int) -> None:
        self.bucket, self.key, self.revision = bucket, key, revision
        super().__init__(f"key {key} of bucket {bucket} is no longer at revision {revision}")


class ServiceAway(BusError):
    """Nobody serves *subject* now."""

    hint = "See `cirri status` for the service"

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(f"no service answers {subject}")


class RequestFailed(BusError):
    """The service behind *subject* answered with error *code* and *text*."""

    def __init__(self, subject: str, code: int, text: str) -> None:
        self.subject, self.code, self.text = subject, code, text
        super().__init__(text)
