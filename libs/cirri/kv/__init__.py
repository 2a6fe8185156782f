"""All that knows NATS: typed buckets that survive the loss of the server and of its store.

:class:`Bus` is the connection, :class:`Table` follows a bucket, :class:`Publisher` is the one
writer of a bucket.  Other packages meet these names only; nats-py stays in here.
"""

from cirri.kv.bus import Bus, Entry
from cirri.kv.errors import (
    BucketMissing,
    BusError,
    BusRefused,
    BusTimeout,
    BusUnavailable,
    KeyInvalid,
    KeyTaken,
    LogMissing,
    NotOwner,
    NotPermitted,
    RequestFailed,
    ServiceAway,
    StaleRevision,
    ValueTooLarge,
)
from cirri.kv.lease import Held
from cirri.kv.link import Message, Subscription
from cirri.kv.publisher import Publisher
from cirri.kv.table import Table

__all__ = [
    "BucketMissing",
    "Bus",
    "BusError",
    "BusRefused",
    "BusTimeout",
    "BusUnavailable",
    "Entry",
    "Held",
    "KeyInvalid",
    "KeyTaken",
    "LogMissing",
    "Message",
    "NotOwner",
    "NotPermitted",
    "Publisher",
    "RequestFailed",
    "ServiceAway",
    "StaleRevision",
    "Subscription",
    "Table",
    "ValueTooLarge",
]
