"""Thousands of addresses looked up at once: a sorted array of hashes instead of a dictionary."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
WORDS = 3
"""A key is so many numbers of 64 bits: an address, and whatever else tells keys apart."""


def keys_of(addresses: Array, more: Array | int = 0) -> Array:
    """Keys (n, 3) of *addresses* (n of 16 bytes) and a number beside each."""
    keys = np.empty((len(addresses), WORDS), np.uint64)
    keys[:, :2] = np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)
    keys[:, 2] = more
    return keys


class Lookup:
    """Numbers by key.  Exact: a key that was found is compared, its hash only says where to look."""

    def __init__(self, known: Mapping[tuple[bytes, int], int]) -> None:
        """*known*: (address of 16 bytes, number beside it) -> what is looked up, not 0."""
        addresses = np.frombuffer(b"".join(address for address, _ in known), "V16")
        more = np.fromiter((more for _, more in known), np.uint64, len(known))
        keys, values = keys_of(addresses, more), np.fromiter(known.values(), np.uint32, len(known))
        while True:
            # Nobody outside may choose addresses whose hashes meet.
            self._salt = np.frombuffer(secrets.token_bytes(8 * WORDS), np.uint64) | np.uint64(1)
            hashes = self._hash(keys)
            order = np.argsort(hashes)
            self._hashes = hashes[order]
            if len(order) < 2 or (self._hashes[1:] != self._hashes[:-1]).all():
                break
        self._keys, self._values = keys[order], values[order]

    def __len__(self) -> int:
        return len(self._values)

    def find(self, keys: Array) -> Array:
        """Of each of *keys* its number; 0: it is not known."""
        if not len(self._values):
            return np.zeros(len(keys), np.uint32)
        places = np.searchsorted(self._hashes, self._hash(keys))
        places[places == len(self._hashes)] = 0
        found: Array = self._values[places]
        found[(self._keys[places] != keys).any(axis=1)] = 0
        return found

    def _hash(self, keys: Array) -> Array:
        mixed: Array = keys[:, 0] * self._salt[0]
        mixed ^= mixed >> np.uint64(29)
        mixed += keys[:, 1] * self._salt[1]
        mixed ^= mixed >> np.uint64(31)
        mixed += keys[:, 2] * self._salt[2]
        mixed ^= mixed >> np.uint64(32)
        mixed *= self._salt[1]
        return mixed
