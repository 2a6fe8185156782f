"""Conditions of ``FlowFilter`` on numbers and addresses: columns are compared as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import numpy as np

from cirri.history import Reply, RowType, Table, Verdict, parts_of
from cirri.hubble import facts
from cirri.hubble.facts import Build, Mask, Place, Test
from cirri.hubble.summaries import TCP, TCP_FLAGS
from cirri.layout import prefix16


def column(column: str) -> Build:
    """Of numbers that the API has as the rows have them."""

    def build(values: Sequence[Any], _: Place) -> Test:
        wanted = list(values)
        return lambda table: np.isin(table.rows[column], wanted)

    return build


def uuids(values: Sequence[str], _: Place) -> Test:
    """Of flows by name; what is no name of ours names none of ours."""
    wanted: dict[int, list[int]] = {}
    for value in values:
        try:
            instance, seq = parts_of(UUID(value))
        except ValueError:
            continue  # of somebody else's flows
        wanted.setdefault(instance, []).append(seq)
    return lambda table: np.isin(table.rows["seq"], np.array(wanted.get(table.instance, ()), np.uint64))


def events(values: Sequence[Any], _: Place) -> Test:
    """``EventTypeFilter``: 0 is any type."""

    def test(table: Table) -> Mask:
        types, sub_types = facts.event_types(table.rows), facts.event_sub_types(table.rows)
        mask = np.zeros(len(types), bool)
        for value in values:
            one = types == value.type if value.type else np.ones(len(types), bool)
            mask |= one & (sub_types == value.sub_type) if value.match_sub_type else one
        return mask

    return test


def replies(values: Sequence[bool], _: Place) -> Test:
    """Whether it answers; unknown is neither."""
    wanted = [Reply.YES if value else Reply.NO for value in values]

    def test(table: Table) -> Mask:
        rows, replies = table.rows, facts.replies(table.rows)
        # What was dropped is no reply to clients that know no third answer.
        dropped = (replies == Reply.UNKNOWN) & (rows["verdict"] == Verdict.DROPPED)
        return np.isin(np.where(dropped, Reply.NO, replies), wanted)

    return test


def reasons(values: Sequence[int], _: Place) -> Test:
    """``DropReason``."""
    return lambda table: np.isin(facts.reasons(table.rows), list(values))


def identities(side: str) -> Build:
    """Of the *side*."""

    def build(values: Sequence[int], _: Place) -> Test:
        return lambda table: np.isin(facts.identities(table, side), list(values))

    return build


def ip_versions(values: Sequence[int], _: Place) -> Test:
    """``IPVersion``."""
    wanted = [{1: 4, 2: 6}.get(value, 0) for value in values]
    return lambda table: np.isin(facts.versions(table.rows), wanted)


def ports(column: str) -> Build:
    """Of what has ports."""

    def build(values: Sequence[str], _: Place) -> Test:
        ports = []
        for value in values:
            if not (value.isascii() and value.isdecimal() and int(value) < 1 << 16):
                raise ValueError(f'"{value}" is no port')
            ports.append(int(value))
        return lambda table: np.isin(table.rows[column], ports) & np.isin(table.rows["protocol"], facts.PORTS)

    return build


def tcp_flags(values: Sequence[Any], _: Place) -> Test:
    """A packet has all flags of one value, and perhaps more."""

    def test(table: Table) -> Mask:
        rows = table.rows
        mask = np.zeros(len(rows), bool)
        for value in values:
            bits = sum(bit for name, bit in TCP_FLAGS.items() if getattr(value, name))
            if not value.NS:  # which the datapath does not see
                mask |= rows["tcp_flags"] & bits == bits
        mask &= (rows["protocol"] == TCP) & (rows["type"] != RowType.L7)
        return mask

    return test


def encrypted(values: Sequence[bool], _: Place) -> Test:
    """No flow says that it was."""
    return lambda table: np.full(len(table.rows), False in values)


def nothing(_: Sequence[Any], __: Place) -> Test:
    """Of what no flow has."""
    return lambda table: np.zeros(len(table.rows), bool)


def translated(values: Sequence[str], place: Place) -> Test:
    """Addresses after masquerading, which no flow tells yet."""
    addresses("source")(values, place)
    return nothing(values, place)


def addresses(side: str) -> Build:
    """Addresses and prefixes."""

    def build(values: Sequence[str], _: Place) -> Test:
        wanted = [_network(value) for value in values]

        def test(table: Table) -> Mask:
            found, version = facts.halves(table.rows[side].tobytes()), facts.versions(table.rows)
            first, second = found[:, 0], found[:, 1]
            mask = np.zeros(len(table.rows), bool)
            for family, bits, parts in wanted:
                same = (first & bits[0] == parts[0]) & (second & bits[1] == parts[1])
                mask |= same & (version == family)
            return mask

        return test

    return build


def _network(text: str) -> tuple[int, Any, Any]:
    """(4 or 6, mask, address) of an address or a prefix, each as two halves."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        what = "CIDR" if "/" in text else "IP address"
        raise ValueError(f'"{text}" is no {what}') from None
    bits, raw = prefix16(network)
    mask = ((1 << bits) - 1) << (128 - bits)
    return network.version, facts.halves(mask.to_bytes(16))[0], facts.halves(raw)[0]
