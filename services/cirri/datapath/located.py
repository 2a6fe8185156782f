"""Identities that stand for places: address prefixes that policies tell apart, and nodes.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from cirri.labels import (
    CIDR,
    NODE_SPACE,
    WORLD_SPACE,
    Reserved,
    canonical,
    in_space,
    prefix_of,
    probes,
    reserved_number,
    world_label,
)
from cirri.layout import IpcacheKey
from cirri.model import Identity

API_SERVER = Reserved.KUBE_APISERVER.label


class Place(NamedTuple):
    """A prefix that an identity stands for."""

    key: IpcacheKey
    api_server: bool
    """It is the address of an API server outside the cluster."""


def place_of(identity: Identity) -> Place | None:
    """Where the addresses of *identity* are; None if it stands for no prefix."""
    prefixes = [label.partition(":")[2] for label in identity.labels if label.startswith(f"{CIDR}:")]
    if len(prefixes) != 1:
        return None
    try:
        prefix = prefix_of(prefixes[0])
    except ValueError:
        return None
    others = {label for label in identity.labels if not label.startswith(f"{CIDR}:")}
    if others - {API_SERVER} != {world_label(prefix.version)}:
        return None
    return Place(IpcacheKey.of(prefix), API_SERVER in others)


def is_prefix(number: int) -> bool:
    """Whether *number* may stand for an address prefix."""
    return in_space(number, WORLD_SPACE)


def is_node(number: int) -> bool:
    """Whether *number* stands for other nodes."""
    return number in (Reserved.REMOTE_NODE, Reserved.KUBE_APISERVER) or in_space(number, NODE_SPACE)


def number_of(labels: Iterable[str], identities: Mapping[str, Identity]) -> int:
    """The number of the identity with exactly *labels*; 0: not allocated yet."""
    wanted = canonical(labels)
    if number := reserved_number(wanted):
        return number
    for number in probes(wanted):
        found = identities.get(str(number))
        if found is not None and found.labels == wanted:
            return number
    return 0


def wider(key: IpcacheKey, lengths: Iterable[int]) -> Iterator[IpcacheKey]:
    """The prefixes of *lengths*, in their order, that contain *key*; itself among them."""
    address = int.from_bytes(key.address, "big")
    for length in lengths:
        if length <= key.prefix_len:
            kept = address >> (128 - length) << (128 - length)
            yield IpcacheKey(prefix_len=length, address=kept.to_bytes(16, "big"))
